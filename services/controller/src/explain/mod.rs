//! Why something is pending, does not scale, is unhealthy or was slow: evidence with figures, and what to do.
//!
//! Pure: it reads what the state says of itself ([`pb::GetStatusResponse`]) and what the proxies told of ended requests
//! ([`Records`]); it asks nobody and changes nothing. It guesses nothing either: a finding is something that was seen.

mod records;
mod request;
mod routing;
mod service;
#[cfg(test)]
mod tests;
mod worker;

use mobula_proto::control::v1::{self as pb, explain_request::Subject};

pub(crate) use self::records::Records;
use crate::Error;

/// Names that an error lists.
const NAMES_SHOWN: usize = 20;
/// Characters of a name that an error gives back.
const NAME_SHOWN: usize = 128;

/// Explains one subject.
///
/// # Errors
///
/// [`Error::Field`] without a subject, [`Error::Unknown`] for one that is not known.
pub(crate) fn explain(
    request: &pb::ExplainRequest,
    status: &pb::GetStatusResponse,
    records: &Records,
) -> Result<pb::ExplainResponse, Error> {
    match &request.subject {
        Some(Subject::RequestId(id)) => request::explain(id, status, records),
        Some(Subject::ReplicaId(id)) => service::replica(id, status),
        Some(Subject::Application(name)) => service::application(name, status),
        Some(Subject::Deployment(name)) => service::deployment(name, status),
        Some(Subject::Worker(name)) => worker::explain(name, status),
        None => Err(Error::Field {
            field: "subject",
            why: "is missing: give a request, replica, application, deployment or worker".into(),
        }),
    }
}

/// An explanation as it grows.
#[derive(Debug, Default)]
struct Sheet {
    summary: String,
    findings: Vec<pb::Finding>,
    advice: Vec<String>,
}

impl Sheet {
    fn new(summary: impl Into<String>) -> Self {
        Self {
            summary: summary.into(),
            ..Self::default()
        }
    }

    /// Adds a finding; an empty text is none.
    fn find(&mut self, topic: &str, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.findings.push(pb::Finding {
                topic: topic.to_owned(),
                text,
            });
        }
    }

    /// Adds advice that is not there yet.
    fn advise(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.advice.contains(&text) {
            self.advice.push(text);
        }
    }

    fn done(self) -> pb::ExplainResponse {
        pb::ExplainResponse {
            summary: self.summary,
            findings: self.findings,
            advice: self.advice,
        }
    }
}

/// The error for a name that nothing has.
fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let name: String = name.chars().take(NAME_SHOWN).collect();
    let mut names: Vec<&str> = known.take(NAMES_SHOWN + 1).collect();
    let more = names.len() > NAMES_SHOWN;
    names.truncate(NAMES_SHOWN);
    let list = match (names.is_empty(), more) {
        (true, _) => "there is none".to_owned(),
        (false, false) => format!("there are: {}", names.join(", ")),
        (false, true) => format!("there are: {} and more", names.join(", ")),
    };
    Error::Unknown(format!("no {what} {name:?} is known; {list}"))
}

/// A contract's enum value as a word: `APPLICATION_STATE_RUNNING` is `RUNNING`.
fn word<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}
