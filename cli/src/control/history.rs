//! `mobula history` and `mobula rollback`: what was accepted, and back to it.

use std::time::{Duration, SystemTime};

use mobula_proto::control::v1::{self as pb, GetHistoryRequest, RollbackRequest};
use serde_json::json;

use super::{Target, changes, print, print_json, timed};
use crate::paint::Paint;
use crate::{Error, human};

const HISTORY: &str = "\
Examples:
  mobula history                 the last 20 changes, newest first
  mobula history sd --limit 5    of one application
  mobula history --json

Exit codes: 0 shown, 1 no controller, 2 wrong usage.";

const ROLLBACK: &str = "\
Examples:
  mobula rollback                back to what was before the last change
  mobula rollback --to 12        back to revision 12 (see `mobula history`)
  mobula rollback sd --to 12     one application alone
  mobula rollback --dry-run

Exit codes: 0 accepted, 1 no such revision, 2 wrong usage.";

/// Flags of `mobula history`.
#[derive(Debug, clap::Args)]
#[command(after_help = HISTORY)]
pub(crate) struct History {
    /// Application; all when left out
    #[arg(default_value = "", hide_default_value = true)]
    application: String,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl History {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (remote, mut client) = self.target.client()?;
        let request = GetHistoryRequest {
            name: self.application,
            limit: self.limit,
        };
        let answer = client.get_history(timed(request)).await;
        let revisions = answer
            .map_err(|status| remote.explain(status))?
            .into_inner()
            .revisions;
        if self.json {
            return print_json(&json!(revisions.iter().map(revision_json).collect::<Vec<_>>()));
        }
        let (paint, now) = (Paint::for_stream(&std::io::stdout()), SystemTime::now());
        print(&render(&revisions, now, paint))
    }
}

fn revision_json(revision: &pb::Revision) -> serde_json::Value {
    json!({
        "resource_version": revision.resource_version,
        "at_unix_ms": revision.at_unix_ms,
        "action": revision.action,
        "reason": revision.reason,
        "current": revision.current,
        "changes": revision.changes.iter().map(changes::change_json).collect::<Vec<_>>(),
    })
}

fn render(revisions: &[pb::Revision], now: SystemTime, paint: Paint) -> String {
    if revisions.is_empty() {
        return "nothing was accepted yet\n".to_owned();
    }
    let mut text = String::new();
    for revision in revisions {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(revision.at_unix_ms);
        let age = now.duration_since(at).unwrap_or_default();
        let current = if revision.current { " (current)" } else { "" };
        let reason = match revision.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        text += &format!(
            "{} {} {} ago{current}{reason}\n",
            paint.heading(revision.resource_version),
            revision.action,
            human::duration(age)
        );
        for line in changes::list(&revision.changes, paint).lines() {
            text += &format!("  {line}\n");
        }
    }
    text
}

/// Flags of `mobula rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = ROLLBACK)]
pub(crate) struct Rollback {
    /// Application; everything when left out
    #[arg(default_value = "", hide_default_value = true)]
    application: String,
    /// Resource version of the revision; by default the newest that is different and no automatic rollback took back
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    to: u64,
    /// Say what would change, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    target: Target,
}

impl Rollback {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (remote, mut client) = self.target.client()?;
        let request = RollbackRequest {
            to: self.to,
            name: self.application,
            resource_version: 0,
            dry_run: self.dry_run,
            reason: self.reason,
        };
        let answer = client.rollback(timed(request)).await;
        let answer = answer.map_err(|status| remote.explain(status))?.into_inner();
        let accepted = answer.accepted.unwrap_or_default();
        print(&changes::render(&accepted, Paint::for_stream(&std::io::stdout())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_told_newest_first_with_their_age() {
        let revision = |version, action: &str, current| pb::Revision {
            resource_version: version,
            at_unix_ms: 1_000,
            action: action.into(),
            reason: if current {
                "more cats".into()
            } else {
                String::new()
            },
            current,
            ..Default::default()
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(61);
        let text = render(
            &[revision(2, "put", true), revision(1, "deploy", false)],
            now,
            Paint::PLAIN,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("2 put ") && lines[0].ends_with("ago (current): more cats"),
            "{text}"
        );
        assert!(lines[1].starts_with("1 deploy "), "{text}");
        assert_eq!(render(&[], now, Paint::PLAIN), "nothing was accepted yet\n");
    }
}
