//! The command line as a whole. Each command's own flags are beside the command.

use clap::{Parser, Subcommand};

use crate::{Error, imagine, prepare, status, up};

const EXAMPLES: &str = "\
Examples:
  mobula up                                                    start a mesh on this machine and draw with the demo model
  mobula imagine \"a red circle on a blue background\"           draw a picture into out.png
  mobula imagine \"a small green star\" --seed 7 -o star.png     the same seed draws the same picture
  mobula status                                                what runs, what does not, and why
  mobula prepare models/demo --check                           say what a model is and how it is served

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

/// Serve Stable Diffusion from a mesh of small services.
#[derive(Debug, Parser)]
#[command(name = "mobula", version, after_help = EXAMPLES, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole mesh on this machine and keep it running
    Up(Box<up::Args>),
    /// Draw a picture
    Imagine(Box<imagine::Args>),
    /// Show applications, replicas, workers and proxies
    Status(status::Args),
    /// Look at a model folder, prepare it for serving, and measure it
    Prepare(prepare::Args),
}

impl Cli {
    /// Runs the chosen command to its end.
    pub async fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Up(args) => Box::pin(up::run(*args)).await,
            Command::Imagine(args) => Box::pin(imagine::run(*args)).await,
            Command::Status(args) => status::run(args).await,
            Command::Prepare(args) => prepare::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("Examples:"),
                "{} has no examples",
                command.get_name()
            );
        }
    }
}
