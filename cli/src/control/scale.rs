//! `mobula scale`: another number of replicas.

use mobula_proto::control::v1::ScaleRequest;

use super::{Target, changes, print, timed};
use crate::Error;
use crate::paint::Paint;

const EXAMPLES: &str = "\
Examples:
  mobula scale sd/pipeline 3
  mobula scale sd/pipeline 0      nothing runs; requests wait until it is scaled up; with external_scaler_enabled: true

A deployment that scales by itself is refused: change its autoscaling_config.

Exit codes: 0 accepted, 1 refused, 2 wrong usage.";

/// Flags of `mobula scale`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Scale {
    /// Application and deployment
    #[arg(value_name = "APPLICATION/DEPLOYMENT", value_parser = pair)]
    deployment: (String, String),
    /// Replicas
    replicas: u32,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    target: Target,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('/') {
        Some((application, deployment)) if !application.is_empty() && !deployment.is_empty() => {
            Ok((application.to_owned(), deployment.to_owned()))
        }
        Some(_) | None => Err("must be APPLICATION/DEPLOYMENT, such as default/pipeline".to_owned()),
    }
}

impl Scale {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (remote, mut client) = self.target.client()?;
        let (application, deployment) = self.deployment;
        let request = ScaleRequest {
            application,
            deployment,
            replicas: self.replicas,
            reason: self.reason,
            ..Default::default()
        };
        let answer = client.scale(timed(request)).await;
        let answer = answer.map_err(|status| remote.explain(status))?.into_inner();
        let accepted = answer.accepted.unwrap_or_default();
        print(&changes::render(&accepted, Paint::for_stream(&std::io::stdout())))
    }
}
