//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Parser};

use crate::Pattern;

/// Puts load on a mesh and reports throughput and latency.
///
/// Latency counts from the moment a request was due, not from when it was sent.
#[derive(Debug, Clone, Parser)]
#[command(version, about, group(ArgGroup::new("load").required(true).args(["rate", "callers"])), after_help = EXAMPLES)]
pub struct Args {
    /// host:port of the gRPC door, or http://host:port of the HTTP door
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub target: String,

    /// Open loop: requests per second, whatever comes back
    #[arg(long)]
    pub rate: Option<f64>,

    /// Closed loop: this many callers, each waiting for its answer
    #[arg(long)]
    pub callers: Option<usize>,

    /// How requests of an open loop are spread in time
    #[arg(long, value_enum, default_value_t = Pattern::Poisson)]
    pub arrivals: Pattern,

    /// Seconds that count
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,

    /// Seconds before them that do not
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,

    /// Requests in flight at most; those due beyond it are counted as missed, not sent
    #[arg(long, default_value_t = 4096)]
    pub max_in_flight: usize,

    /// Connections that share the load
    #[arg(long, default_value_t = 2)]
    pub connections: usize,

    /// Threads of this program
    #[arg(long, default_value_t = 1)]
    pub threads: usize,

    /// Application to ask for, where more than one is deployed
    #[arg(long, default_value = "")]
    pub model: String,

    /// Prompts, one per line; without it, colours and shapes of the demo model
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

    /// How many different seeds; a picture whose prompt and seed came before must have the same bytes
    #[arg(long, default_value_t = 64)]
    pub seeds: u64,

    /// Seconds after which a request counts as failed
    #[arg(long, default_value_t = 60.0)]
    pub timeout: f64,

    /// Also write the report as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  One caller, as fast as it goes:     mobula-loadtest --callers 1
  5,000 requests/s for 30 seconds:    mobula-loadtest --rate 5000 --steps 1 --duration 30
  Over HTTP, 16 callers:              mobula-loadtest --target http://127.0.0.1:8000 --callers 16

Exit code: 0 every answer was right, 1 some failed or differed, 2 no report could be made.";
