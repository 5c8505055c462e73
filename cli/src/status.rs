//! `mobula status`: what runs, what does not, and why, as a table or as JSON.
//!
//! Shows what the controller knows and nothing else; a mesh whose controller is away still draws, and this says so.

mod table;
mod view;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use mobula_kit::channel::Link;
use mobula_proto::control::v1::GetStatusRequest;
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;

use self::view::View;
use crate::Error;
use crate::control::Target;
use crate::human::tell;
use crate::interrupt::Interrupts;
use crate::paint::Paint;
use crate::remote::Remote;

/// How long the controller may take to answer; it answers from memory.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Moves the cursor to the top left and clears the screen below it.
const CLEAR: &str = "\x1b[H\x1b[2J";

const EXAMPLES: &str = "\
Examples:
  mobula status
  mobula status --watch                    again every second, until Ctrl-C
  mobula status --json | jq '.applications[].state'

Exit codes: 0 shown, 1 the controller cannot be reached, 2 wrong usage, 130 interrupted.";

/// Flags of `mobula status`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
    /// Show it again and again, every so many seconds
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
}

/// Shows the state once, or until interrupted.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut interrupts = Interrupts::listen()?;
    let (remote, mut client) = args.target.client()?;
    loop {
        let outcome = tokio::select! {
            biased;
            () = interrupts.next() => return Err(Error::Interrupted),
            outcome = fetch(&mut client, &remote) => outcome,
        };
        let Some(seconds) = args.watch else {
            return show(&outcome?, &args);
        };
        match &outcome {
            Ok(view) => show(view, &args)?,
            // A controller that restarts is what somebody watches for.
            Err(error) => tell(error),
        }
        tokio::select! {
            biased;
            () = interrupts.next() => return Err(Error::Interrupted),
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        }
    }
}

async fn fetch(client: &mut ServeServiceClient<Link>, remote: &Remote) -> Result<View, Error> {
    let mut request = tonic::Request::new(GetStatusRequest {});
    request.set_timeout(ANSWER_WAIT);
    let status = client
        .get_status(request)
        .await
        .map_err(|status| remote.explain(status))?;
    Ok(View::from(status.into_inner()))
}

fn show(view: &View, args: &Args) -> Result<(), Error> {
    let mut out = std::io::stdout();
    let text = if args.json {
        serde_json::to_string(view).map_err(|error| Error::Output(error.into()))? + "\n"
    } else {
        let text = table::render(view, Paint::for_stream(&out));
        if args.watch.is_some() && out.is_terminal() {
            format!("{CLEAR}{text}")
        } else {
            text
        }
    };
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}
