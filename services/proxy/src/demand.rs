//! What this proxy's callers ask of a deployment, which requests ended, and when the controller is to hear of it. Pure.
//!
//! A request counts from its place in a pool until the place is dropped, whatever it does in between: it prepares, waits,
//! draws, streams, starts again. So the count is that of the requests there are, not of the calls that somebody saw begin.
//!
//! It refuses to send anything and to read a clock: times are lengths since any fixed point of the caller's.
//!
//! Invariants: of every place there is one part, waiting or running; with no places everything is zero; at most
//! [`FINISHED_MAX`] ended requests are kept, the newest.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use mobula_proto::control::v1 as pb;
use mobula_serving::route::Cost;

/// Ended requests in one report, as the contract says.
const FINISHED_MAX: usize = 256;
/// Two reports are never closer: those who ask within it for what has no replica need one report.
const GAP: Duration = Duration::from_millis(10);
/// How often demand is reported when the table does not say.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often it is reported, at most, that nothing is asked: a mean moves as well by few points, for each holds until the next.
const QUIET_INTERVAL: Duration = Duration::from_secs(1);
/// How long load that is over counts when the table does not say: Ray's default `look_back_period_s`.
const LOOK_BACK: Duration = Duration::from_secs(30);
/// The controller dates a report when it comes; one that was late leaves its window later.
const SLACK: Duration = Duration::from_secs(1);

/// The requests of one deployment.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    places: u32,
    running: u32,
    /// Rows of those that have no replica. Wide enough for any number of requests of any cost.
    waiting_rows: u128,
    /// Rows that the replicas have not computed of the others.
    running_rows: u128,
    /// Requests by the model that they name.
    models: BTreeMap<Arc<str>, u32>,
    /// Somebody asked, ever.
    was_asked: bool,
}

impl Tally {
    /// A request comes.
    pub(crate) fn enter(&mut self, cost: Cost, model: Option<&Arc<str>>) {
        self.was_asked = true;
        self.places += 1;
        self.waiting_rows += u128::from(cost.get());
        if let Some(model) = model {
            *self.models.entry(Arc::clone(model)).or_default() += 1;
        }
    }

    /// A request that waits turns out to cost something else.
    pub(crate) fn settle(&mut self, before: Cost, now: Cost) {
        self.waiting_rows -= u128::from(before.get());
        self.waiting_rows += u128::from(now.get());
    }

    /// A request that waits goes.
    pub(crate) fn leave(&mut self, cost: Cost, model: Option<&Arc<str>>) {
        self.places -= 1;
        self.waiting_rows -= u128::from(cost.get());
        if let Some(model) = model
            && let Some(count) = self.models.get_mut(model)
        {
            *count -= 1;
            if *count == 0 {
                self.models.remove(model);
            }
        }
    }

    /// A request that waited goes to a replica.
    pub(crate) fn take(&mut self, cost: Cost) {
        self.running += 1;
        self.waiting_rows -= u128::from(cost.get());
        self.running_rows += u128::from(cost.get());
    }

    /// A replica computed rows.
    pub(crate) fn progress(&mut self, rows: u64) {
        self.running_rows -= u128::from(rows);
    }

    /// A request comes back from a replica that has computed all but `rows_left` of it.
    pub(crate) fn give_back(&mut self, cost: Cost, rows_left: u64) {
        self.running -= 1;
        self.running_rows -= u128::from(rows_left);
        self.waiting_rows += u128::from(cost.get());
    }

    /// Requests that have no replica.
    pub(crate) fn queued(&self) -> u32 {
        self.places - self.running
    }

    /// Requests at replicas.
    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    /// True when there is no request.
    pub(crate) fn is_idle(&self) -> bool {
        self.places == 0
    }

    /// What is asked, in the words of the contract but for the names; `None` when nobody ever asked. A row takes `row_ns`.
    pub(crate) fn demand(&self, row_ns: u64) -> Option<pb::Demand> {
        let rows = (self.waiting_rows + self.running_rows) as f64;
        self.was_asked.then(|| pb::Demand {
            queued: self.queued(),
            running: self.running,
            work_s: rows * row_ns as f64 / 1e9,
            models: self
                .models
                .iter()
                .map(|(model, count)| (model.as_ref().to_owned(), *count))
                .collect(),
            ..pb::Demand::default()
        })
    }
}

/// Requests that ended and were not told yet.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    newest: VecDeque<pb::FinishedRequest>,
    /// How many were dropped for newer ones.
    dropped: u64,
}

impl Finished {
    /// A request ended.
    pub(crate) fn push(&mut self, request: pb::FinishedRequest) {
        if self.newest.len() == FINISHED_MAX {
            self.newest.pop_front();
            self.dropped += 1;
        }
        self.newest.push_back(request);
    }

    /// True when all were told.
    pub(crate) fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// Takes all that are kept, the oldest first, and how many were dropped.
    pub(crate) fn take(&mut self) -> (Vec<pb::FinishedRequest>, u64) {
        (
            std::mem::take(&mut self.newest).into(),
            std::mem::take(&mut self.dropped),
        )
    }
}

/// What happened since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stir {
    /// Nothing.
    #[default]
    Nothing,
    /// A request came or ended.
    Asked,
    /// A deployment without replicas was asked for.
    Cold,
}

impl From<u8> for Stir {
    fn from(level: u8) -> Self {
        match level {
            0 => Self::Nothing,
            1 => Self::Asked,
            _ => Self::Cold,
        }
    }
}

/// How long reports are apart and go on, as a table says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Between two reports.
    pub(crate) interval: Duration,
    /// How long load that is over counts.
    pub(crate) look_back: Duration,
}

impl Pace {
    /// Reads a table's milliseconds, of which 0 says nothing.
    pub(crate) fn new(report_interval_ms: u32, look_back_ms: u64) -> Self {
        Self {
            interval: match report_interval_ms {
                0 => INTERVAL,
                millis => Duration::from_millis(millis.into()).max(GAP),
            },
            look_back: match look_back_ms {
                0 => LOOK_BACK,
                millis => Duration::from_millis(millis),
            },
        }
    }
}

/// When to report.
///
/// Silence moves no mean: after the last request, reports go on until none with load is left in the window over which the
/// controller looks back, as those of Ray's handles always do.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// When it was reported last.
    sent: Option<Duration>,
    /// When it was reported last that there were requests.
    busy: Option<Duration>,
}

impl Schedule {
    /// When the next report is due, if one is; a time that is over means now.
    pub(crate) fn due(&self, stir: Stir, pace: Pace) -> Option<Duration> {
        let after = |gap| self.sent.map_or(Duration::ZERO, |sent| sent + gap);
        match stir {
            Stir::Cold => Some(after(GAP)),
            Stir::Asked => Some(after(pace.interval)),
            Stir::Nothing if self.busy == self.sent => self.busy.map(|_| after(pace.interval)),
            Stir::Nothing => {
                let counts = |busy: Duration| {
                    self.sent < Some(busy.saturating_add(pace.look_back).saturating_add(SLACK))
                };
                let is_left = self.busy.is_some_and(counts);
                is_left.then(|| after(pace.interval.max(QUIET_INTERVAL)))
            }
        }
    }

    /// A report was sent.
    pub(crate) fn sent(&mut self, now: Duration, is_busy: bool) {
        self.sent = Some(now);
        if is_busy {
            self.busy = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
