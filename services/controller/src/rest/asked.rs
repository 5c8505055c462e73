//! What a request asks for: its query, what it expects to be there, its body.
//!
//! Invariant: a change that names what it was made of is refused when that is not what is there, 0 and nothing included.

use axum::http::{HeaderMap, header};
use mobula_schema::Problem;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::Door;
use crate::{Error, intent::Ledger};

/// How a change is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(default)]
    pub(super) dry_run: bool,
    /// The resource version that is expected; `If-Match` says the same.
    resource_version: Option<u64>,
    #[serde(default)]
    pub(super) reason: String,
}

impl Asked {
    /// The ledger that takes the change of an application (of everything, when the name is empty), and the resource version
    /// that is expected there, 0 for any.
    pub(super) fn ledger(
        &self,
        door: &Door,
        headers: &HeaderMap,
        name: &str,
    ) -> Result<(Ledger, u64), Error> {
        let ledger = &door.ledger;
        match self.expected(headers)? {
            None => Ok((ledger.clone(), 0)),
            // The tag of what nobody has put yet.
            Some(0) => Ok((ledger.if_vacant(name), 0)),
            Some(version) => Ok((ledger.clone(), version)),
        }
    }

    /// What is expected to be there: a resource version, 0 for nothing; none if that was not said.
    fn expected(&self, headers: &HeaderMap) -> Result<Option<u64>, Error> {
        if let Some(tag) = headers.get(header::IF_NONE_MATCH) {
            if tag.as_bytes() == b"*" {
                return Ok(Some(0));
            }
            return Err(refused(
                "If-None-Match",
                "must be *, which puts only what is not there yet",
            ));
        }
        let Some(tag) = headers.get(header::IF_MATCH) else {
            return Ok(self.resource_version);
        };
        let version = tag
            .to_str()
            .ok()
            .and_then(|tag| tag.trim().trim_matches('"').parse().ok());
        let version = version.ok_or_else(|| {
            refused(
                "If-Match",
                "must be a resource version such as \"12\", as ETag gives it",
            )
        });
        version.map(Some)
    }
}

/// A JSON object; serde would take a list for one too.
pub(super) fn object<T: DeserializeOwned>(body: &str, shape: &str) -> Result<T, Error> {
    let read = if body.trim_start().starts_with('{') {
        serde_json::from_str(body).map_err(|error| error.to_string())
    } else {
        Err("it is no object".to_owned())
    };
    read.map_err(|error| refused("(body)", format!("must be {shape}: {error}")))
}

/// The body with the path's name in it, which it may lack and may not contradict.
pub(super) fn named(body: &str, name: &str) -> Result<String, Error> {
    let Ok(mut value) = mobula_schema::document(body) else {
        // The ledger says what is wrong with it, with lines.
        return Ok(body.to_owned());
    };
    match value.get("name") {
        Some(Value::String(given)) if given == name => Ok(body.to_owned()),
        Some(Value::Null) | None if value.is_object() => {
            // What is wrong with it is told at the lines that its author sees.
            mobula_schema::parse_application(body).map_err(Error::Invalid)?;
            value["name"] = json!(name);
            Ok(value.to_string())
        }
        Some(given) => Err(refused(
            "name",
            format!("must be {name:?}, as in the path, not {given}"),
        )),
        None => Ok(body.to_owned()),
    }
}

pub(super) fn refused(path: &str, why: impl Into<String>) -> Error {
    Error::Invalid(vec![Problem {
        path: path.to_owned(),
        line: None,
        why: why.into(),
    }])
}
