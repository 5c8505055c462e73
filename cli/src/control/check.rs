//! `mobula check`: what is made of a config, without a mesh, or against one.

use std::path::PathBuf;

use mobula_proto::control::v1::{self as pb, CheckRequest, Verdict};
use serde_json::json;

use super::{Target, changes, print, print_json, read, timed};
use crate::Error;
use crate::paint::Paint;

const EXAMPLES: &str = "\
Examples:
  mobula check serve.yaml                  what is honoured, translated, ignored or refused; needs no mesh
  mobula check rayservice.yaml --json
  mobula check serve.yaml --against        and what deploying it would change in the mesh that runs

Exit codes: 0 it would be accepted, 1 it would be refused, 2 wrong usage.";

/// Flags of `mobula check`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    /// Config: Ray Serve's YAML or JSON, or a RayService manifest; - is standard input
    file: PathBuf,
    /// Ask the controller as well what it would change
    #[arg(long)]
    against: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Check {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let config = read(&self.file)?;
        let answer = if self.against {
            let (remote, mut client) = self.target.client()?;
            let answer = client.check(timed(CheckRequest { config })).await;
            answer.map_err(|status| remote.explain(status))?.into_inner()
        } else {
            of(&config)
        };
        if self.json {
            print_json(&json!({
                "accepted": answer.accepted,
                "notes": answer.notes.iter().map(changes::note_json).collect::<Vec<_>>(),
                "changes": answer.changes.iter().map(changes::change_json).collect::<Vec<_>>(),
            }))?;
        } else {
            let paint = Paint::for_stream(&std::io::stdout());
            print(&changes::notes(&answer.notes, paint))?;
            print(&changes::list(&answer.changes, paint))?;
        }
        if answer.accepted {
            if !self.json {
                print("it is accepted\n")?;
            }
            return Ok(());
        }
        let problems = answer
            .notes
            .iter()
            .filter(|n| n.verdict() == Verdict::Refused)
            .count();
        Err(Error::Refused(match problems {
            1 => "one problem: the config would be refused".to_owned(),
            n => format!("{n} problems: the config would be refused"),
        }))
    }
}

/// What the controller would say, said here.
fn of(config: &str) -> pb::CheckResponse {
    let note = |path: String, line: Option<u64>, verdict: Verdict, why: String| pb::Note {
        path,
        line: line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0),
        verdict: verdict.into(),
        why,
    };
    match mobula_schema::parse(config) {
        Ok(parsed) => pb::CheckResponse {
            accepted: true,
            notes: parsed
                .notes
                .into_iter()
                .map(|n| {
                    let verdict = match n.verdict {
                        mobula_schema::Verdict::Honoured => Verdict::Honoured,
                        mobula_schema::Verdict::Translated => Verdict::Translated,
                        mobula_schema::Verdict::Ignored => Verdict::Ignored,
                    };
                    note(n.path, n.line, verdict, n.why)
                })
                .collect(),
            changes: Vec::new(),
        },
        Err(problems) => pb::CheckResponse {
            accepted: false,
            notes: problems
                .into_iter()
                .map(|p| note(p.path, p.line, Verdict::Refused, p.why))
                .collect(),
            changes: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_checked_without_a_mesh() {
        let good =
            "applications: [{name: a, import_path: 'mobula.image:text_to_image', args: {model: fake}}]";
        assert!(of(good).accepted);
        let bad = of(
            "applications: [{name: a, import_path: 'mobula.image:text_to_image', args: {model: fake}, deployments: [{name: pipeline, num_replicas: -1}]}]",
        );
        assert!(!bad.accepted);
        assert_eq!(bad.notes[0].verdict(), Verdict::Refused);
        assert!(bad.notes[0].path.contains("num_replicas"), "{bad:?}");
    }
}
