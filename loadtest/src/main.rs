//! `mobula-loadtest`: load on a running mesh, and an honest report.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mobula_loadtest::{Args, run};

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads)
        .enable_all()
        .build();
    let report = match runtime {
        Ok(runtime) => runtime.block_on(run(&args)),
        Err(error) => {
            eprintln!("mobula-loadtest: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match report {
        Ok(report) => {
            // A reader that has gone, such as `head`, is no reason to fail.
            let _ = writeln!(std::io::stdout(), "{report}");
            if report.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("mobula-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}
