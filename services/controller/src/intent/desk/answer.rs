//! What the desk answers without changing anything.

use mobula_proto::control::v1 as pb;

use super::{Desk, Said};
use crate::{
    Error,
    intent::{backup, plan, words},
    store::{Action, History},
};

/// Revisions that a history has when nothing is said.
const HISTORY: usize = 20;
/// A history's answer stays below what gRPC takes by default, 4 MiB.
const MAX_HISTORY_BYTES: usize = 3 << 20;

impl Desk {
    /// Says of a config what is made of it.
    pub(in crate::intent) fn check(&mut self, request: &pb::CheckRequest) -> pb::CheckResponse {
        let refused = |problems: &[mobula_schema::Problem], mut notes: Vec<pb::Note>| {
            notes.extend(problems.iter().map(words::refusal));
            pb::CheckResponse {
                accepted: false,
                notes,
                changes: Vec::new(),
            }
        };
        let parsed = match mobula_schema::parse(&request.config) {
            Ok(parsed) => parsed,
            Err(problems) => return refused(&problems, Vec::new()),
        };
        let notes: Vec<pb::Note> = parsed.notes.iter().map(words::note).collect();
        let plan = plan::deploy(&self.kept.desired, &parsed);
        match self.settle(plan, Said::new(Action::Deploy, String::new(), true)) {
            Ok(accepted) => pb::CheckResponse {
                accepted: true,
                notes,
                changes: accepted.changes,
            },
            Err(Error::Invalid(problems)) => refused(&problems, notes),
            Err(other) => {
                let problem = mobula_schema::Problem {
                    path: "(document)".into(),
                    line: None,
                    why: other.to_string(),
                };
                refused(&[problem], notes)
            }
        }
    }

    pub(in crate::intent) fn config(
        &self,
        request: &pb::GetConfigRequest,
    ) -> Result<pb::GetConfigResponse, Error> {
        let desired = &self.kept.desired;
        if request.name.is_empty() {
            let mut whole = desired.options.clone();
            let applications = desired.applications.values().map(|entry| entry.document.clone());
            whole.insert("applications".into(), applications.collect());
            return Ok(pb::GetConfigResponse {
                config: serde_json::Value::Object(whole).to_string(),
                resource_version: desired.resource_version,
            });
        }
        let entry = desired.applications.get(&request.name);
        let entry = entry.ok_or_else(|| plan::no_application(&request.name))?;
        Ok(pb::GetConfigResponse {
            config: entry.document.to_string(),
            resource_version: entry.resource_version,
        })
    }

    pub(in crate::intent) fn history(
        &mut self,
        request: &pb::GetHistoryRequest,
    ) -> Result<pb::GetHistoryResponse, Error> {
        let limit = match request.limit {
            0 => HISTORY,
            limit => limit as usize,
        };
        let name = request.name.as_str();
        let (mut revisions, mut bytes) = (Vec::new(), 0);
        self.store.revisions(|found| {
            let touches = name.is_empty() || found.changes.iter().any(|change| change.application == name);
            if touches {
                let revision = words::revision(found, name, revisions.is_empty());
                bytes += prost::Message::encoded_len(&revision);
                if bytes > MAX_HISTORY_BYTES {
                    return false;
                }
                revisions.push(revision);
            }
            revisions.len() < limit
        })?;
        Ok(pb::GetHistoryResponse { revisions })
    }

    /// Decisions of a deployment, newest first; empty names mean all.
    pub(in crate::intent) fn decisions(
        &mut self,
        (application, deployment): (&str, &str),
        limit: usize,
    ) -> Result<Vec<pb::Decision>, Error> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        let fits = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        self.store.decisions(|decision| {
            if fits(application, &decision.application) && fits(deployment, &decision.deployment) {
                found.push(decision.into());
            }
            found.len() < limit
        })?;
        Ok(found)
    }

    pub(in crate::intent) fn backup(&mut self) -> Result<Vec<u8>, Error> {
        let mut history = History::default();
        self.store.revisions(|revision| {
            history.revisions.push(revision);
            true
        })?;
        self.store.decisions(|decision| {
            history.decisions.push(decision);
            true
        })?;
        history.revisions.reverse();
        history.decisions.reverse();
        backup::write(&self.kept, history, (self.clock)())
    }
}
