//! Logging and tracing as Ray writes them: checked, and without effect here, where each binary has flags for them.

use crate::reader::{Bounds, Fields, Node};

/// Levels of Python's logging, by name and number.
const LEVELS: [(&str, i64); 8] = [
    ("CRITICAL", 50),
    ("FATAL", 50),
    ("ERROR", 40),
    ("WARN", 30),
    ("WARNING", 30),
    ("INFO", 20),
    ("DEBUG", 10),
    ("NOTSET", 0),
];

const BY_FLAGS: &str = "the log is set by --log and --log-format of each binary";

/// Reads a `LoggingConfig`, of which Ray refuses fields that it does not know.
pub(crate) fn logging(node: &Node<'_>) {
    let Some(mut fields) = node.fields() else { return };
    let encodings = [("TEXT", 0), ("JSON", 1)];
    let _ = fields
        .read("encoding", 0, |n| n.choice(&encodings))
        .ignored(BY_FLAGS);
    let _ = fields.read("log_level", 20, level).ignored(BY_FLAGS);
    let _ = fields
        .read("logs_dir", String::new(), Node::any_text)
        .ignored(BY_FLAGS);
    let why = "mobula-proxy logs a line for every request; --log of mobula-proxy sets what is logged";
    let _ = fields.read("enable_access_log", true, Node::flag).ignored(why);
    if let Some(attributes) = fields.get("additional_log_standard_attrs") {
        for attribute in attributes.list().unwrap_or_default() {
            attribute.text();
        }
        attributes.ignored("they are attributes of Python's log records");
    }
    fields.finish(&[]);
}

fn level(node: &Node<'_>) -> Option<i64> {
    if node.tree.as_text().is_some() {
        return node.choice(&LEVELS);
    }
    let number = node.whole(0..=50)?;
    if LEVELS.iter().any(|(_, level)| *level == number) {
        Some(number)
    } else {
        node.refuse(format!("must be one of 0, 10, 20, 30, 40 and 50, not {number}"));
        None
    }
}

/// Reads a `TracingConfig`.
pub(crate) fn tracing(top: &mut Fields<'_>) {
    let Some(mut fields) = top.get("tracing_config").and_then(|node| node.fields()) else {
        return;
    };
    let why = "traces are set by --otlp-endpoint and --trace-ratio of each binary";
    let _ = fields.read("enabled", false, Node::flag).ignored(why);
    let _ = fields
        .read("exporter_import_path", String::new(), Node::any_text)
        .ignored(why);
    let _ = fields
        .read("sampling_ratio", 0.01, |n| n.number(Bounds::from_zero(1.0)))
        .ignored(why);
    fields.finish(&[]);
}
