//! Old names and formats of Ray Serve, rewritten into the current ones before anything is read.
//!
//! Refuses an old name beside its current one. Invariant: what is moved keeps the path and line at which it was written.

use crate::{
    note::{Sink, Verdict},
    reader::join,
    tree::{Entries, Tree, Value, take},
};

/// Fields of an application that stood at the top while Ray Serve had one application alone.
const OF_THE_ONE: [&str; 9] = [
    "name",
    "route_prefix",
    "import_path",
    "runtime_env",
    "args",
    "deployments",
    "autoscaling_policy",
    "external_scaler_enabled",
    "docs_path",
];

/// Rewrites a whole document.
pub(crate) fn document(tree: &mut Tree, sink: &Sink) {
    let root = tree.origin.as_deref().unwrap_or_default().to_owned();
    let single = tree.get("import_path").is_some() && tree.get("applications").is_none();
    let Some(entries) = tree.as_map_mut() else { return };
    if single {
        one(entries, &root, sink);
    }
    let list = entries.iter_mut().find(|(key, _)| key == "applications");
    let path = join(&root, "applications");
    for (i, application) in list
        .and_then(|(_, tree)| tree.as_list_mut())
        .into_iter()
        .flatten()
        .enumerate()
    {
        let path = application
            .origin
            .as_deref()
            .map_or_else(|| format!("{path}[{i}]"), str::to_owned);
        self::application(application, &path, sink);
    }
}

/// The format of one application becomes a list of one.
fn one(entries: &mut Entries, root: &str, sink: &Sink) {
    let mut fields = Entries::new();
    for key in OF_THE_ONE {
        if let Some(tree) = take(entries, key) {
            fields.push((key.to_owned(), tree));
        }
    }
    let line = fields
        .iter()
        .find(|(key, _)| key == "import_path")
        .and_then(|(_, tree)| tree.line);
    sink.note(
        &join(root, "import_path"),
        line,
        Verdict::Translated,
        "the format of one application, of older Ray Serve: it becomes the only one of applications",
    );
    for key in ["host", "port"] {
        let Some(tree) = take(entries, key) else { continue };
        let path = join(root, key);
        sink.note(
            &path,
            tree.line,
            Verdict::Translated,
            format!("is http_options.{key} now"),
        );
        let http = entry(entries, "http_options");
        if http.get(key).is_some() {
            sink.refuse(
                &path,
                tree.line,
                format!("is given as http_options.{key} as well; leave one out"),
            );
        } else if let Some(http) = http.as_map_mut() {
            http.push((key.to_owned(), tree.written_at(path)));
        }
    }
    let application = Tree {
        line,
        ..Tree::new(Value::Map(fields))
    };
    let list = Tree {
        line,
        ..Tree::new(Value::List(vec![application.written_at(root.to_owned())]))
    };
    entries.push(("applications".into(), list));
}

/// Rewrites one application.
pub(crate) fn application(tree: &mut Tree, path: &str, sink: &Sink) {
    let Some(entries) = tree.as_map_mut() else { return };
    let mut prefixes = Vec::new();
    let list = entries.iter_mut().find(|(key, _)| key == "deployments");
    let deployments = list
        .and_then(|(_, tree)| tree.as_list_mut())
        .into_iter()
        .flatten();
    for (i, deployment) in deployments.enumerate() {
        let path = format!("{path}.deployments[{i}]");
        let path = path.trim_start_matches('.');
        let Some(fields) = deployment.as_map_mut() else {
            continue;
        };
        rename(
            fields,
            path,
            ("max_concurrent_queries", "max_ongoing_requests"),
            sink,
        );
        if let Some(prefix) = take(fields, "route_prefix") {
            prefixes.push(prefix.written_at(join(path, "route_prefix")));
        }
        let scaling = fields.iter_mut().find(|(key, _)| key == "autoscaling_config");
        if let Some(scaling) = scaling.and_then(|(_, tree)| tree.as_map_mut()) {
            self::scaling(scaling, &join(path, "autoscaling_config"), sink);
        }
    }
    for prefix in prefixes {
        route(entries, prefix, sink);
    }
}

/// A deployment's route is its application's.
fn route(application: &mut Entries, prefix: Tree, sink: &Sink) {
    let path = prefix.origin.as_deref().unwrap_or_default().to_owned();
    match application.iter().find(|(key, _)| key == "route_prefix") {
        None => {
            let why = "is the application's route_prefix now";
            sink.note(&path, prefix.line, Verdict::Translated, why);
            application.push(("route_prefix".into(), prefix));
        }
        Some((_, given)) if given.value == prefix.value => {
            let why = "is the application's route_prefix now, which says the same";
            sink.note(&path, prefix.line, Verdict::Translated, why);
        }
        Some(_) => {
            let why = "is the application's route_prefix now, which says something else; leave it out here";
            sink.refuse(&path, prefix.line, why);
        }
    }
}

fn scaling(fields: &mut Entries, path: &str, sink: &Sink) {
    let old = (
        "target_num_ongoing_requests_per_replica",
        "target_ongoing_requests",
    );
    rename(fields, path, old, sink);
    // Ray's order: the current name, the old one for this direction, the old one for both.
    let both = take(fields, "smoothing_factor").filter(|tree| !tree.is_null());
    let mut served = Vec::new();
    for (old, new) in [
        ("upscale_smoothing_factor", "upscaling_factor"),
        ("downscale_smoothing_factor", "downscaling_factor"),
    ] {
        let one = take(fields, old).filter(|tree| !tree.is_null());
        let given = fields.iter().any(|(key, tree)| key == new && !tree.is_null());
        if let Some(tree) = one {
            let at = join(path, old);
            if given {
                sink.note(
                    &at,
                    tree.line,
                    Verdict::Ignored,
                    format!("{new} is given, and goes before it"),
                );
            } else {
                sink.note(
                    &at,
                    tree.line,
                    Verdict::Translated,
                    format!("its name is {new} now"),
                );
                put(fields, new, tree.written_at(at));
            }
        } else if let Some(tree) = both.clone().filter(|_| !given) {
            put(fields, new, tree.written_at(join(path, "smoothing_factor")));
            served.push(new);
        }
    }
    if let Some(both) = both {
        let (verdict, why) = if served.is_empty() {
            let why = "the factors of both directions are given, and go before it".to_owned();
            (Verdict::Ignored, why)
        } else {
            (
                Verdict::Translated,
                format!("its name is {} now", served.join(" and ")),
            )
        };
        sink.note(&join(path, "smoothing_factor"), both.line, verdict, why);
    }
}

/// Gives a field its current name.
fn rename(fields: &mut Entries, path: &str, (old, new): (&str, &str), sink: &Sink) {
    let Some(tree) = take(fields, old) else { return };
    let at = join(path, old);
    if fields.iter().any(|(key, tree)| key == new && !tree.is_null()) {
        sink.refuse(
            &at,
            tree.line,
            format!("is the old name of {new}, which is given as well; leave one out"),
        );
        return;
    }
    sink.note(
        &at,
        tree.line,
        Verdict::Translated,
        format!("its name is {new} now"),
    );
    put(fields, new, tree.written_at(at));
}

/// Sets a field, in place of one with nothing in it.
fn put(fields: &mut Entries, key: &str, tree: Tree) {
    take(fields, key);
    fields.push((key.to_owned(), tree));
}

/// The mapping behind a key, made if it is not there.
fn entry<'a>(entries: &'a mut Entries, key: &str) -> &'a mut Tree {
    let at = entries
        .iter()
        .position(|(name, tree)| name == key && !tree.is_null());
    let at = at.unwrap_or_else(|| {
        put(entries, key, Tree::new(Value::Map(Entries::new())));
        entries.len() - 1
    });
    &mut entries[at].1
}
