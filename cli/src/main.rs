//! The `mobula` command.

use std::process::ExitCode;

use clap::Parser;
use mobula_cli::{Cli, EXIT_FAILED};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread: the command mostly waits, and `mobula up` stays resident beside the mesh that it started.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let outcome = runtime.block_on(cli.run());
    // Not waited for: a blocked name look-up must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
