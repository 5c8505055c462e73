//! The service's settings, each with its environment variable. Nothing here decides anything.

use std::{num::NonZeroUsize, path::PathBuf};

use mobula_kit::{channel::Dial, worker::WorkerArgs};

/// Jobs that may wait for a tokenizer thread: at 16 texts of 64 KiB each they hold at most 64 MiB.
const QUEUE: usize = 64;
/// Texts of one request up to so many bytes in all are tokenized on the async thread: a prompt and a negative prompt of
/// usual length. Measured: 5 to 15 us for those, 0.2 ms for as many bytes of random characters that no cache knows; above
/// 0.5 ms work must leave the async threads.
const INLINE_BYTES: usize = 1024;

/// Settings of the preprocess service.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// What this worker says of itself
    #[command(flatten)]
    pub worker: WorkerArgs,
    /// Serve a model without a controller: id=folder, or id=fake; may be repeated
    #[arg(long = "replica", env = "MOBULA_REPLICAS", value_delimiter = ',', value_parser = replica)]
    pub replicas: Vec<(String, String)>,
    /// Folder in which replicas' models are found when their path is relative; by default the working folder. A config that
    /// names no model means the one model in it
    #[arg(long, env = "MOBULA_MODELS_DIR")]
    pub models_dir: Option<PathBuf>,
    /// Tokenizer threads for long texts; by default one per core
    #[arg(long, env = "MOBULA_TOKENIZER_THREADS")]
    pub threads: Option<NonZeroUsize>,
    /// Requests that may wait for a tokenizer thread
    #[arg(long, env = "MOBULA_TOKENIZER_QUEUE", default_value_t = QUEUE)]
    pub queue: usize,
    /// Requests with at most so many bytes of text are tokenized at once, without a change of thread
    #[arg(long, env = "MOBULA_TOKENIZER_INLINE_BYTES", default_value_t = INLINE_BYTES)]
    pub inline_bytes: usize,
    /// How the controller is dialled.
    #[arg(skip)]
    pub dial: Dial,
}

impl Config {
    /// How many tokenizer threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            worker: WorkerArgs {
                controller: "127.0.0.1:7265".into(),
                ..WorkerArgs::default()
            },
            replicas: Vec::new(),
            models_dir: None,
            threads: None,
            queue: QUEUE,
            inline_bytes: INLINE_BYTES,
            dial: Dial::default(),
        }
    }
}

fn replica(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((id, model)) if !id.is_empty() && !model.is_empty() => Ok((id.into(), model.into())),
        Some(_) | None => Err("must be id=folder, or id=fake".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn defaults_are_those_of_the_command_line() {
        let parsed = Args::try_parse_from(["preprocess"]).unwrap().config;
        let default = Config::default();
        assert_eq!(
            (
                parsed.worker.controller,
                parsed.queue,
                parsed.inline_bytes,
                parsed.threads
            ),
            (
                default.worker.controller,
                default.queue,
                default.inline_bytes,
                default.threads
            )
        );
    }

    #[test]
    fn a_replica_is_named_with_its_model() {
        let parse = |text: &str| {
            Args::try_parse_from(["preprocess", "--replica", text]).map(|args| args.config.replicas)
        };
        assert_eq!(parse("a=fake").unwrap(), [("a".to_owned(), "fake".to_owned())]);
        assert!(parse("fake").is_err());
        assert!(Args::try_parse_from(["preprocess", "--threads", "0"]).is_err());
    }
}
