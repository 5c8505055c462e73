//! Changes and notes, for people and as JSON. Pure: an answer in, text out.

use mobula_proto::control::v1::{self as pb, ChangeEffect, ChangeKind, Verdict};
use serde_json::{Value, json};

use crate::paint::Paint;

/// Characters of a value that are shown.
const SHOWN: usize = 60;

/// What a change came to: its lines, then one that sums up.
pub(super) fn render(accepted: &pb::Accepted, paint: Paint) -> String {
    let mut text = list(&accepted.changes, paint);
    text += &notes(&accepted.notes, paint);
    text += &match (accepted.dry_run, accepted.changes.is_empty()) {
        (_, true) => format!(
            "nothing changes; resource version {}\n",
            accepted.resource_version
        ),
        (true, false) => "nothing was changed: this was a dry run\n".to_owned(),
        (false, false) => format!(
            "{}; resource version {}\n",
            paint.good("accepted"),
            accepted.resource_version
        ),
    };
    text
}

/// Changes, one a line: `~ sd/pipeline num_replicas: 1 -> 3 (replicas are started or stopped)`.
pub(super) fn list(changes: &[pb::Change], paint: Paint) -> String {
    changes.iter().map(|change| line(change, paint)).collect()
}

fn line(change: &pb::Change, paint: Paint) -> String {
    let what = match (change.application.as_str(), change.deployment.as_str()) {
        ("", _) => "(options)".to_owned(),
        (application, "") => application.to_owned(),
        (application, deployment) => format!("{application}/{deployment}"),
    };
    let effect = match change.effect() {
        ChangeEffect::Unspecified | ChangeEffect::None => "",
        ChangeEffect::Light => " (running replicas are told)",
        ChangeEffect::Rollout => " (replicas are replaced, one after another)",
        ChangeEffect::Scale => " (replicas are started or stopped)",
    };
    let field = match change.field.as_str() {
        "" => String::new(),
        field => format!(" {field}"),
    };
    let (before, after) = (short(&change.before), short(&change.after));
    match change.kind() {
        ChangeKind::Added if change.field.is_empty() => format!("{} {what}\n", paint.good("+")),
        ChangeKind::Added => format!("{} {what}{field}: {after}{effect}\n", paint.good("+")),
        ChangeKind::Removed => format!("{} {what}{field}{effect}\n", paint.bad("-")),
        ChangeKind::Changed | ChangeKind::Unspecified => {
            format!("{} {what}{field}: {before} -> {after}{effect}\n", paint.warn("~"))
        }
    }
}

/// Notes, one a line: `line 12  applications[0].runtime_env.pip  ignored: …`.
pub(super) fn notes(notes: &[pb::Note], paint: Paint) -> String {
    notes
        .iter()
        .map(|note| {
            let line = match note.line {
                0 => String::new(),
                line => format!("line {line}: "),
            };
            let verdict = match note.verdict() {
                Verdict::Unspecified | Verdict::Honoured => paint.good("honoured"),
                Verdict::Translated => paint.warn("translated"),
                Verdict::Ignored => paint.dim("ignored"),
                Verdict::Refused => paint.bad("refused"),
            };
            format!("{line}{}: {verdict}: {}\n", note.path, note.why)
        })
        .collect()
}

/// The same as JSON.
pub(super) fn json(accepted: &pb::Accepted) -> Value {
    json!({
        "resource_version": accepted.resource_version,
        "dry_run": accepted.dry_run,
        "changes": accepted.changes.iter().map(change_json).collect::<Vec<_>>(),
        "notes": accepted.notes.iter().map(note_json).collect::<Vec<_>>(),
    })
}

pub(super) fn change_json(change: &pb::Change) -> Value {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
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

pub(super) fn note_json(note: &pb::Note) -> Value {
    json!({
        "path": note.path,
        "line": (note.line > 0).then_some(note.line),
        "verdict": word(note.verdict().as_str_name(), "VERDICT_"),
        "why": note.why,
    })
}

fn word<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn short(value: &str) -> String {
    if value.is_empty() {
        return "(default)".to_owned();
    }
    if value.chars().count() <= SHOWN {
        return value.to_owned();
    }
    value.chars().take(SHOWN).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ChangeKind, field: &str, before: &str, after: &str, effect: ChangeEffect) -> pb::Change {
        pb::Change {
            kind: kind.into(),
            application: "sd".into(),
            deployment: "pipeline".into(),
            field: field.into(),
            before: before.into(),
            after: after.into(),
            effect: effect.into(),
        }
    }

    #[test]
    fn changes_are_told_with_what_they_cost() {
        let accepted = pb::Accepted {
            resource_version: 7,
            changes: vec![
                change(ChangeKind::Changed, "num_replicas", "1", "3", ChangeEffect::Scale),
                change(
                    ChangeKind::Changed,
                    "args.model",
                    "\"a\"",
                    "\"b\"",
                    ChangeEffect::Rollout,
                ),
                change(ChangeKind::Removed, "", "", "", ChangeEffect::None),
            ],
            ..Default::default()
        };
        assert_eq!(
            render(&accepted, Paint::PLAIN),
            "~ sd/pipeline num_replicas: 1 -> 3 (replicas are started or stopped)\n\
             ~ sd/pipeline args.model: \"a\" -> \"b\" (replicas are replaced, one after another)\n\
             - sd/pipeline\n\
             accepted; resource version 7\n"
        );
        assert_eq!(json(&accepted)["changes"][0]["effect"], "SCALE");
    }

    #[test]
    fn a_dry_run_and_an_equal_config_say_so() {
        let dry = pb::Accepted {
            dry_run: true,
            changes: vec![change(ChangeKind::Added, "", "", "", ChangeEffect::Scale)],
            ..Default::default()
        };
        assert_eq!(
            render(&dry, Paint::PLAIN),
            "+ sd/pipeline\nnothing was changed: this was a dry run\n"
        );
        let same = pb::Accepted {
            resource_version: 3,
            ..Default::default()
        };
        assert_eq!(
            render(&same, Paint::PLAIN),
            "nothing changes; resource version 3\n"
        );
    }

    #[test]
    fn notes_have_their_lines() {
        let note = pb::Note {
            path: "applications[0].runtime_env.pip".into(),
            line: 12,
            verdict: Verdict::Ignored.into(),
            why: "graphs are built in".into(),
        };
        assert_eq!(
            notes(&[note], Paint::PLAIN),
            "line 12: applications[0].runtime_env.pip: ignored: graphs are built in\n"
        );
    }
}
