//! Tells the controller what is asked for, and which requests ended.
//!
//! A request never waits for a report: it counts itself in its pool, writes itself into a bounded list when it ends, and
//! stirs a [`Signal`]. One task reads all that when [`crate::demand::Schedule`] says so. With the controller away, numbers
//! are not kept: the next report says what is true then. Ended requests are: they go out on a stream that has carried a
//! report before, never on one that may not even have been opened.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures::stream;
use mobula_kit::{
    Backoff, Error,
    channel::{Dial, Link},
};
use mobula_proto::control::v1::{
    FinishedRequest, ReportDemandRequest, control_service_client::ControlServiceClient,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tonic::Status;

use crate::{
    clock::Clock,
    demand::{Finished, Schedule, Stir},
    follow::{REDIAL_FIRST, REDIAL_LAST},
    metrics::Metrics,
    table::Fleet,
};

/// A stream that lived so long was a good one: the next loss is a new one.
const STEADY: Duration = Duration::from_secs(1);

/// Told when there is something to report.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// The strongest [`Stir`] since the last report.
    level: AtomicU8,
    notify: Notify,
}

impl Signal {
    /// Something happened. Costs next to nothing when as much happened before.
    pub(crate) fn stir(&self, stir: Stir) {
        let level = stir as u8;
        if self.level.fetch_max(level, Ordering::AcqRel) < level {
            self.notify.notify_one();
        }
    }

    fn level(&self) -> Stir {
        self.level.load(Ordering::Acquire).into()
    }

    /// What is counted from now on stirs anew.
    fn calm(&self) {
        self.level.store(0, Ordering::Release);
    }
}

/// The requests that ended; a cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    finished: Arc<Mutex<Finished>>,
    signal: Arc<Signal>,
}

impl Records {
    /// None yet.
    pub(crate) fn new(signal: Arc<Signal>) -> Self {
        Self {
            finished: Arc::default(),
            signal,
        }
    }

    /// A request ended.
    pub(crate) fn push(&self, request: FinishedRequest) {
        self.with(|finished| finished.push(request));
        self.signal.stir(Stir::Asked);
    }

    /// Nothing under this lock can panic half-way.
    fn with<T>(&self, look: impl FnOnce(&mut Finished) -> T) -> T {
        look(&mut self.finished.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The reporter and what it reads.
pub(crate) struct Reporter {
    client: ControlServiceClient<Link>,
    proxy_id: String,
    fleet: Arc<Fleet>,
    records: Records,
    metrics: Arc<Metrics>,
    clock: Clock,
    schedule: Schedule,
    /// It was said that no report arrives.
    complained: bool,
}

impl Reporter {
    /// Will report to the controller at `address`, dialled as said.
    pub(crate) fn new(
        (address, dial): (&str, &Dial),
        proxy_id: String,
        (fleet, records): (Arc<Fleet>, Records),
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, Error> {
        Ok(Self {
            client: ControlServiceClient::new(dial.link(address)?),
            proxy_id,
            fleet,
            records,
            metrics,
            clock,
            schedule: Schedule::default(),
            complained: false,
        })
    }

    /// Reports for ever, a draining proxy too: its requests still need replicas.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut backoff = Backoff::new(REDIAL_FIRST, REDIAL_LAST);
        loop {
            // No stream before there is something to say.
            self.due().await;
            let begun = Instant::now();
            let status = self.stream().await;
            // The last report may not have arrived.
            self.records.signal.stir(Stir::Asked);
            if begun.elapsed() >= STEADY {
                backoff.reset();
                self.complained = false;
            }
            if !std::mem::replace(&mut self.complained, true) {
                let why = status.message();
                tracing::debug!(why, "the controller does not hear what is asked for");
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// One stream of reports, until it ends.
    async fn stream(&mut self) -> Status {
        let (sender, mut receiver) = mpsc::channel(1);
        let reports = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let mut client = self.client.clone();
        let mut call = pin!(client.report_demand(reports));
        let ended = |ended: Result<_, Status>| match ended {
            Ok(_) => Status::unavailable("the controller ended the stream"),
            Err(status) => status,
        };
        let mut is_proven = false;
        loop {
            tokio::select! {
                biased;
                end = &mut call => return ended(end),
                () = self.due() => {}
            }
            // A controller that is slow to read gets the newest numbers when it comes.
            let room = tokio::select! {
                biased;
                end = &mut call => return ended(end),
                room = sender.reserve() => room,
            };
            let Ok(room) = room else {
                // The call has dropped its side: it is about to end.
                return ended((&mut call).await);
            };
            room.send(self.report(is_proven));
            is_proven = true;
            self.metrics.reports.increment(1);
        }
    }

    /// Waits until a report is due.
    async fn due(&self) {
        let signal = &self.records.signal;
        loop {
            let due = self.schedule.due(signal.level(), self.fleet.pace());
            let wait = async {
                match due {
                    Some(due) if due <= self.clock.now() => {}
                    Some(due) => tokio::time::sleep_until(self.clock.at(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = wait => return,
                () = signal.notify.notified() => {}
            }
        }
    }

    fn report(&mut self, is_proven: bool) -> ReportDemandRequest {
        // Before the numbers are read: what comes while they are read is told next time.
        self.records.signal.calm();
        let (demands, restrained) = (self.fleet.demands(), self.fleet.restrained());
        let (finished, dropped) = if is_proven {
            self.records.with(Finished::take)
        } else {
            Default::default()
        };
        self.metrics.untold.increment(dropped);
        let is_left = self.records.with(|finished| !finished.is_empty());
        let is_busy = is_left || demands.iter().any(|demand| demand.queued + demand.running > 0);
        self.schedule.sent(self.clock.now(), is_busy);
        ReportDemandRequest {
            proxy_id: self.proxy_id.clone(),
            demands,
            finished,
            restrained,
        }
    }
}
