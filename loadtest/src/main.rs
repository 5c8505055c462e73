//! `mobula-loadtest`: load on a running mesh, and an honest report.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mobula_loadtest::{Args, execute, until_interrupted};
use tokio_util::sync::CancellationToken;

/// No report could be made.
const NO_REPORT: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mobula-loadtest: cannot start the runtime: {error}");
            return ExitCode::from(NO_REPORT);
        }
    };
    let stop = CancellationToken::new();
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = execute(&args, &stop) => outcome,
            () = until_interrupted(&stop) => unreachable!("it ends with the process only"),
        }
    });
    match outcome {
        Ok(outcome) => {
            // A reader that has gone, such as `head`, is no reason to fail.
            let _ = writeln!(std::io::stdout(), "{}", outcome.text);
            ExitCode::from(u8::from(!outcome.passed))
        }
        Err(error) => {
            eprintln!("mobula-loadtest: {:#}", anyhow::Error::from(error));
            ExitCode::from(NO_REPORT)
        }
    }
}
