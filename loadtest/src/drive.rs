//! One thread's part of a run: sends what is due, records what comes. Shares nothing with other threads but a few counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Client, Picture};
use crate::pace::Pacer;
use crate::plan::Schedule;
use crate::record::{Ending, Kind, Recorder, Sample};
use crate::verify::{Book, Check};
use crate::{Error, Mix};

/// How long a caller of a closed loop waits after a failure: without it, refusals would be counted by the thousand.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// What is due is sent without a pause up to so many; then answers get their turn.
const TURN: u32 = 64;
/// Longer than this the answers of the last requests are not waited for, beyond the request's own timeout.
const GRACE: Duration = Duration::from_secs(1);

/// What all threads of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mix: Mix,
    pub(crate) book: Book,
    pub(crate) load: Load,
    pub(crate) timeout: Duration,
    /// Requests in flight of one thread at most.
    pub(crate) max_in_flight: u64,
    pub(crate) threads: u64,
    /// No request is due from here on, counted from the start.
    pub(crate) end: Duration,
    /// Ends that a progress bar shows.
    pub(crate) answered: AtomicU64,
    pub(crate) stop: CancellationToken,
}

/// What decides when requests are sent.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    /// A schedule, whatever comes back.
    Open(Schedule),
    /// So many callers, each waiting for its answer.
    Closed(u64),
}

/// One thread.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    client: Arc<Client>,
    recorder: Arc<Mutex<Recorder>>,
    begin: Instant,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, client: Client, recorder: Recorder, begin: Instant) -> Self {
        Self {
            shared,
            client: Arc::new(client),
            recorder: Arc::new(Mutex::new(recorder)),
            begin,
        }
    }

    /// Runs part `index` of the load and gives back what it recorded.
    pub(crate) async fn run(self, index: u64) -> Result<Recorder, Error> {
        let tasks = TaskTracker::new();
        match &self.shared.load {
            Load::Open(schedule) => self.open(schedule, index, &tasks).await?,
            Load::Closed(callers) => {
                for caller in (index..*callers).step_by(self.shared.threads as usize) {
                    tasks.spawn(self.clone().caller(caller, *callers));
                }
            }
        }
        tasks.close();
        let patience = self.shared.timeout + GRACE;
        let last = async {
            let left = self.shared.end.saturating_sub(self.begin.elapsed());
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => sleep(GRACE).await,
                () = sleep(left + patience) => {}
            }
        };
        tokio::select! {
            biased;
            () = tasks.wait() => {}
            () = last => {}
        }
        // Tasks that are left end with the runtime; they have no end in the report.
        let recorder = self.lock().clone();
        Ok(recorder)
    }

    /// Every request leaves when it is due, whatever came back.
    async fn open(&self, schedule: &Schedule, index: u64, tasks: &TaskTracker) -> Result<(), Error> {
        let timer = |source| Error::System {
            what: "use a timer".into(),
            source,
        };
        let mut pacer = Pacer::new().map_err(timer)?;
        let in_flight = Arc::new(AtomicU64::new(0));
        let mut turn = 0u32;
        for due in schedule.walk(index, self.shared.threads) {
            if due.at >= self.shared.end {
                break;
            }
            let moment = self.begin + due.at;
            if moment > Instant::now() {
                turn = 0;
                tokio::select! {
                    biased;
                    () = self.shared.stop.cancelled() => return Ok(()),
                    waited = pacer.until(moment) => waited.map_err(timer)?,
                }
            } else {
                turn += 1;
                if turn.is_multiple_of(TURN) {
                    tokio::task::yield_now().await;
                    if self.shared.stop.is_cancelled() {
                        return Ok(());
                    }
                }
            }
            let (card, class) = self.shared.mix.pick(due.number, due.class);
            self.lock().due(due.at, class);
            if in_flight.load(Ordering::Relaxed) >= self.shared.max_in_flight {
                self.lock().unsent(due.at, class);
                continue;
            }
            in_flight.fetch_add(1, Ordering::Relaxed);
            let driver = self.clone();
            let in_flight = Arc::clone(&in_flight);
            tasks.spawn(async move {
                driver.draw(card, class, due.at).await;
                in_flight.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(())
    }

    /// Asks again as soon as it was answered.
    async fn caller(self, caller: u64, callers: u64) {
        let mut number = caller;
        loop {
            let due = self.begin.elapsed();
            if due >= self.shared.end || self.shared.stop.is_cancelled() {
                return;
            }
            let (card, class) = self.shared.mix.pick(number, None);
            self.lock().due(due, class);
            if self.draw(card, class, due).await != Kind::Right {
                sleep(REFUSED_PAUSE).await;
            }
            number += callers;
        }
    }

    async fn draw(&self, card: usize, class: usize, due: Duration) -> Kind {
        let sent = self.begin.elapsed();
        let reply = self.client.draw(card, self.shared.timeout).await;
        let done = self.begin.elapsed();
        let ending = match reply {
            Ok(picture) => judge(&self.shared, card, picture).await,
            Err(ending) => ending,
        };
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
        let sample = Sample {
            class,
            due,
            sent,
            done,
        };
        self.lock().end(&sample, &ending);
        ending.kind
    }

    fn lock(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().expect("nothing panics while it records")
    }
}

/// Whether a picture is the right one. Decoding is work, and is done where no request waits for it.
pub(crate) async fn judge(shared: &Arc<Shared>, card: usize, picture: Picture) -> Ending {
    let bytes = picture.data.len();
    let wrong = |label| Ending::other(Kind::Wrong, label);
    match shared.book.check(card, &picture.data) {
        Check::Right => Ending::right(bytes),
        Check::Differs => wrong("differs"),
        Check::NoPicture => wrong("no picture"),
        Check::Prove => {
            let shared = Arc::clone(shared);
            let proof = tokio::task::spawn_blocking(move || {
                let size = shared.mix.card(card).class.size;
                shared.book.prove(card, &picture.data, size, &picture.claimed)
            });
            match proof.await {
                Ok(Ok(())) => Ending::right(bytes),
                Ok(Err(why)) => wrong(why),
                Err(_) => wrong("does not decode"),
            }
        }
    }
}
