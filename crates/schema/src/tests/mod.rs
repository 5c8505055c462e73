mod digest;
mod fields;
mod graphs;
mod groups;
mod legacy;
mod limits;
mod placing;
mod problems;
mod property;
mod ray;
mod samples;
mod scaling;
mod service;
mod top;

use serde_json::{Value, json};

use crate::{Application, Deployment, Note, Parsed, Verdict, graph::TEXT_TO_IMAGE};

/// Reads a document that is meant to be accepted, and again what it gives back.
fn parsed(text: &str) -> Parsed {
    let parsed = crate::parse(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let again = crate::parse(&parsed.document.to_string()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(again.config, parsed.config, "{}", parsed.document);
    assert_eq!(again.document, parsed.document);
    parsed
}

/// What is wrong with a document, each problem as text.
fn problems(text: &str) -> Vec<String> {
    crate::parse(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A config of one application with these fields.
fn app(fields: Value) -> Value {
    let mut app = json!({ "import_path": TEXT_TO_IMAGE });
    app.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    json!({ "applications": [app] })
}

/// A config whose pipeline has these fields.
fn pipeline(fields: Value) -> Value {
    let mut deployment = json!({ "name": "pipeline" });
    deployment
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    app(json!({ "deployments": [deployment] }))
}

/// The application that these fields make.
fn application(fields: Value) -> Application {
    parsed(&app(fields).to_string()).config.applications.remove(0)
}

/// The pipeline that these fields make.
fn deployment(fields: Value) -> Deployment {
    parsed(&pipeline(fields).to_string())
        .config
        .applications
        .remove(0)
        .deployments
        .remove(1)
}

/// What is wrong with a pipeline of these fields: path in the deployment and reason.
fn wrong(fields: Value) -> Vec<String> {
    let found = crate::parse(&pipeline(fields).to_string()).unwrap_err();
    let short = |path: &str| {
        path.trim_start_matches("applications[0].deployments[0].")
            .to_owned()
    };
    found
        .iter()
        .map(|p| format!("{}: {}", short(&p.path), p.why))
        .collect()
}

/// The one thing that is wrong with a pipeline of these fields.
fn wrong_one(fields: Value) -> String {
    let found = wrong(fields);
    let [one] = found.as_slice() else {
        panic!("{found:#?}")
    };
    one.clone()
}

/// What is said of the field at a path that ends so.
fn said<'a>(notes: &'a [Note], path: &str) -> (Verdict, &'a str) {
    let found: Vec<&Note> = notes.iter().filter(|note| note.path.ends_with(path)).collect();
    let [note] = found.as_slice() else {
        panic!("{path}: {notes:#?}")
    };
    (note.verdict, &note.why)
}
