//! `mobula prepare`: hands the work to `mobula-inference prepare`, which has the engine, whose words and exit code are then its own.
//!
//! The command itself opens no model. The binary is looked for where `mobula up` looks for services.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::Error;
use crate::up::Binaries;

const EXAMPLES: &str = "\
Examples:
  mobula prepare models/demo --check               run every network once, say what the model is, change nothing
  mobula prepare models/demo                       prepare it and measure it at its own size
  mobula prepare sd15 --size 512x512 --seconds 120
  mobula prepare --help-all                        every flag of the engine's own command

Exit codes: 0 done, 1 the model cannot be prepared, 2 wrong usage.";

/// The binary that does it.
const BINARY: &str = "mobula-inference";

/// Flags of `mobula prepare`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder with the services' binaries; by default beside this command, then along PATH
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Show the engine's own help, with every flag
    #[arg(long)]
    help_all: bool,
    /// Model folder, and flags: --check, --size WxH, --max-rows N, --seconds S, --providers NAMES, --onnxruntime FILE, --threads N
    #[arg(
        value_name = "DIR",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "help_all"
    )]
    rest: Vec<OsString>,
}

/// Runs the engine's command to its end.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let binary = Binaries::find(args.bin_dir.as_deref())?.folder.join(BINARY);
    let mut command = Command::new(binary);
    command.arg("prepare").args(&args.rest);
    if args.help_all {
        command.arg("--help");
    }
    // This process becomes the other one: its words, its exit code and what Ctrl-C means are the engine's.
    let source = command.exec();
    Err(Error::Spawn { name: BINARY, source })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn everything_behind_the_folder_is_the_engines_and_no_folder_is_wrong_usage() {
        let line =
            Line::try_parse_from(["x", "--bin-dir", "b", "model", "--check", "--size", "64x64"]).unwrap();
        assert_eq!(line.args.rest, ["model", "--check", "--size", "64x64"]);
        assert_eq!(line.args.bin_dir.as_deref(), Some(std::path::Path::new("b")));
        let flags_first = Line::try_parse_from(["x", "--check", "model"]).unwrap();
        assert_eq!(flags_first.args.rest, ["--check", "model"]);
        assert!(Line::try_parse_from(["x"]).is_err());
        assert!(Line::try_parse_from(["x", "--help-all"]).is_ok());
    }
}
