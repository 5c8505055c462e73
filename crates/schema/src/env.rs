//! `runtime_env`: of a Python environment only the variables that name a model mean something here.
//!
//! Refuses local paths where Ray wants an URI, as Ray does.

use crate::reader::Node;

/// Protocols of packages that Ray can fetch, and of folders that are there already.
const PROTOCOLS: [&str; 12] = [
    "gcs", "conda", "pip", "uv", "http", "https", "s3", "gs", "azure", "abfss", "file", "local",
];

/// The variables that name a model, the one that goes before the others first.
const OF_MODEL: [&str; 3] = ["MOBULA_MODEL", "MODEL_PATH", "MODEL_ID"];

/// A model that a variable names.
#[derive(Clone, Debug)]
pub(crate) struct Named<'a> {
    node: Node<'a>,
    name: &'static str,
    value: String,
}

/// Reads a `runtime_env` and gives back the model that its variables name.
pub(crate) fn read<'a>(node: &Node<'a>) -> Option<Named<'a>> {
    let mut found: Option<Named<'a>> = None;
    for (key, node) in node.entries()? {
        match key {
            "env_vars" => found = variables(&node),
            "working_dir" => {
                if !node.tree.is_null() {
                    uri(&node);
                    node.ignored("the graph is built in; there is no code to fetch");
                }
            }
            "py_modules" => {
                if !node.tree.is_null() {
                    node.list().iter().flatten().for_each(uri);
                    node.ignored("the graph is built in; there is no code to fetch");
                }
            }
            "pip" | "conda" | "uv" => node.ignored("the graph is built in and needs no Python packages"),
            "container" | "image_uri" => node.ignored("a worker runs in the image that its provider starts"),
            _ => node.ignored("the graph is built in and needs no Python environment"),
        }
    }
    found
}

fn variables<'a>(node: &Node<'a>) -> Option<Named<'a>> {
    if node.tree.is_null() {
        return None;
    }
    let mut named = Vec::new();
    for (key, node) in node.entries()? {
        let Some(value) = node.scalar() else { continue };
        match OF_MODEL.iter().find(|name| **name == key) {
            Some(name) if !value.is_empty() => named.push(Named { node, name, value }),
            Some(_) | None => {
                node.ignored("the built-in graphs read MOBULA_MODEL, MODEL_PATH and MODEL_ID alone")
            }
        }
    }
    named.sort_by_key(|n| OF_MODEL.iter().position(|name| *name == n.name));
    let mut named = named.into_iter();
    let first = named.next();
    for other in named {
        other.unused(first.as_ref().map_or("", |first| first.name));
    }
    first
}

impl Named<'_> {
    /// The model folder; empty for the worker's own.
    pub(crate) fn folder(&self) -> String {
        if self.name == "MODEL_ID" && is_hub_id(&self.value) {
            self.node.translated(format!(
                "{:?} is a model of a hub and no folder: each worker serves its own model folder; name one by \
                 args.model or MOBULA_MODEL",
                self.value
            ));
            return String::new();
        }
        self.node.honoured();
        self.value.clone()
    }

    /// Says that something else names the model.
    pub(crate) fn unused(&self, by: &str) {
        self.node
            .ignored(format!("the model is named by {by}, which goes before it"));
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// `organisation/model`, as hubs call them; a folder that looks like it can be written `./organisation/model`.
fn is_hub_id(value: &str) -> bool {
    let part = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    value
        .split_once('/')
        .is_some_and(|(organisation, model)| part(organisation) && part(model))
}

fn uri(node: &Node<'_>) {
    let Some(text) = node.text() else { return };
    let scheme = text
        .split_once(':')
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    let known = scheme
        .as_deref()
        .is_some_and(|scheme| PROTOCOLS.contains(&scheme));
    let absent = scheme.as_deref() == Some("local") && !text[6..].starts_with("///");
    if !known || absent {
        node.refuse(format!(
            "must be an URI such as https://host/package.zip, or local:///folder, as in Ray, not {text:?}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_hub_is_told_from_a_folder() {
        for (value, is) in [
            ("stabilityai/stable-diffusion-2-1", true),
            ("CompVis/stable-diffusion-v1-4", true),
            ("./models/demo", false),
            ("../models/demo", false),
            ("/models/demo", false),
            ("demo", false),
            ("a/b/c", false),
            ("a/", false),
            ("/a", false),
            ("a b/c", false),
            ("", false),
        ] {
            assert_eq!(is_hub_id(value), is, "{value}");
        }
    }
}
