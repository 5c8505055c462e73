//! What became of a change, and what was accepted before, as JSON.

use mobula_proto::control::v1 as pb;
use serde_json::{Value, json};

use super::details::{seconds, word};

/// A change that was accepted, or would be.
pub(super) fn accepted(accepted: &pb::Accepted) -> Value {
    json!({
        "resource_version": accepted.resource_version,
        "dry_run": accepted.dry_run,
        "changes": accepted.changes.iter().map(change).collect::<Vec<_>>(),
        "notes": accepted.notes.iter().map(note).collect::<Vec<_>>(),
    })
}

/// What is made of a config.
pub(super) fn checked(check: &pb::CheckResponse) -> Value {
    json!({
        "accepted": check.accepted,
        "changes": check.changes.iter().map(change).collect::<Vec<_>>(),
        "notes": check.notes.iter().map(note).collect::<Vec<_>>(),
    })
}

/// What was accepted, newest first.
pub(super) fn history(history: &pb::GetHistoryResponse) -> Value {
    let revision = |revision: &pb::Revision| {
        json!({
            "resource_version": revision.resource_version,
            "timestamp_s": seconds(revision.at_unix_ms),
            "action": revision.action,
            "reason": revision.reason,
            "current": revision.current,
            "changes": revision.changes.iter().map(change).collect::<Vec<_>>(),
        })
    };
    json!({"revisions": history.revisions.iter().map(revision).collect::<Vec<_>>()})
}

/// Why something is as it is.
pub(super) fn explained(explained: &pb::ExplainResponse) -> Value {
    let finding = |finding: &pb::Finding| json!({"topic": finding.topic, "text": finding.text});
    json!({
        "summary": explained.summary,
        "findings": explained.findings.iter().map(finding).collect::<Vec<_>>(),
        "advice": explained.advice,
    })
}

fn change(change: &pb::Change) -> Value {
    json!({
        "kind": word(change.kind().as_str_name(), "CHANGE_KIND_"),
        "application": change.application,
        "deployment": change.deployment,
        "field": change.field,
        "before": value(&change.before),
        "after": value(&change.after),
        "effect": word(change.effect().as_str_name(), "CHANGE_EFFECT_"),
    })
}

fn note(note: &pb::Note) -> Value {
    json!({
        "path": note.path,
        "line": (note.line > 0).then_some(note.line),
        "verdict": word(note.verdict().as_str_name(), "VERDICT_"),
        "why": note.why,
    })
}

/// JSON within the contract's text; empty is null.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
