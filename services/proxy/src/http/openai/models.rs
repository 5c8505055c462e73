//! What models there are, by OpenAI's names, and which one a name means. Pure.
//!
//! A model is an application that has a path, by its name; one of those that it serves on demand is `application:model`, as
//! Ray Serve names adapters.

use std::sync::Arc;

use serde_json::{Value, json};

use super::path::Scope;
use crate::{
    Error,
    caller::Caller,
    table::{Application, NAME_SHOWN, Table},
};

/// Between an application and one of its models.
const SEPARATOR: char = ':';

/// The applications that a scope has for a caller.
fn applications<'a>(table: &'a Table, scope: &'a Scope, caller: &Caller) -> Vec<&'a Arc<Application>> {
    match scope {
        Scope::One(application) => vec![application],
        Scope::All => {
            let routed = |application: &&Arc<Application>| {
                !application.route_prefix.is_empty() && caller.may_enter(&application.name)
            };
            table.applications().iter().filter(routed).collect()
        }
    }
}

/// All names that a caller may use.
pub(super) fn names(table: &Table, scope: &Scope, caller: &Caller) -> Vec<String> {
    let mut names = Vec::new();
    for application in applications(table, scope, caller) {
        let Some(pool) = &application.pipeline else {
            continue;
        };
        let on_demand = pool.models();
        // Its own model may not be known yet; that there is none is known once replicas serve others.
        if (application.model.is_some() || on_demand.is_empty()) && caller.may_use(&application.name, "") {
            names.push(application.name.clone());
        }
        let name = &application.name;
        let open = on_demand.keys().filter(|id| caller.may_use(name, id));
        names.extend(open.map(|id| format!("{name}{SEPARATOR}{id}")));
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
/// [`Error::NoRoutes`], [`Error::UnknownModel`], [`Error::ModelNotNamed`] when several could be meant, and [`Error::Closed`]
/// for what the caller's key does not open, whether there is such a model or not.
pub(super) fn find(
    table: &Table,
    scope: &Scope,
    (name, caller): (&str, &Caller),
) -> Result<(Arc<Application>, Option<String>), Error> {
    if !table.is_populated {
        return Err(Error::NoRoutes);
    }
    if !name.is_empty() && !caller.opens(name) {
        caller.check(name, "")?;
    }
    let known = applications(table, scope, caller);
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
            known: names(table, scope, caller),
        }),
        _ => Err(unknown(table, scope, (name, caller))),
    }
}

/// Why a name is not told of: there is no such model, or the caller's key does not open it, in the words of a request that
/// would draw with it.
pub(super) fn refused(table: &Table, scope: &Scope, (name, caller): (&str, &Caller)) -> Error {
    let found = find(table, scope, (name, caller));
    let opened = found.and_then(|(application, id)| {
        let id = id.unwrap_or_default();
        caller.check(&application.name, &id)
    });
    match opened {
        Ok(()) => unknown(table, scope, (name, caller)),
        Err(error) => error,
    }
}

/// There is no model by this name.
fn unknown(table: &Table, scope: &Scope, (name, caller): (&str, &Caller)) -> Error {
    Error::UnknownModel {
        name: name.chars().take(NAME_SHOWN).collect(),
        known: names(table, scope, caller),
    }
}
