//! What the engine is measured by, each figure beside what it is compared with, in one run.
//!
//!     cargo bench -p mobula-inference --bench engine                     rows, deadlines and ticks
//!     cargo bench -p mobula-inference --bench engine -- cores            how cores are best divided
//!
//! `rows`: the service over gRPC against bare ONNX Runtime sessions. `deadlines`: requests in time above capacity, batched step
//! by step and by whole requests. `ticks`: what a tick costs beside the model. `cores`: one pool of threads, several, or lanes.
//! Figures go to a table, to a JSON file that keeps those of earlier runs, and to a chart.

mod bare;
mod cores;
mod deadlines;
mod engine;
mod random;
mod report;
mod rows;
mod service;
mod subject;
mod svg;
mod ticks;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use report::Report;
use subject::Subject;

/// Measures the engine.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// What is measured; by default rows, deadlines and ticks
    parts: Vec<Part>,
    /// Models that are measured, by default both
    #[arg(long, value_delimiter = ',', default_value = "demo,narrow")]
    models: Vec<Subject>,
    /// Seconds of each measurement of the demo model
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measurements of each side; the median counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Requests in flight
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// Seconds in which requests with deadlines come
    #[arg(long, default_value_t = 30)]
    arrivals: u64,
    /// A deadline is so many times what its request takes alone
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
    /// Offered work, of what the engine can do
    #[arg(long, default_value_t = 1.2)]
    load: f64,
    /// Threads that compute; by default one per core
    #[arg(long)]
    threads: Option<usize>,
    /// Let idle threads spin, on both sides
    #[arg(long)]
    spin: bool,
    /// Where ONNX Runtime is
    #[arg(long, env = "ORT_DYLIB_PATH", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ort/lib/libonnxruntime.so"))]
    onnxruntime: PathBuf,
    /// Where the figures go; those of parts that are not measured now stay as they are there
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench/engine.json"))]
    json: PathBuf,
    /// Where the chart goes; none is drawn by default
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Works for another process of this program: a pool of bare sessions with so many threads
    #[arg(long, hide = true)]
    pool: Option<usize>,
    /// With --pool: Mobula's engine instead of bare sessions, with so many lanes
    #[arg(long, hide = true)]
    lanes: Option<usize>,
    /// With --pool: threads that do everything but the UNet
    #[arg(long, hide = true)]
    aside: Option<usize>,
    /// With --pool: rows of a UNet call and pictures of a decoding; by default what goes fastest
    #[arg(long, hide = true, value_delimiter = ',')]
    choice: Vec<usize>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Rows a second beside bare sessions
    Rows,
    /// Requests in time
    Deadlines,
    /// What a tick costs beside the model
    Ticks,
    /// One pool of threads or several
    Cores,
    /// Bare sessions alone; the last line is pictures a second
    Bare,
    /// Nothing: draws the chart of what was measured before
    Chart,
}

impl Args {
    fn threads(&self) -> usize {
        self.threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let (Some(threads), Some(model)) = (args.pool, args.models.first()) {
        return match args.lanes {
            None => bare::serve(&args, *model, threads),
            Some(lanes) => engine::serve(&args, *model, threads, lanes),
        };
    }
    // Before any thread of ours runs beside it.
    let ticks = if args.wants(Part::Ticks) {
        ticks::measure()?
    } else {
        Vec::new()
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(args, ticks))
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        if self.parts.is_empty() {
            matches!(part, Part::Rows | Part::Deadlines | Part::Ticks)
        } else {
            self.parts.contains(&part)
        }
    }
}

async fn measure(args: Args, ticks: Vec<report::Tick>) -> Result<()> {
    if args.wants(Part::Bare) {
        return bare::alone(&args).await;
    }
    let mut report = Report::read(&args.json, args.threads());
    if !ticks.is_empty() {
        report.ticks = ticks;
    }
    let service = Arc::new(service::Worker::start(&args).await?);
    if args.wants(Part::Rows) {
        report.rows = rows::measure(&args, &service).await?;
    }
    if args.wants(Part::Deadlines) {
        report.deadlines = deadlines::measure(&args, &service).await?;
    }
    if args.wants(Part::Cores) {
        report.cores = cores::measure(&args).await?;
    }
    service.stop().await;
    println!("\n{report}");
    report.write(&args.json)?;
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::chart(&report))?;
    }
    Ok(())
}

/// The middle of some figures.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}
