//! The tokens of a mesh that `mobula up` starts. Where others can reach its controller and nobody said what they have to show,
//! it makes tokens and keeps them in the state folder, readable by this user alone. It shows none: it says where they are.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use mobula_kit::token::{AdminArgs, MeshArgs, Token};

use super::{Addresses, Args};
use crate::Error;

/// What the services and this command are told.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// Variables of the services.
    pub(crate) variables: Vec<(&'static str, OsString)>,
    /// What this command shows to the controller.
    pub(crate) admin: Option<Token>,
    /// Where people find it, if it is in a file.
    pub(crate) file: Option<PathBuf>,
}

impl Tokens {
    /// Those that were given, or what is made where some are needed.
    pub(crate) fn of(args: &Args, addresses: &Addresses, state: &Path) -> Result<Self, Error> {
        let reached = [addresses.controller, addresses.rest]
            .iter()
            .any(|address| !address.ip().is_loopback());
        let is_needed = reached && args.tls.tls_client_ca.is_none();
        decide((&args.admin, &args.mesh), is_needed, state)
    }
}

fn decide((admin, mesh): (&AdminArgs, &MeshArgs), is_needed: bool, state: &Path) -> Result<Tokens, Error> {
    let (mut admin, mut mesh) = (admin.clone(), mesh.clone());
    let is_given = |given: Result<Option<Token>, mobula_kit::Error>| {
        given.map(|token| token.is_some()).map_err(Error::Setting)
    };
    if !is_given(admin.open())? && is_needed {
        admin.admin_token_file = Some(made(&state.join("admin-token"))?);
    }
    if !is_given(mesh.open())? && is_needed {
        mesh.mesh_token_file = Some(made(&state.join("mesh-token"))?);
    }
    Ok(Tokens {
        variables: [admin.variables(), mesh.variables()].concat(),
        admin: admin.open().map_err(Error::Setting)?,
        file: admin.admin_token_file,
    })
}

/// The file with a token, which is the one of the last mesh if there was one.
fn made(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source: io::Error| Error::Write {
        path: path.to_owned(),
        source,
    };
    if fs::read_to_string(path).is_ok_and(|text| Token::new(&text).is_some()) {
        return Ok(path.to_owned());
    }
    let partial = path.with_extension("partial");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&partial).map_err(failed)?;
    file.write_all(format!("{}\n", Token::random()).as_bytes())
        .map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)?;
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tokens_are_made_where_others_reach_the_controller_and_kept() {
        let state = tempfile::tempdir().unwrap();
        let none = (&AdminArgs::default(), &MeshArgs::default());
        let tokens = decide(none, false, state.path()).unwrap();
        assert!(tokens.variables.is_empty() && tokens.admin.is_none() && tokens.file.is_none());

        let tokens = decide(none, true, state.path()).unwrap();
        let names: Vec<_> = tokens.variables.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["MOBULA_ADMIN_TOKEN_FILE", "MOBULA_MESH_TOKEN_FILE"]);
        let file = tokens.file.unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = decide(none, true, state.path()).unwrap();
        assert_eq!(again.admin, tokens.admin);
        assert_ne!(
            fs::read(&file).unwrap(),
            fs::read(state.path().join("mesh-token")).unwrap()
        );
    }

    #[test]
    fn what_is_given_is_used() {
        let state = tempfile::tempdir().unwrap();
        let given = state.path().join("given");
        fs::write(&given, "s3cret").unwrap();
        let admin = AdminArgs {
            admin_token_file: Some(given.clone()),
        };
        let tokens = decide((&admin, &MeshArgs::default()), false, state.path()).unwrap();
        assert!(tokens.admin.unwrap().is("s3cret"));
        assert_eq!(tokens.file, Some(given));
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
    }
}
