//! `mobula deploy`: a whole config, or one application, becomes what shall run.

use std::path::PathBuf;
use std::time::Duration;

use mobula_proto::control::v1::{DeployRequest, PutApplicationRequest};

use super::{Target, changes, print, print_json, read, timed, wait};
use crate::Error;
use crate::human::tell;
use crate::paint::Paint;

/// What is accepted does not run yet, and proxies hear of it a moment later.
const AFTERWARDS: &str = "it is brought about from now on: `mobula status` says how far it is; with --wait, deploy waits until it runs";

const EXAMPLES: &str = "\
Examples:
  mobula deploy serve.yaml                 as `serve deploy`: applications that are not in the file are deleted
  mobula deploy serve.yaml --dry-run       say what would change
  mobula deploy app.yaml --application     put one application, leave the others
  mobula deploy serve.yaml --wait 120      come back when everything runs, or say why not
  kubectl get rayservice sd -o yaml | mobula deploy -

Exit codes: 0 accepted (and running, with --wait), 1 refused, 2 wrong usage.";

/// Flags of `mobula deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Deploy {
    /// Config: Ray Serve's YAML or JSON, or a RayService manifest; - is standard input
    file: PathBuf,
    /// The file is one application; the others stay
    #[arg(long)]
    application: bool,
    /// Say what would change, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse unless this is the current resource version
    #[arg(long, value_name = "VERSION", default_value_t = 0, hide_default_value = true)]
    resource_version: u64,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Wait so many seconds for everything to run
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300", conflicts_with = "dry_run")]
    wait: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Deploy {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let config = read(&self.file)?;
        let (remote, mut client) = self.target.client()?;
        let accepted = if self.application {
            let request = PutApplicationRequest {
                config,
                dry_run: self.dry_run,
                resource_version: self.resource_version,
                reason: self.reason,
            };
            let answer = client.put_application(timed(request)).await;
            answer
                .map_err(|status| remote.explain(status))?
                .into_inner()
                .accepted
        } else {
            let request = DeployRequest {
                config,
                dry_run: self.dry_run,
                resource_version: self.resource_version,
                reason: self.reason,
            };
            let answer = client.deploy(timed(request)).await;
            answer
                .map_err(|status| remote.explain(status))?
                .into_inner()
                .accepted
        };
        let accepted = accepted.unwrap_or_default();
        if self.json {
            print_json(&changes::json(&accepted))?;
        } else {
            print(&changes::render(&accepted, Paint::for_stream(&std::io::stdout())))?;
        }
        match self.wait {
            Some(seconds) => wait::until_running(&remote, &mut client, Duration::from_secs(seconds)).await,
            None => {
                if !self.json && !accepted.dry_run && !accepted.changes.is_empty() {
                    tell(AFTERWARDS);
                }
                Ok(())
            }
        }
    }
}
