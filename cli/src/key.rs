//! `mobula key new`: an API key for the doors of proxies, and the line of their list of keys that says what it opens.
//!
//! Nobody is asked: the key is random, it is shown once, and what is kept of it is its SHA-256. What the line may say is the
//! proxy's to check; here it is only written.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Subcommand, ValueEnum};
use sha2::{Digest as _, Sha256};

use crate::Error;

const EXAMPLES: &str = "\
Examples:
  mobula key new --tenant acme --file keys.yaml
  mobula key new --tenant trial --requests-per-second 0.5 --max-concurrent 1 --megapixels-per-day 20 --model demo
  mobula key new --tenant nightly --weight 0.5 --max-priority low
  MOBULA_API_KEYS_FILE=keys.yaml mobula up                  a mesh that draws for keys of the file alone

Exit codes: 0 done, 1 the file cannot be written, 2 wrong usage.";

/// Before every key: what finds secrets in code and logs knows it by that.
const PREFIX: &str = "mob_";
/// Bytes of chance in a key: nobody tries out as many.
const RANDOM_BYTES: usize = 32;

/// `mobula key`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key, and the line that opens the doors to it
    New(Box<New>),
}

/// What the key opens. What is not given is without limit.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
struct New {
    /// Whose key it is: requests of one tenant share their ids, and have one share among other tenants'
    #[arg(long, value_name = "NAME", value_parser = tenant)]
    tenant: String,
    /// The tenant's share among those who wait, against 1 of others
    #[arg(long, value_name = "X")]
    weight: Option<f64>,
    /// Requests that may begin each second
    #[arg(long, visible_alias = "rate", value_name = "X")]
    requests_per_second: Option<f64>,
    /// Requests that may begin at once after a pause; by default those of a second
    #[arg(long, value_name = "N", requires = "requests_per_second")]
    burst: Option<u32>,
    /// Requests at a time
    #[arg(long, value_name = "N")]
    max_concurrent: Option<u32>,
    /// Pixels of pictures per minute, in millions
    #[arg(long, value_name = "X")]
    megapixels_per_minute: Option<f64>,
    /// Pixels of pictures per day, in millions
    #[arg(long, value_name = "X")]
    megapixels_per_day: Option<f64>,
    /// An application, or one of its models as application:model; give it several times for several
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// The highest class that requests may ask for
    #[arg(long, value_name = "WHEN")]
    max_priority: Option<Class>,
    /// Add the line to this list of keys; without it both are shown
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Class {
    Low,
    Normal,
    High,
}

impl Class {
    fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// As proxies read it.
fn tenant(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(is_name) {
        return Err("must have 1 to 64 letters, digits or any of - _ . @".to_owned());
    }
    Ok(text.to_owned())
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let Command::New(new) = args.command;
    let key = format!(
        "{PREFIX}{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; RANDOM_BYTES]>())
    );
    let line = new.line(&key);
    let shown = match &new.file {
        Some(path) => {
            add(path, &line)?;
            format!("{key}\n")
        }
        None => format!("{key}\n{line}"),
    };
    let mut out = io::stdout().lock();
    out.write_all(shown.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::Output)?;
    eprintln!("the key is shown this once; only its SHA-256 is kept");
    Ok(())
}

impl New {
    /// The line of the list.
    fn line(&self, key: &str) -> String {
        let mut line = format!("- {{tenant: {:?}, sha256: ", self.tenant);
        for byte in Sha256::digest(key) {
            // Writing to a text cannot fail.
            let _ = write!(line, "{byte:02x}");
        }
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = write!(line, ", {name}: {value}");
            }
        };
        let number = |value: Option<f64>| value.map(|value| value.to_string());
        let count = |value: Option<u32>| value.map(|value| value.to_string());
        add("weight", number(self.weight));
        add("requests_per_second", number(self.requests_per_second));
        add("burst", count(self.burst));
        add("max_concurrent", count(self.max_concurrent));
        add("megapixels_per_minute", number(self.megapixels_per_minute));
        add("megapixels_per_day", number(self.megapixels_per_day));
        // JSON's lists of strings are YAML's.
        let models =
            (!self.models.is_empty()).then(|| serde_json::Value::from(self.models.clone()).to_string());
        add("models", models);
        add(
            "max_priority",
            self.max_priority.map(|class| class.word().to_owned()),
        );
        line.push_str("}\n");
        line
    }
}

/// Adds a line to a list, by one write: whoever reads it meanwhile sees all of the line or nothing.
fn add(path: &Path, line: &str) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    if before.trim_start().starts_with('[') {
        let why = "it is a list in brackets; add the line that `mobula key new` shows without --file by hand";
        return Err(failed(io::Error::other(why)));
    }
    let needs_break = !before.is_empty() && !before.ends_with('\n');
    let text = format!("{}{line}", if needs_break { "\n" } else { "" });
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(failed)
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

    fn new(line: &[&str]) -> Result<New, clap::Error> {
        let line = ["key", "new"].iter().chain(line);
        let Command::New(new) = Line::try_parse_from(line)?.args.command;
        Ok(*new)
    }

    #[test]
    fn the_line_says_what_was_asked_for_and_holds_the_digest_and_not_the_key() {
        let full = new(&[
            "--tenant",
            "acme",
            "--rate",
            "0.5",
            "--burst",
            "3",
            "--max-concurrent",
            "2",
            "--megapixels-per-day",
            "20",
            "--model",
            "demo",
            "--model",
            "art:ink",
            "--max-priority",
            "low",
            "--weight",
            "2",
        ]);
        let line = full.unwrap().line("abc");
        assert_eq!(
            line,
            "- {tenant: \"acme\", sha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, weight: 2, \
             requests_per_second: 0.5, burst: 3, max_concurrent: 2, megapixels_per_day: 20, models: [\"demo\",\"art:ink\"], \
             max_priority: low}\n"
        );
    }

    #[test]
    fn a_tenant_has_a_name_and_a_burst_needs_a_rate() {
        assert!(new(&[]).is_err());
        assert!(new(&["--tenant", "a b"]).is_err());
        assert!(new(&["--tenant", "a", "--burst", "2"]).is_err());
    }

    #[test]
    fn lines_are_added_to_a_list_whatever_it_ends_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.yaml");
        add(&path, "- a\n").unwrap();
        std::fs::write(&path, "- a").unwrap();
        add(&path, "- b\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "- a\n- b\n");
        std::fs::write(&path, "[]").unwrap();
        let error = add(&path, "- c\n").unwrap_err().to_string();
        assert!(error.contains("by hand"), "{error}");
    }
}
