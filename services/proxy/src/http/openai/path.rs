//! Which paths are OpenAI's, and whose they are. Pure.

use std::sync::Arc;

use http::Method;

use super::super::read::decode;
use crate::table::{Application, Table};

/// Where pictures are that answers hold links to.
pub(in crate::http) const FILES: &str = "/v1/images/files/";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Pictures from prompts.
    Generations,
    /// Pictures from pictures, or into them.
    Edits,
    /// Pictures like a picture.
    Variations,
    /// What there is.
    Models,
    /// One of them, by its name.
    Model(String),
    /// A picture that was drawn before, by its name.
    File(String),
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/images/generations" => Some(Self::Generations),
            "/v1/images/edits" => Some(Self::Edits),
            "/v1/images/variations" => Some(Self::Variations),
            "/v1/models" => Some(Self::Models),
            _ => {
                let name =
                    |rest: &str| String::from_utf8_lossy(&decode(&rest.replace('+', "%2B"))).into_owned();
                let rest = |prefix| path.strip_prefix(prefix).filter(|rest: &&str| !rest.is_empty());
                let file = || rest(FILES).map(|rest| Self::File(rest.to_owned()));
                rest("/v1/models/")
                    .map(|rest| Self::Model(name(rest)))
                    .or_else(file)
            }
        }
    }

    /// The method that it has.
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Generations | Self::Edits | Self::Variations => Method::POST,
            Self::Models | Self::Model(_) | Self::File(_) => Method::GET,
        }
    }
}

/// Whose models are meant.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// All applications that have a path; `model` chooses.
    All,
    /// The application below whose prefix it was asked.
    One(Arc<Application>),
}

/// A path of OpenAI's with the table it was found in.
#[derive(Debug)]
pub(in crate::http) struct Ask {
    pub(super) endpoint: Endpoint,
    pub(super) scope: Scope,
    pub(super) table: Arc<Table>,
}

impl Ask {
    /// Reads a path; `None` when it is another's. Applications' own prefixes go first, but for the one at the root.
    pub(in crate::http) fn of(table: &Arc<Table>, path: &str) -> Option<Self> {
        let (scope, rest) = match table.by_path(path) {
            Some((application, rest)) if application.route_prefix != "/" => {
                (Scope::One(Arc::clone(application)), rest)
            }
            Some(_) | None => (Scope::All, path),
        };
        Some(Self {
            endpoint: Endpoint::of(rest)?,
            scope,
            table: Arc::clone(table),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_openais_or_anothers() {
        assert_eq!(
            Endpoint::of("/v1/images/generations"),
            Some(Endpoint::Generations)
        );
        assert_eq!(Endpoint::of("/v1/models"), Some(Endpoint::Models));
        for (path, name) in [
            ("demo", "demo"),
            ("a%2Fb", "a/b"),
            ("a/b", "a/b"),
            ("a+b:c", "a+b:c"),
        ] {
            let asked = Endpoint::of(&format!("/v1/models/{path}"));
            assert_eq!(asked, Some(Endpoint::Model(name.into())), "{path}");
        }
        assert_eq!(
            Endpoint::of("/v1/images/files/ab.png"),
            Some(Endpoint::File("ab.png".into()))
        );
        for path in [
            "/v1",
            "/v1/",
            "/v1/models/",
            "/v1/images",
            "/v1/images/edits/",
            "/v2/models",
            "/imagine",
        ] {
            assert_eq!(Endpoint::of(path), None, "{path}");
        }
    }
}
