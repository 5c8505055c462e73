//! The command line as a whole. Each command's own flags are beside the command.

use clap::{Parser, Subcommand};

use crate::{Error, control, imagine, key, prepare, status, up};

const EXAMPLES: &str = "\
Examples:
  mobula up                                                    start a mesh on this machine and draw with the demo model
  mobula imagine \"a red circle on a blue background\"           draw a picture into out.png
  mobula imagine \"a small green star\" --seed 7 -o star.png     the same seed draws the same picture
  mobula status                                                what runs, what does not, and why
  mobula deploy serve.yaml --wait                              make a config, Ray Serve's too, what shall run
  mobula explain deployment default/pipeline                   why it is pending, or does not scale
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
    /// Make a config what shall run
    Deploy(Box<control::Deploy>),
    /// Say what is honoured, translated, ignored or refused in a config
    Check(Box<control::Check>),
    /// Show the config that was accepted last
    Config(control::Config),
    /// Change a deployment's number of replicas
    Scale(control::Scale),
    /// Delete an application
    Delete(control::Delete),
    /// Show what was accepted before
    History(control::History),
    /// Go back to what was accepted before
    Rollback(control::Rollback),
    /// Say why something is pending, not scaling, unhealthy or slow
    Explain(control::Explain),
    /// Write everything that the controller keeps into a file
    Backup(control::Backup),
    /// Take a backup in place of what the controller keeps
    Restore(control::Restore),
    /// Make API keys for the proxies
    Key(key::Args),
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
            Command::Deploy(command) => command.run().await,
            Command::Check(command) => command.run().await,
            Command::Config(command) => command.run().await,
            Command::Scale(command) => command.run().await,
            Command::Delete(command) => command.run().await,
            Command::History(command) => command.run().await,
            Command::Rollback(command) => command.run().await,
            Command::Explain(command) => command.run().await,
            Command::Backup(command) => command.run().await,
            Command::Restore(command) => command.run().await,
            Command::Key(args) => key::run(args),
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
