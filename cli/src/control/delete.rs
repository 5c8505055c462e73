//! `mobula delete`: an application, or everything, goes away.

use mobula_proto::control::v1::DeleteApplicationRequest;

use super::{Target, changes, print, timed};
use crate::Error;
use crate::paint::Paint;

const EXAMPLES: &str = "\
Examples:
  mobula delete sd
  mobula delete sd --dry-run
  mobula delete --all          as `serve shutdown`

What runs is finished; `mobula rollback` brings it back.

Exit codes: 0 accepted, 1 no such application, 2 wrong usage.";

/// Flags of `mobula delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Delete {
    /// Application
    #[arg(required_unless_present = "all", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    application: Option<String>,
    /// Every application
    #[arg(long, conflicts_with = "application")]
    all: bool,
    /// Say what would change, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse unless this is the application's current resource version
    #[arg(long, value_name = "VERSION", default_value_t = 0, hide_default_value = true)]
    resource_version: u64,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    target: Target,
}

impl Delete {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (remote, mut client) = self.target.client()?;
        let request = DeleteApplicationRequest {
            name: self.application.unwrap_or_default(),
            resource_version: self.resource_version,
            dry_run: self.dry_run,
            reason: self.reason,
        };
        let answer = client.delete_application(timed(request)).await;
        let answer = answer.map_err(|status| remote.explain(status))?.into_inner();
        let accepted = answer.accepted.unwrap_or_default();
        print(&changes::render(&accepted, Paint::for_stream(&std::io::stdout())))
    }
}
