//! The loops: an open one that keeps to a schedule, a closed one that keeps callers busy.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::target::Target;
use crate::{Args, Arrivals, Error, Mix, Outcome, Recorder, Report};

/// Longer than this the answers of the last requests are not waited for, beyond the request's own timeout.
const GRACE: Duration = Duration::from_secs(1);
/// How long a caller of a closed loop waits after a failure: without it, refusals would be counted by the thousand.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// The schedule of an open loop; the same for every run, so that runs can be compared.
const SCHEDULE_SEED: u64 = 1;

/// Runs the load and reports.
///
/// # Errors
/// When the target is no address, does not answer at all, or the report cannot be written.
pub async fn run(args: &Args) -> Result<Report, Error> {
    let target = Target::new(args)?;
    let mix = Mix::new(prompts(args)?, args.seeds);
    let session = Session {
        target,
        mix,
        recorder: Arc::new(Mutex::new(Recorder::new())),
    };
    session.first_answer(&args.target).await?;

    let bar = progress(args);
    let begin = Instant::now();
    let start = begin + Duration::from_secs_f64(args.warmup);
    let end = start + Duration::from_secs_f64(args.duration);
    let counting = {
        let recorder = Arc::clone(&session.recorder);
        async move {
            sleep_until(start).await;
            lock(&recorder).start();
        }
    };
    let (load, ()) = match (args.rate, args.callers) {
        (Some(rate), _) => tokio::join!(open(&session, args, rate, begin, end, &bar), counting),
        (None, callers) => tokio::join!(closed(&session, callers.unwrap_or(1).max(1), end, &bar), counting),
    };
    bar.finish_and_clear();
    let report = Report::new(args.target.clone(), load, end - start, &lock(&session.recorder));
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(&report).expect("a report has only string keys and numbers");
        std::fs::write(path, json).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })?;
    }
    Ok(report)
}

/// What all requests of a run share.
#[derive(Debug, Clone)]
struct Session {
    target: Target,
    mix: Mix,
    recorder: Arc<Mutex<Recorder>>,
}

impl Session {
    async fn first_answer(&self, target: &str) -> Result<(), Error> {
        match self.target.draw(0, &self.mix.shot(0)).await {
            Outcome::Picture { .. } => Ok(()),
            Outcome::Failed(why) => Err(Error::Unreachable {
                target: target.into(),
                why,
            }),
        }
    }

    /// Draws one picture and records it; returns whether one came.
    async fn draw(&self, number: u64, due: Instant, end: Instant) -> bool {
        let shot = self.mix.shot(number);
        let outcome = self.target.draw(number, &shot).await;
        let drawn = matches!(outcome, Outcome::Picture { .. });
        let now = Instant::now();
        lock(&self.recorder).record(shot, now - due, outcome, now > end);
        drawn
    }
}

/// Every request leaves when it is due; answers that come after the end still count, since they were due before it.
async fn open(
    session: &Session,
    args: &Args,
    rate: f64,
    begin: Instant,
    end: Instant,
    bar: &ProgressBar,
) -> String {
    let slots = Arc::new(Semaphore::new(args.max_in_flight));
    let tasks = TaskTracker::new();
    for (number, offset) in (0u64..).zip(Arrivals::new(args.arrivals, rate, SCHEDULE_SEED)) {
        let due = begin + offset;
        if due >= end {
            break;
        }
        // The timer's grain is a millisecond: what is already due leaves at once, together.
        if due > Instant::now() {
            bar.set_position((due - begin).as_millis() as u64);
            sleep_until(due).await;
        }
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            lock(&session.recorder).miss();
            continue;
        };
        let session = session.clone();
        // All were due before the end, and the rate is given: an answer is in time as long as its request may run.
        let last = end + Duration::from_secs_f64(args.timeout);
        tasks.spawn(async move {
            session.draw(number, due, last).await;
            drop(slot);
        });
    }
    tasks.close();
    let patience = Duration::from_secs_f64(args.timeout) + GRACE;
    if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
        bar.println("some requests outlived their timeout and are not in the report");
    }
    format!("{rate} requests/s ({:?} arrivals)", args.arrivals).to_lowercase()
}

/// Each caller asks again as soon as it was answered.
async fn closed(session: &Session, callers: usize, end: Instant, bar: &ProgressBar) -> String {
    let begin = Instant::now();
    let tasks = TaskTracker::new();
    for caller in 0..callers as u64 {
        let session = session.clone();
        let bar = bar.clone();
        tasks.spawn(async move {
            let mut number = caller;
            loop {
                let due = Instant::now();
                if due >= end {
                    break;
                }
                if caller == 0 {
                    bar.set_position((due - begin).as_millis() as u64);
                }
                if !session.draw(number, due, end).await {
                    sleep(REFUSED_PAUSE).await;
                }
                number += callers as u64;
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    format!("{callers} caller{}", if callers == 1 { "" } else { "s" })
}

fn prompts(args: &Args) -> Result<Vec<String>, Error> {
    let Some(path) = &args.prompts else {
        return Ok(Vec::new());
    };
    let text = std::fs::read_to_string(path).map_err(|source| Error::Prompts {
        path: path.clone(),
        source,
    })?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Drawn on a terminal only.
fn progress(args: &Args) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {elapsed_precise} of the run")
        .expect("the template is a constant");
    ProgressBar::new(((args.warmup + args.duration) * 1000.0) as u64).with_style(style)
}

fn lock(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    recorder.lock().expect("nothing panics while it records")
}
