//! What models there are, by OpenAI's names, and which one a name means. Pure.
//!
//! A model is an application that has a path, by its name; one of those that it serves on demand is `application:model`, as
//! Ray Serve names adapters.

use std::sync::Arc;

use serde_json::{Value, json};

use super::path::Scope;
use crate::{
    Error,
    table::{Application, NAME_SHOWN, Table},
};

/// Between an application and one of its models.
const SEPARATOR: char = ':';

/// The applications that a scope has.
fn applications<'a>(table: &'a Table, scope: &'a Scope) -> Vec<&'a Arc<Application>> {
    match scope {
        Scope::One(application) => vec![application],
        Scope::All => {
            let routed = |application: &&Arc<Application>| !application.route_prefix.is_empty();
            table.applications().iter().filter(routed).collect()
        }
    }
}

/// All names.
pub(super) fn names(table: &Table, scope: &Scope) -> Vec<String> {
    let mut names = Vec::new();
    for application in applications(table, scope) {
        let Some(pool) = &application.pipeline else {
            continue;
        };
        let on_demand = pool.models();
        // Its own model may not be known yet; that there is none is known once replicas serve others.
        if application.model.is_some() || on_demand.is_empty() {
            names.push(application.name.clone());
        }
        let name = &application.name;
        names.extend(on_demand.keys().map(|id| format!("{name}{SEPARATOR}{id}")));
    }
    names
}

/// A model as OpenAI describes it.
pub(super) fn describe(name: &str, created: u64) -> Value {
    json!({ "id": name, "object": "model", "created": created, "owned_by": "mobula" })
}

/// The application that a name means, and which of its models on demand; none is its own.
///
/// # Errors
/// [`Error::NoRoutes`], [`Error::UnknownModel`], and [`Error::ModelNotNamed`] when several could be meant.
pub(super) fn find(
    table: &Table,
    scope: &Scope,
    name: &str,
) -> Result<(Arc<Application>, Option<String>), Error> {
    if !table.is_populated {
        return Err(Error::NoRoutes);
    }
    let known = applications(table, scope);
    let named = |name: &str| known.iter().find(|application| application.name == name);
    if let Some(application) = named(name) {
        return Ok((Arc::clone(application), None));
    }
    if let Some((application, id)) = name.split_once(SEPARATOR)
        && let Some(application) = named(application)
    {
        return Ok((Arc::clone(application), Some(id.to_owned())));
    }
    match (name, &known[..]) {
        ("", [only]) => Ok((Arc::clone(only), None)),
        ("", [_, _, ..]) => Err(Error::ModelNotNamed {
            known: names(table, scope),
        }),
        _ => Err(unknown(table, scope, name)),
    }
}

/// There is no model by this name.
pub(super) fn unknown(table: &Table, scope: &Scope, name: &str) -> Error {
    Error::UnknownModel {
        name: name.chars().take(NAME_SHOWN).collect(),
        known: names(table, scope),
    }
}
