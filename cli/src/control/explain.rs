//! `mobula explain`: why something is pending, not scaling, unhealthy or slow.

use mobula_proto::control::v1::explain_request::Subject;
use mobula_proto::control::v1::{self as pb, ExplainRequest};
use serde_json::json;

use super::{Target, print, print_json, timed};
use crate::Error;
use crate::paint::Paint;

const EXAMPLES: &str = "\
Examples:
  mobula explain application default
  mobula explain deployment default/pipeline     why it does not scale
  mobula explain replica h3k29dka                why it is pending; the last part of its id is enough
  mobula explain request 0f8c…                   why it was slow, or failed
  mobula explain worker gpu                      a worker, or a worker group

Exit codes: 0 explained, 1 nothing of that name is known, 2 wrong usage.";

/// Flags of `mobula explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// Its name or id
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Kind {
    Application,
    Deployment,
    Replica,
    Request,
    Worker,
}

impl Explain {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (remote, mut client) = self.target.client()?;
        let subject = match self.kind {
            Kind::Application => Subject::Application(self.name),
            Kind::Deployment => Subject::Deployment(self.name),
            Kind::Replica => Subject::ReplicaId(self.name),
            Kind::Request => Subject::RequestId(self.name),
            Kind::Worker => Subject::Worker(self.name),
        };
        let request = ExplainRequest {
            subject: Some(subject),
        };
        let answer = client.explain(timed(request)).await;
        let explained = answer.map_err(|status| remote.explain(status))?.into_inner();
        if self.json {
            return print_json(&json!({
                "summary": explained.summary,
                "findings": explained.findings.iter()
                    .map(|f| json!({"topic": f.topic, "text": f.text}))
                    .collect::<Vec<_>>(),
                "advice": explained.advice,
            }));
        }
        print(&render(&explained, Paint::for_stream(&std::io::stdout())))
    }
}

fn render(explained: &pb::ExplainResponse, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.heading(&explained.summary));
    for finding in &explained.findings {
        text += &format!("  {}: {}\n", paint.dim(&finding.topic), finding.text);
    }
    for advice in &explained.advice {
        text += &format!("{} {advice}\n", paint.good("what to do:"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_has_its_evidence_and_what_to_do() {
        let explained = pb::ExplainResponse {
            summary: "it is PENDING".into(),
            findings: vec![pb::Finding {
                topic: "placement".into(),
                text: "no worker".into(),
            }],
            advice: vec!["start one".into()],
        };
        assert_eq!(
            render(&explained, Paint::PLAIN),
            "it is PENDING\n  placement: no worker\nwhat to do: start one\n"
        );
    }
}
