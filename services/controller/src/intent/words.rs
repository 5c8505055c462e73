//! From the ledger's own words to the contract's.

use mobula_proto::control::v1 as pb;
use mobula_schema::{Note, Problem, Verdict};

use crate::store::{Decision, Revision, Source};

pub(super) fn note(note: &Note) -> pb::Note {
    let verdict = match note.verdict {
        Verdict::Honoured => pb::Verdict::Honoured,
        Verdict::Translated => pb::Verdict::Translated,
        Verdict::Ignored => pb::Verdict::Ignored,
    };
    pb::Note {
        path: note.path.clone(),
        line: line(note.line),
        verdict: verdict.into(),
        why: note.why.clone(),
    }
}

/// What was not taken as it was written.
pub(super) fn remarks(notes: &[Note]) -> Vec<pb::Note> {
    let remarks = notes.iter().filter(|note| note.verdict != Verdict::Honoured);
    remarks.map(note).collect()
}

pub(super) fn refusal(problem: &Problem) -> pb::Note {
    pb::Note {
        path: problem.path.clone(),
        line: line(problem.line),
        verdict: pb::Verdict::Refused.into(),
        why: problem.why.clone(),
    }
}

fn line(line: Option<u64>) -> u32 {
    line.and_then(|line| line.try_into().ok()).unwrap_or_default()
}

/// A revision; with a name, only what it changed of that application.
pub(super) fn revision(revision: Revision, name: &str, current: bool) -> pb::Revision {
    let changes = revision.changes.into_iter();
    let changes = changes.filter(|change| name.is_empty() || change.application == name);
    pb::Revision {
        resource_version: revision.desired.resource_version,
        at_unix_ms: revision.at_unix_ms,
        action: revision.action.name().to_owned(),
        reason: revision.reason,
        changes: changes.map(Into::into).collect(),
        current,
    }
}

impl From<Source> for pb::ApplicationSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Declarative => Self::Declarative,
            Source::Imperative => Self::Imperative,
        }
    }
}

impl From<pb::Decision> for Decision {
    fn from(decision: pb::Decision) -> Self {
        Self {
            at_unix_ms: decision.at_unix_ms,
            application: decision.application,
            deployment: decision.deployment,
            from: decision.from,
            to: decision.to,
            reason: decision.reason,
            policy: decision.policy,
            // JSON has no infinity; such an input says nothing either.
            inputs: decision
                .inputs
                .into_iter()
                .filter(|(_, value)| value.is_finite())
                .collect(),
        }
    }
}

impl From<Decision> for pb::Decision {
    fn from(decision: Decision) -> Self {
        Self {
            at_unix_ms: decision.at_unix_ms,
            application: decision.application,
            deployment: decision.deployment,
            from: decision.from,
            to: decision.to,
            reason: decision.reason,
            policy: decision.policy,
            inputs: decision.inputs.into_iter().collect(),
        }
    }
}
