//! What the command line asks for: one run, two targets by turns, a sweep, a null server.

use std::path::Path;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{CommonArgs, LoadArgs, NullArgs, RunArgs, SweepArgs};
use crate::client::{Access, Common, is_secure};
use crate::drive::Load;
use crate::null::{Behaviour, Server};
use crate::plan::{Class, Mix, Pattern, Profile, Schedule, Trace};
use crate::record::Window;
use crate::report::{Comparison, Page, Report, Search, Sweep, Tried};
use crate::run::{Run, Setup, measure};
use crate::{Args, Command, Error};

/// Parts of capacity that a curve shows, as rules of honest load tests ask for: up to half above it.
const CURVE: [f64; 9] = [0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5];
/// Classes at most: each has histograms of some hundred kilobytes in every thread.
const MAX_CLASSES: usize = 32;

/// What came of a command: its text, and whether all was as it should be.
#[derive(Debug)]
pub struct Outcome {
    /// For standard output.
    pub text: String,
    /// Whether all was as it should be.
    pub passed: bool,
}

/// Does what the command line says, until it is done or told to stop.
///
/// # Errors
/// When an option makes no sense, the target does not answer at all, or a report cannot be written.
pub async fn execute(args: &Args, stop: &CancellationToken) -> Result<Outcome, Error> {
    match &args.command {
        Some(Command::Sweep(args)) => sweep(args, stop).await,
        Some(Command::Null(args)) => null(args, stop).await,
        None => match &args.run.compare {
            Some(other) => compare(&args.run, other, stop).await,
            None => one(&args.run, stop).await,
        },
    }
}

async fn one(args: &RunArgs, stop: &CancellationToken) -> Result<Outcome, Error> {
    let setup = setup(&args.common, None)?;
    let run = plan(&args.load, &args.common, &setup.mix)?;
    let report = measure(&setup, &args.common.target, &run, stop).await?;
    write(&args.common, &report, Page::Run(&report))?;
    Ok(outcome(report.to_string(), &[&report], args.require))
}

/// A, B, A, B, ...: what changes slowly on a machine touches both alike.
async fn compare(args: &RunArgs, other: &str, stop: &CancellationToken) -> Result<Outcome, Error> {
    let setup = setup(&args.common, Some(other))?;
    let run = plan(&args.load, &args.common, &setup.mix)?;
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let first = measure(&setup, &args.common.target, &run, stop).await?;
        if stop.is_cancelled() {
            break;
        }
        let second = measure(&setup, other, &run, stop).await?;
        if stop.is_cancelled() {
            break;
        }
        rounds.push((first, second));
    }
    let comparison = Comparison::new(args.common.target.clone(), other.to_owned(), run.words, rounds);
    write(&args.common, &comparison, Page::Comparison(&comparison))?;
    let reports: Vec<_> = comparison.rounds.iter().flat_map(|(a, b)| [a, b]).collect();
    Ok(outcome(comparison.to_string(), &reports, args.require))
}

async fn sweep(args: &SweepArgs, stop: &CancellationToken) -> Result<Outcome, Error> {
    let setup = setup(&args.common, None)?;
    percent("require", args.require)?;
    let mut search = Search::new(args.from, args.precision);
    let mut points = Vec::new();
    while let Some(rate) = search.next_rate() {
        let Some(tried) = try_rate(args, &setup, rate, stop).await? else {
            break;
        };
        search.record(tried.passed);
        points.push(tried);
    }
    let capacity = search.capacity();
    for part in CURVE.iter().filter(|_| args.curve) {
        let Some(capacity) = capacity else { break };
        let Some(tried) = try_rate(args, &setup, capacity * part, stop).await? else {
            break;
        };
        points.push(tried);
    }
    let sweep = Sweep {
        target: args.common.target.clone(),
        require: args.require,
        capacity,
        points,
    };
    write(&args.common, &sweep, Page::Sweep(&sweep))?;
    let wrong = sweep.points.iter().any(|point| point.report.counts.wrong > 0);
    Ok(Outcome {
        text: sweep.to_string(),
        passed: capacity.is_some() && !wrong,
    })
}

/// Nothing when it was stopped: half a run says nothing of a rate.
async fn try_rate(
    args: &SweepArgs,
    setup: &Setup,
    rate: f64,
    stop: &CancellationToken,
) -> Result<Option<Tried>, Error> {
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(None),
        () = tokio::time::sleep(args.pause) => {}
    }
    let profile = Profile::constant(rate, args.common.duration)?;
    let run = open(
        process(&args.common, profile),
        format!("{rate:.1} requests/s"),
        &args.common,
    );
    let report = measure(setup, &args.common.target, &run, stop).await?;
    if stop.is_cancelled() {
        return Ok(None);
    }
    let passed = report.verdict(args.require).passed();
    eprintln!(
        "{rate:.1} requests/s: {:.2} % good, p99 {:.1} ms: {}",
        report.good_percent,
        report.latency_ms.p99,
        if passed { "passed" } else { "failed" }
    );
    Ok(Some(Tried { rate, passed, report }))
}

async fn null(args: &NullArgs, stop: &CancellationToken) -> Result<Outcome, Error> {
    let behaviour = Behaviour {
        service: args.service,
        slots: args.slots,
        queue: args.queue,
    };
    let server = Server::start(&args.grpc, &args.http, args.threads, behaviour).await?;
    println!("gRPC at {}, HTTP at http://{}", server.grpc, server.http);
    stop.cancelled().await;
    server.stop();
    Ok(Outcome {
        text: String::new(),
        passed: true,
    })
}

fn outcome(mut text: String, reports: &[&Report], require: f64) -> Outcome {
    let complaints: Vec<_> = reports
        .iter()
        .flat_map(|report| report.verdict(require).complaints)
        .collect();
    for complaint in &complaints {
        text.push_str("\nnot passed: ");
        text.push_str(complaint);
    }
    Outcome {
        text,
        passed: complaints.is_empty() && !reports.is_empty(),
    }
}

fn percent(option: &'static str, value: f64) -> Result<(), Error> {
    positive(
        option,
        value,
        |value| (0.0..=100.0).contains(&value),
        "0 to 100 can be",
    )
}

fn positive(option: &'static str, value: f64, fits: fn(f64) -> bool, why: &'static str) -> Result<(), Error> {
    if fits(value) {
        Ok(())
    } else {
        Err(Error::Option {
            option,
            value: value.to_string(),
            why,
        })
    }
}

fn setup(args: &CommonArgs, other: Option<&str>) -> Result<Setup, Error> {
    let above_zero = |value: f64| value.is_finite() && value > 0.0;
    positive("cv", args.cv, above_zero, "it must be above 0")?;
    positive("trace-speed", args.trace_speed, above_zero, "it must be above 0")?;
    positive(
        "duration",
        args.duration.as_secs_f64(),
        above_zero,
        "it must be above 0",
    )?;
    positive(
        "timeout",
        args.timeout.as_secs_f64(),
        above_zero,
        "it must be above 0",
    )?;
    let threads = args.threads.clamp(1, 256);
    let secure = is_secure(&args.target) || other.is_some_and(is_secure);
    Ok(Setup {
        mix: mix(args)?,
        verify: args.verify,
        common: Common {
            model: args.model.clone(),
            timeout: args.timeout,
            connections: args.connections.div_ceil(threads),
            max_connections: args.max_in_flight.div_ceil(threads),
            access: Access::new(&args.access, secure)?,
        },
        threads,
        max_in_flight: args.max_in_flight,
    })
}

fn mix(args: &CommonArgs) -> Result<Mix, Error> {
    let base = Class {
        size: args.size,
        steps: args.steps,
        guidance_scale: args.guidance_scale,
        slo: args.slo,
        ..Class::default()
    };
    let mut classes = args
        .classes
        .iter()
        .map(|text| Class::parse(text, &base))
        .collect::<Result<Vec<_>, _>>()?;
    if classes.len() > MAX_CLASSES {
        return Err(Error::Option {
            option: "class",
            value: classes.len().to_string(),
            why: "32 classes can be",
        });
    }
    if classes.is_empty() {
        classes.push(base);
    }
    let prompts = args.prompts.as_deref().map(read).transpose()?.unwrap_or_default();
    let prompts = prompts.lines().map(str::trim).filter(|line| !line.is_empty());
    Mix::new(classes, prompts.map(str::to_owned).collect(), args.seeds)
}

fn plan(load: &LoadArgs, args: &CommonArgs, mix: &Mix) -> Result<Run, Error> {
    let pattern = format!("{:?} arrivals", args.arrivals).to_lowercase();
    if let Some(callers) = load.callers {
        return Ok(Run {
            load: Load::Closed(u64::from(callers)),
            words: format!("{callers} caller{}", if callers == 1 { "" } else { "s" }),
            window: Window {
                start: args.warmup,
                end: args.warmup + args.duration,
            },
        });
    }
    if let Some(path) = &load.trace {
        let names: Vec<_> = mix.classes().iter().map(|class| class.name.as_str()).collect();
        let trace = Trace::parse(&read(path)?, args.trace_speed, &names)?;
        let schedule = Schedule::Trace(trace);
        if args.warmup >= schedule.length() {
            return Err(Error::Option {
                option: "warmup",
                value: format!("{:?}", args.warmup),
                why: "the trace is shorter",
            });
        }
        let window = Window {
            start: args.warmup,
            end: schedule.length(),
        };
        return Ok(Run {
            load: Load::Open(schedule),
            words: format!("trace of {}, {} times as fast", path.display(), args.trace_speed),
            window,
        });
    }
    let (profile, words) = match (&load.stages, load.rate) {
        (Some(stages), _) => (Profile::parse(stages)?, format!("{stages}, {pattern}")),
        (None, rate) => {
            let rate = rate.unwrap_or_default();
            (
                Profile::constant(rate, args.duration)?,
                format!("{rate} requests/s, {pattern}"),
            )
        }
    };
    Ok(open(process(args, profile), words, args))
}

fn process(args: &CommonArgs, profile: Profile) -> Schedule {
    Schedule::Process {
        pattern: args.arrivals,
        cv: if args.arrivals == Pattern::Gamma {
            args.cv
        } else {
            1.0
        },
        profile: profile.after_warm_up(args.warmup),
        seed: args.schedule_seed,
    }
}

/// A schedule whose warm-up is its first part, where it has one.
fn open(schedule: Schedule, words: String, args: &CommonArgs) -> Run {
    Run {
        window: Window {
            start: args.warmup.min(schedule.length()),
            end: schedule.length(),
        },
        words,
        load: Load::Open(schedule),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn write(args: &CommonArgs, report: &impl Serialize, page: Page<'_>) -> Result<(), Error> {
    let keep = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
    };
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(report).expect("a report has only string keys and numbers");
        keep(path, &json)?;
    }
    if let Some(path) = &args.html {
        keep(path, page.html().as_bytes())?;
    }
    Ok(())
}

/// Told once, runs end with their report; told twice, the process ends.
pub async fn until_interrupted(stop: &CancellationToken) {
    loop {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the signal ends the process by itself.
            std::future::pending::<()>().await;
        }
        if stop.is_cancelled() {
            std::process::exit(130);
        }
        stop.cancel();
    }
}
