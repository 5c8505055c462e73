//! Tokens: what people show to the controller, and what parts of a mesh show each other, where no certificate says it.
//!
//! A token comes from a variable or a file, never from the command line, where every user of the machine could read it; and
//! nothing prints one. It decides nothing; [`crate::guard`] does.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::Error;

/// A token is a line: what is longer is another file.
const MAX_BYTES: usize = 4096;

/// Who a token lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// People and tools that look at the controller and tell it what shall run.
    Admin,
    /// Workers and proxies of the mesh.
    Mesh,
}

impl Scope {
    /// The variable that holds such a token.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Admin => "MOBULA_ADMIN_TOKEN",
            Self::Mesh => "MOBULA_MESH_TOKEN",
        }
    }

    /// The variable that names its file.
    pub fn file_variable(self) -> &'static str {
        match self {
            Self::Admin => "MOBULA_ADMIN_TOKEN_FILE",
            Self::Mesh => "MOBULA_MESH_TOKEN_FILE",
        }
    }

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Mesh => "mesh",
        }
    }
}

/// The flag of the token that people and tools show.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct AdminArgs {
    /// File with the token that the controller demands of people and tools; MOBULA_ADMIN_TOKEN may hold the token itself
    #[arg(long, value_name = "FILE", env = "MOBULA_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
}

/// The flag of the token that workers and proxies show.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct MeshArgs {
    /// File with the token that the controller demands of workers and proxies; MOBULA_MESH_TOKEN may hold the token itself
    #[arg(long, value_name = "FILE", env = "MOBULA_MESH_TOKEN_FILE")]
    pub mesh_token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// The same flag as a variable, for a process that is started by this one; a token in a variable is inherited.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let file = self.admin_token_file.iter();
        file.map(|file| (Scope::Admin.file_variable(), absolute(file)))
            .collect()
    }

    /// The token, if there is one.
    ///
    /// # Errors
    /// [`Error::Config`] when it cannot be read, or is none.
    pub fn open(&self) -> Result<Option<Token>, Error> {
        given(Scope::Admin, self.admin_token_file.as_deref())
    }
}

impl MeshArgs {
    /// The same flag as a variable, for a process that is started by this one; a token in a variable is inherited.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let file = self.mesh_token_file.iter();
        file.map(|file| (Scope::Mesh.file_variable(), absolute(file)))
            .collect()
    }

    /// The token, if there is one.
    ///
    /// # Errors
    /// As [`AdminArgs::open`].
    pub fn open(&self) -> Result<Option<Token>, Error> {
        given(Scope::Mesh, self.mesh_token_file.as_deref())
    }
}

fn absolute(path: &Path) -> OsString {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .into()
}

fn given(scope: Scope, file: Option<&Path>) -> Result<Option<Token>, Error> {
    chosen(scope, std::env::var_os(scope.variable()), file)
}

fn chosen(scope: Scope, variable: Option<OsString>, file: Option<&Path>) -> Result<Option<Token>, Error> {
    // As compose files hand on what is not set.
    let variable = variable.filter(|value| !value.is_empty());
    match (variable, file.filter(|file| !file.as_os_str().is_empty())) {
        (None, None) => Ok(None),
        (Some(_), Some(file)) => Err(Error::Config {
            setting: scope.file_variable(),
            value: file.display().to_string(),
            why: format!("{} holds a token too: give one of them", scope.variable()),
        }),
        (Some(value), None) => {
            let text = value.into_string().ok();
            let token = text.as_deref().and_then(Token::new).ok_or_else(|| Error::Config {
                setting: scope.variable(),
                value: "***".to_owned(),
                why: "a token is one line of letters, digits and signs of ASCII".to_owned(),
            });
            token.map(Some)
        }
        (None, Some(file)) => {
            let failed = |why: String| Error::Config {
                setting: scope.file_variable(),
                value: file.display().to_string(),
                why,
            };
            let text = std::fs::read_to_string(file)
                .map_err(|error| failed(format!("it cannot be read: {error}")))?;
            let why = "it holds no token: one line of letters, digits and signs of ASCII";
            Token::new(&text).ok_or_else(|| failed(why.to_owned())).map(Some)
        }
    }
}

/// A secret that is compared and shown to others, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    shown: MetadataValue<Ascii>,
    digest: [u8; 32],
}

impl Token {
    /// Takes one line, with blanks around it cut off; none when that is no token.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_token =
            !text.is_empty() && text.len() <= MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_token {
            return None;
        }
        let mut shown: MetadataValue<Ascii> = format!("Bearer {text}").parse().ok()?;
        shown.set_sensitive(true);
        Some(Self {
            shown,
            digest: Sha256::digest(text).into(),
        })
    }

    /// A new one, of 244 random bits.
    pub fn random() -> String {
        let half = || uuid::Uuid::new_v4().simple().to_string();
        half() + &half()
    }

    /// Whether `text` is this token; takes as long wherever they differ.
    pub fn is(&self, text: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(text).into();
        self.digest.ct_eq(&digest).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Puts a token, if there is one, into every call of a client.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<Token>);

impl From<Option<Token>> for Bearer {
    fn from(token: Option<Token>) -> Self {
        Self(token)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.shown.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_and_is_never_printed() {
        let token = Token::new(" s3cret\n").unwrap();
        assert!(token.is("s3cret"));
        for other in ["", "s3cre", "s3cret ", "S3CRET", "s3crets"] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!format!("{token:?} {:?}", Bearer::from(Some(token.clone()))).contains("s3cret"));
        for none in [
            "",
            "  \n",
            "two words",
            "zwei\u{df}",
            "a\nb",
            &"x".repeat(MAX_BYTES + 1),
        ] {
            assert!(Token::new(none).is_none(), "{none:?}");
        }
        assert!(Token::new(&Token::random()).is_some());
        assert_ne!(Token::random(), Token::random());
    }

    #[test]
    fn a_token_comes_from_a_variable_or_a_file_and_errors_do_not_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "of-file\n").unwrap();
        let chosen = |variable: Option<&str>, file| chosen(Scope::Admin, variable.map(Into::into), file);
        assert!(chosen(None, None).unwrap().is_none());
        assert!(chosen(Some(""), None).unwrap().is_none());
        assert!(
            chosen(Some("of-variable"), None)
                .unwrap()
                .unwrap()
                .is("of-variable")
        );
        assert!(chosen(None, Some(&file)).unwrap().unwrap().is("of-file"));
        for error in [
            chosen(Some("of-variable"), Some(&file)).unwrap_err(),
            chosen(Some("of variable"), None).unwrap_err(),
            chosen(None, Some(&folder.path().join("none"))).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("MOBULA_ADMIN_TOKEN") && error.is_config(), "{text}");
            assert!(
                !text.contains("of-variable") && !text.contains("of variable"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_call_carries_the_token_marked_as_a_secret() {
        let mut bearer = Bearer::from(Token::new("abc"));
        let request = bearer.call(Request::new(())).unwrap();
        let value = request.metadata().get("authorization").unwrap();
        assert_eq!(value, "Bearer abc");
        assert!(value.is_sensitive());
        let request = Bearer::default().call(Request::new(())).unwrap();
        assert!(request.metadata().is_empty());
    }
}
