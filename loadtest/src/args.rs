//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, Parser, Subcommand};

use crate::units::parse_duration;
use crate::{Pattern, Verify};

/// Puts load on a mesh and reports what came of it.
///
/// Latency counts from the moment a request was due, not from when it was sent: a slow server cannot hide behind a client that
/// waits for it. Every answer is checked: it decodes, has the size that was asked for, and the same request brings the same bytes.
#[derive(Debug, Clone, Parser)]
#[command(version, about, after_help = EXAMPLES, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Something else than one run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// One run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Something else than one run.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Finds capacity: the highest rate of an open loop at which enough answers are good
    Sweep(Box<SweepArgs>),
    /// A server that answers at once, to measure this program itself
    Null(NullArgs),
}

/// One run.
#[derive(Debug, Clone, Group)]
pub struct RunArgs {
    /// What decides when requests are sent.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What runs and sweeps share.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Run this target too, by turns with the first, and print ratios
    #[arg(long, value_name = "TARGET")]
    pub compare: Option<String>,

    /// How many turns each target of a comparison has
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,

    /// Good answers of a hundred due, below which the exit code is 1
    #[arg(long, default_value_t = 100.0)]
    pub require: f64,
}

/// What decides when requests are sent.
#[derive(Debug, Clone, Group)]
#[group(required = true, multiple = false)]
pub struct LoadArgs {
    /// Open loop: requests per second, whatever comes back
    #[arg(long)]
    pub rate: Option<f64>,

    /// Open loop whose rate changes: length@rate or length@from-to, as in 30s@100,60s@800,30s@800-100
    #[arg(long)]
    pub stages: Option<String>,

    /// Open loop that replays a file: a line per request with its second, and behind a comma its class
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Closed loop: this many callers, each waiting for its answer
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub callers: Option<u32>,
}

/// What runs and sweeps share.
#[derive(Debug, Clone, Group)]
pub struct CommonArgs {
    /// host:port of the gRPC door, or http://host:port of the HTTP door (with a prefix behind it where there is one); under TLS
    /// grpcs://host:port and https://host:port
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub target: String,

    /// What a closed mesh asks for.
    #[command(flatten)]
    pub access: AccessArgs,

    /// Length of the part that counts; stages and traces have their own
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// Length of the part before it that does not; of a trace it is the beginning
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,

    /// How requests of an open loop are spread in time
    #[arg(long, value_enum, default_value_t = Pattern::Poisson)]
    pub arrivals: Pattern,

    /// Coefficient of variation of gamma arrivals: 1 is Poisson, 3 comes in bursts
    #[arg(long, default_value_t = 3.0)]
    pub cv: f64,

    /// Another number gives another schedule of the same kind
    #[arg(long, default_value_t = 1)]
    pub schedule_seed: u64,

    /// How many times as fast a trace is replayed
    #[arg(long, default_value_t = 1.0)]
    pub trace_speed: f64,

    /// An answer that takes longer than this from when it was due is not good
    #[arg(long, value_parser = parse_duration)]
    pub slo: Option<Duration>,

    /// A kind of request of a mix, any number of times: name=big,weight=15,size=512,steps=20,priority=high,slo=20s
    #[arg(long = "class", value_name = "CLASS")]
    pub classes: Vec<String>,

    /// Application to ask for over gRPC, where more than one is deployed
    #[arg(long, default_value = "")]
    pub model: String,

    /// File of prompts, one per line; without it, colours and shapes of the demo model
    #[arg(long)]
    pub prompts: Option<PathBuf>,

    /// Denoising steps; the model's default otherwise
    #[arg(long)]
    pub steps: Option<u32>,

    /// Width and height in pixels; the model's default otherwise
    #[arg(long)]
    pub size: Option<u32>,

    /// Guidance scale; the model's default otherwise
    #[arg(long)]
    pub guidance_scale: Option<f32>,

    /// How many different seeds
    #[arg(long, default_value_t = 64)]
    pub seeds: u64,

    /// What is asked of answers
    #[arg(long, value_enum, default_value_t = Verify::Bytes)]
    pub verify: Verify,

    /// A request that has no answer after this has failed
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// Requests in flight at most; those due beyond it are not sent, and not good
    #[arg(long, default_value_t = 4096)]
    pub max_in_flight: usize,

    /// Connections to begin with, one a thread at least; an open loop opens more where these are full
    #[arg(long, default_value_t = 2)]
    pub connections: usize,

    /// Threads that send
    #[arg(long, default_value_t = 1)]
    pub threads: usize,

    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Also write the report as an HTML page with charts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// What a closed mesh asks for.
#[derive(Clone, Default, Group)]
#[group(skip)]
pub struct AccessArgs {
    /// API key, sent with every request; where one of two targets is called under TLS, to no other
    #[arg(long, value_name = "KEY", env = "MOBULA_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// Authorities whose certificates are trusted (PEM); those of the system otherwise
    #[arg(long, value_name = "FILE", env = "MOBULA_TLS_CA")]
    pub tls_ca: Option<PathBuf>,

    /// Certificate that is shown where one is asked for (PEM)
    #[arg(long, value_name = "FILE", env = "MOBULA_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Key of that certificate (PEM)
    #[arg(long, value_name = "FILE", env = "MOBULA_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Name that the server's certificate must have, where it is not the target's
    #[arg(long, value_name = "NAME", env = "MOBULA_TLS_SERVER_NAME")]
    pub tls_server_name: Option<String>,
}

/// Without the key.
impl std::fmt::Debug for AccessArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessArgs")
            .field("tls_ca", &self.tls_ca)
            .field("tls_cert", &self.tls_cert)
            .finish_non_exhaustive()
    }
}

/// Finds capacity.
#[derive(Debug, Clone, Group)]
pub struct SweepArgs {
    /// What runs and sweeps share.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The rate to begin with
    #[arg(long, default_value_t = 10.0)]
    pub from: f64,

    /// Good answers of a hundred due that a rate must have
    #[arg(long, default_value_t = 99.0)]
    pub require: f64,

    /// How close to end, in percent
    #[arg(long, default_value_t = 5.0)]
    pub precision: f64,

    /// Pause between rates, in which the target may recover
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub pause: Duration,

    /// Then measure 10 % to 150 % of capacity, for the charts
    #[arg(long)]
    pub curve: bool,
}

/// A server that answers at once.
#[derive(Debug, Clone, Group)]
pub struct NullArgs {
    /// Where it speaks gRPC
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub grpc: String,

    /// Where it speaks HTTP
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub http: String,

    /// Threads
    #[arg(long, default_value_t = 1)]
    pub threads: usize,

    /// How long each picture takes
    #[arg(long, default_value = "0", value_parser = parse_duration)]
    pub service: Duration,

    /// How many it draws at a time; 0 is no limit. Its capacity is slots / service
    #[arg(long, default_value_t = 0)]
    pub slots: usize,

    /// How many may wait for a slot; more are refused
    #[arg(long, default_value_t = 1000)]
    pub queue: usize,
}

const EXAMPLES: &str = "\
Examples:
  One caller, as fast as it goes:       mobula-loadtest --callers 1
  5,000 requests/s for 30 seconds:      mobula-loadtest --rate 5000 --steps 1 --duration 30s
  Bursts, goodput under an objective:   mobula-loadtest --rate 20 --arrivals gamma --cv 3 --slo 2s --require 95
  An 8-fold burst of a minute:          mobula-loadtest --stages 30s@10,60s@80,60s@10 --slo 2s --html burst.html
  A mix of sizes over HTTP:             mobula-loadtest --target http://127.0.0.1:8000 --rate 5 \\
                                          --class weight=3,size=64,steps=10 --class weight=1,size=128,priority=low
  Two targets by turns:                 mobula-loadtest --target http://127.0.0.1:8000 --compare http://127.0.0.1:8001 --callers 32
  A mesh with TLS and API keys:         MOBULA_API_KEY=... mobula-loadtest --target grpcs://mesh:9443 --tls-ca ca.pem --callers 4
  Capacity at 99 % within 500 ms:       mobula-loadtest sweep --slo 500ms --curve --html capacity.html
  This program's own limits:            mobula-loadtest null & mobula-loadtest --rate 20000 --slo 50ms

Ctrl-C ends a run with the report of what was done so far.

Exit code: 0 enough answers were good and none was wrong, 1 they were not, 2 no report could be made.";
