//! Runs: threads that each have their own runtime, connections, schedule and recorder; one report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Common};
use crate::drive::{Driver, Load, Shared, judge};
use crate::record::{Kind, Recorder, Window};
use crate::report::{Meta, Report};
use crate::verify::{Book, Verify};
use crate::{Error, Mix};

/// From the moment when all threads are connected to the first moment of the schedule, so that none begins late.
const LEAD: Duration = Duration::from_millis(20);
/// How often a progress bar moves.
const REFRESH: Duration = Duration::from_millis(200);

/// What does not change from run to run.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// What is asked for.
    pub(crate) mix: Mix,
    /// What is asked of answers.
    pub(crate) verify: Verify,
    /// What requests have in common.
    pub(crate) common: Common,
    /// Threads that send.
    pub(crate) threads: usize,
    /// Requests in flight at most, over all threads.
    pub(crate) max_in_flight: usize,
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) load: Load,
    /// The same in words.
    pub(crate) words: String,
    pub(crate) window: Window,
}

/// Puts one load on one target.
pub(crate) async fn measure(
    setup: &Setup,
    target: &str,
    run: &Run,
    stop: &CancellationToken,
) -> Result<Report, Error> {
    let threads = setup.threads.max(1);
    let shared = Arc::new(Shared {
        mix: setup.mix.clone(),
        book: Book::new(setup.verify, setup.mix.cards()),
        load: run.load.clone(),
        timeout: setup.common.timeout,
        max_in_flight: setup.max_in_flight.div_ceil(threads) as u64,
        threads: threads as u64,
        end: run.window.end,
        answered: AtomicU64::new(0),
        stop: stop.child_token(),
    });
    first_answer(&shared, target, &setup.common).await?;
    let slos: Vec<_> = setup.mix.classes().iter().map(|class| class.slo).collect();
    let mut whole = Recorder::new(run.window, slos);

    let cpu = cpu_time();
    let (connected, mut all_connected) = tokio::sync::mpsc::channel(threads);
    let (start, _) = tokio::sync::broadcast::channel(1);
    let mut parts = Vec::new();
    for index in 0..threads {
        let part = Part {
            index: index as u64,
            shared: Arc::clone(&shared),
            client: Client::new(target, &setup.mix, &setup.common)?,
            recorder: whole.clone(),
            connected: connected.clone(),
            start: start.subscribe(),
        };
        let (done, over) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name(format!("load-{index}"))
            .spawn(move || {
                // Nobody waits any more when the run itself has failed.
                let _ = done.send(part.run());
            })
            .map_err(|source| Error::System {
                what: "start a thread".into(),
                source,
            })?;
        parts.push(over);
    }
    drop(connected);
    // Ends early where a thread fails, which its result tells.
    for _ in 0..threads {
        let _ = all_connected.recv().await;
    }
    let begin = Instant::now() + LEAD;
    let _ = start.send(begin);

    let over = CancellationToken::new();
    let collect = async {
        for part in parts {
            let recorder = part.await.map_err(|_| Error::System {
                what: "finish a thread".into(),
                source: std::io::Error::other("it panicked"),
            })??;
            whole.merge(&recorder);
        }
        over.cancel();
        Ok::<_, Error>(())
    };
    let (collected, ()) = tokio::join!(collect, show(&shared, begin, &over));
    shared.stop.cancel();
    collected?;
    let interrupted = stop.is_cancelled();
    if interrupted {
        whole.cut(begin.elapsed());
    }
    let meta = Meta {
        target: target.to_owned(),
        load: run.words.clone(),
        cpu: cpu_time().saturating_sub(cpu),
        threads,
        interrupted,
    };
    let names: Vec<_> = setup
        .mix
        .classes()
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    Ok(Report::new(meta, &names, &whole))
}

/// One request before the load: a target that is not there is an error of whoever started this, not a result.
async fn first_answer(shared: &Arc<Shared>, target: &str, common: &Common) -> Result<(), Error> {
    let unreachable = |why: String| Error::Unreachable {
        target: target.into(),
        why,
    };
    let common = Common {
        connections: 1,
        ..common.clone()
    };
    let client = Client::new(target, &shared.mix, &common)?;
    let card = shared.mix.pick(0, None).0;
    let ending = match client.draw(card, common.timeout).await {
        Ok(picture) => judge(shared, card, picture).await,
        Err(ending) => ending,
    };
    match ending.kind {
        // Whether refusals are right is the report's question.
        Kind::Right | Kind::Refused | Kind::RefusedBare => Ok(()),
        Kind::Deadline | Kind::Failed | Kind::Transport | Kind::Wrong => {
            Err(unreachable(format!("{}: {}", ending.kind.name(), ending.label)))
        }
    }
}

/// One thread's part of a run.
struct Part {
    index: u64,
    shared: Arc<Shared>,
    client: Client,
    recorder: Recorder,
    connected: tokio::sync::mpsc::Sender<()>,
    start: tokio::sync::broadcast::Receiver<Instant>,
}

impl Part {
    fn run(mut self) -> Result<Recorder, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Decoding of first answers, beside the thread that sends.
            .max_blocking_threads(1)
            .build()
            .map_err(|source| Error::System {
                what: "start a runtime".into(),
                source,
            })?;
        let recorder = runtime.block_on(async move {
            // What fails here fails again with the first request, and is counted there.
            let _ = self.client.connect().await;
            let _ = self.connected.send(()).await;
            let Ok(begin) = self.start.recv().await else {
                return Ok(self.recorder);
            };
            Driver::new(self.shared, self.client, self.recorder, begin)
                .run(self.index)
                .await
        });
        runtime.shutdown_background();
        recorder
    }
}

/// Shows how far a run is; on a terminal only.
async fn show(shared: &Shared, begin: Instant, over: &CancellationToken) {
    let style =
        ProgressStyle::with_template("{bar:40} {elapsed_precise} {msg}").expect("the template is a constant");
    let bar = ProgressBar::new(shared.end.as_millis() as u64).with_style(style);
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = 0;
    loop {
        tokio::select! {
            biased;
            () = over.cancelled() => break,
            _ = ticks.tick(), if !bar.is_hidden() => {}
        }
        let answered = shared.answered.load(Ordering::Relaxed);
        let rate = (answered - before) as f64 / REFRESH.as_secs_f64();
        before = answered;
        bar.set_message(format!("{answered} answered, {rate:.0}/s"));
        bar.set_position(begin.elapsed().as_millis() as u64);
    }
    bar.finish_and_clear();
}

/// Processor time of this process so far.
fn cpu_time() -> Duration {
    let of = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec().unsigned_abs())
            + Duration::from_micros(value.tv_usec().unsigned_abs())
    };
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        of(usage.user_time()) + of(usage.system_time())
    })
}
