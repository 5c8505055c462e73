//! Which replica a request goes to: power of two choices on predicted wait.
//!
//! A [`Book`] is what one router knows of one replica: the work it sent there itself (exact), the work of others (from
//! the replica's reports, worn down with time) and whether the replica may be asked at all. [`pick`] draws two replicas
//! at random and takes the one with the shorter predicted wait, which spreads load nearly as well as the best of all
//! without making every router run to the same one.
//!
//! A replica that fails what it takes is left out for a while ([`health`]), one that is new or comes back gets its share bit
//! by bit ([`Book::rank`]), and those that are near come first ([`tiers`]).
//!
//! It refuses to open connections and to read a clock: time is a [`Duration`] since any fixed point of the caller's.
//!
//! Invariants: a replica that is full, or that is being left alone after a fault, is never picked; of two that may be
//! asked the one that ranks behind is never picked; a replica is never left idle for being new while a request waits.

pub mod health;
mod restraint;
pub mod tiers;

use std::time::Duration;

use rand::Rng;

use self::health::Health;
pub use self::restraint::Restraint;

/// A replica that said it is full is asked again after this long, then twice as long each time it says so again. The
/// other routers' requests that filled it end within a few denoising steps at the earliest.
const FULL_FIRST: Duration = Duration::from_millis(10);
/// The longest such pause; half a second is what Ray's router backs off to.
const FULL_LAST: Duration = Duration::from_millis(500);
/// A replica that could not be reached is left alone for this long, then twice as long each time. Short at first: a
/// reset connection to a replica that lives is repaired by the next dial.
const FAULT_FIRST: Duration = Duration::from_millis(100);
/// The longest such pause; by then the controller has noticed a dead worker and taken it off the table.
const FAULT_LAST: Duration = Duration::from_secs(5);

/// A replica that is new is taken for so many times busier than it is, at first: Envoy's least weight of a tenth.
const NEW: f64 = 10.0;
/// Rows of a usual request, twenty steps with guidance: what it means to be busier, or far, where that is a matter of
/// requests and not of rows.
pub const USUAL_ROWS: u64 = 40;

/// What a request asks of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Pictures.
    pub images: u32,
    /// True when classifier-free guidance doubles the rows.
    pub guided: bool,
    /// Denoising steps.
    pub steps: u32,
    /// Pixels of one picture.
    pub pixels: u64,
    /// Pixels of a picture at the model's native size, for which the seconds per row were measured.
    pub native_pixels: u64,
}

/// Cost of a request: rows x steps x pixels, in rows of the model's native size, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(u64);

impl Cost {
    /// One row, the least.
    pub const ROW: Self = Self(1);

    /// Costs `work`.
    pub fn of(work: Work) -> Self {
        let rows = u64::from(work.images) * u64::from(work.steps) * if work.guided { 2 } else { 1 };
        let native = u128::from(work.native_pixels.max(1));
        let scaled = (u128::from(rows) * u128::from(work.pixels)).div_ceil(native);
        Self::rows(u64::try_from(scaled).unwrap_or(u64::MAX))
    }

    /// A cost of so many rows, at least 1.
    pub fn rows(rows: u64) -> Self {
        Self(rows.max(1))
    }

    /// In rows.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Time that the rows take when one takes `row_ns` nanoseconds.
    pub fn time(self, row_ns: u64) -> Duration {
        Duration::from_nanos(self.0.saturating_mul(row_ns))
    }
}

/// How busy a replica says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Rows that it still has to compute, this router's among them.
    pub queued_rows: u64,
    /// Nanoseconds per row; 0 before it measured.
    pub row_ns: u64,
}

/// Predicted wait of the next request at a replica; orders replicas from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    /// Nanoseconds until the work that is there now is done.
    pub ns: u64,
    /// This router's requests there, to choose between replicas that have measured nothing.
    pub ongoing: u32,
}

/// A pause that doubles with every strike and is forgotten by a success.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pause {
    until: Duration,
    next: Option<Duration>,
}

impl Pause {
    /// Begins a pause, unless one is running: many requests lost at one moment are one fault.
    fn strike(&mut self, now: Duration, first: Duration, last: Duration) {
        if now < self.until {
            return;
        }
        let length = self.next.unwrap_or(first);
        self.until = now + length;
        self.next = Some((length * 2).min(last));
    }

    /// Begins the pause of something that said that it is full.
    pub fn full(&mut self, now: Duration) {
        self.strike(now, FULL_FIRST, FULL_LAST);
    }

    /// True when none runs.
    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    /// When the last one ends, or ended.
    pub fn until(&self) -> Duration {
        self.until
    }
}

/// What one router knows of one replica.
#[derive(Debug, Clone)]
pub struct Book {
    max_ongoing: u32,
    ongoing: u32,
    own_rows: u64,
    other_rows: u64,
    row_ns: u64,
    /// When `row_ns` became what it is.
    measured_at: Option<Duration>,
    reported_at: Duration,
    full: Pause,
    fault: Pause,
    health: Health,
    /// When it began to be new, and for how long it is.
    new: Option<(Duration, Duration)>,
}

impl Book {
    /// A replica of which nothing is known but that it takes `max_ongoing` requests at a time (0 is taken as 1).
    pub fn new(max_ongoing: u32) -> Self {
        Self {
            max_ongoing: max_ongoing.max(1),
            ongoing: 0,
            own_rows: 0,
            other_rows: 0,
            row_ns: 0,
            measured_at: None,
            reported_at: Duration::ZERO,
            full: Pause::default(),
            fault: Pause::default(),
            health: Health::default(),
            new: None,
        }
    }

    /// Its share grows for `length` from `now` on: caches are cold, and what others know of it is nothing.
    pub fn begin(&mut self, now: Duration, length: Duration) {
        self.new = (!length.is_zero()).then_some((now, length));
    }

    /// Changes how many requests the replica takes at a time; those it has are kept.
    pub fn set_max_ongoing(&mut self, max_ongoing: u32) {
        self.max_ongoing = max_ongoing.max(1);
    }

    /// Takes in what the replica says. What exceeds this router's own work is the work of others.
    pub fn report(&mut self, report: Report, now: Duration) {
        self.other_rows = report.queued_rows.saturating_sub(self.own_rows);
        // A replica that measures nothing says the same again and again.
        if report.row_ns > 0 && report.row_ns != self.row_ns {
            self.row_ns = report.row_ns;
            self.measured_at = Some(now);
        }
        self.reported_at = now;
    }

    /// Counts a request that is sent to the replica.
    pub fn take(&mut self, cost: Cost) {
        self.ongoing += 1;
        self.own_rows = self.own_rows.saturating_add(cost.get());
    }

    /// Uncounts rows that the replica has computed of this router's requests.
    pub fn progress(&mut self, rows: u64) {
        self.own_rows = self.own_rows.saturating_sub(rows);
    }

    /// Uncounts a request, with the rows of it that were not computed.
    pub fn give_back(&mut self, rows_left: u64) {
        self.ongoing = self.ongoing.saturating_sub(1);
        self.own_rows = self.own_rows.saturating_sub(rows_left);
    }

    /// The replica took a request: what it was accused of is over.
    pub fn accepted(&mut self) {
        self.full = Pause::default();
        self.fault = Pause::default();
    }

    /// The replica said it is full, though by this router's count it is not.
    pub fn refused(&mut self, now: Duration) {
        self.full.full(now);
    }

    /// The replica could not be reached, or broke off.
    pub fn failed(&mut self, now: Duration) {
        self.fault.strike(now, FAULT_FIRST, FAULT_LAST);
    }

    /// The replica did what it took.
    pub fn did(&mut self) {
        self.health.did();
    }

    /// The replica failed what it took. True when it had better be left out.
    pub fn broke(&mut self) -> bool {
        self.health.failed()
    }

    /// Leaves it out for a while, and brings it back slowly over `length` then; gives until when it is out.
    pub fn leave_out(&mut self, now: Duration, length: Duration) -> Duration {
        let until = self.health.leave_out(now);
        self.begin(until, length);
        until
    }

    /// It is left out.
    pub fn is_out(&self, now: Duration) -> bool {
        self.health.is_out(now)
    }

    /// Requests that may be sent now; to one that is left out as well when `all` are wanted.
    pub fn free(&self, now: Duration, all: bool) -> u32 {
        if self.full.is_over(now) && self.is_reachable(now) && (all || !self.is_out(now)) {
            self.max_ongoing.saturating_sub(self.ongoing)
        } else {
            0
        }
    }

    /// False while it is left alone after a fault.
    pub fn is_reachable(&self, now: Duration) -> bool {
        self.fault.is_over(now)
    }

    /// When a pause ends that keeps the replica from being asked, if one runs.
    pub fn paused_until(&self, now: Duration) -> Option<Duration> {
        let until = self.full.until.max(self.fault.until).max(self.health.until());
        (until > now).then_some(until)
    }

    /// This router's requests there.
    pub fn ongoing(&self) -> u32 {
        self.ongoing
    }

    /// Nanoseconds per row as measured; 0 before.
    pub fn measured_row_ns(&self) -> u64 {
        self.row_ns
    }

    /// When the nanoseconds per row were last measured, as far as the reports show; `None` before.
    pub fn measured_at(&self) -> Option<Duration> {
        self.measured_at
    }

    /// The wait by which the replica is compared with others: as it is, and longer while it is new.
    pub fn rank(&self, now: Duration, typical_row_ns: u64) -> Wait {
        let wait = self.wait(now, typical_row_ns);
        let Some((since, length)) = self.new else {
            return wait;
        };
        let passed = now.saturating_sub(since).as_secs_f64() / length.as_secs_f64();
        if passed >= 1.0 {
            return wait;
        }
        let times = 1.0 / passed.max(1.0 / NEW);
        // One that has nothing to do would be first however many times that is taken.
        let request = USUAL_ROWS.saturating_mul(self.row_ns(typical_row_ns));
        let ns = wait.ns.saturating_add(request) as f64 * times - request as f64;
        Wait {
            ns: ns as u64,
            ..wait
        }
    }

    /// Time per row: measured, or what stands in for it.
    fn row_ns(&self, typical: u64) -> u64 {
        if self.row_ns > 0 {
            self.row_ns
        } else {
            typical.max(1)
        }
    }

    /// Predicts the wait. `typical_row_ns` stands in while the replica has measured nothing; others' rows are worn down
    /// by the rows that it has computed since its report.
    pub fn wait(&self, now: Duration, typical_row_ns: u64) -> Wait {
        let row_ns = self.row_ns(typical_row_ns);
        let since = now.saturating_sub(self.reported_at).as_nanos() / u128::from(row_ns);
        let others = self
            .other_rows
            .saturating_sub(u64::try_from(since).unwrap_or(u64::MAX));
        Wait {
            ns: others.saturating_add(self.own_rows).saturating_mul(row_ns),
            ongoing: self.ongoing,
        }
    }
}

/// Picks one of `count` replicas by power of two choices; `wait` gives a replica's wait, or `None` when it may not be
/// asked. `None` when none may be asked.
pub fn pick<R: Rng + ?Sized>(
    count: usize,
    rng: &mut R,
    mut wait: impl FnMut(usize) -> Option<Wait>,
) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let first = rng.random_range(0..count);
    if count == 1 {
        return wait(0).map(|_| 0);
    }
    let second = (first + 1 + rng.random_range(0..count - 1)) % count;
    match (wait(first), wait(second)) {
        (Some(a), Some(b)) => Some(if b < a { second } else { first }),
        // One of the two may not be asked: the next one that may is the second choice.
        (Some(a), None) => Some(better(first, a, second, count, &mut wait)),
        (None, Some(b)) => Some(better(second, b, first, count, &mut wait)),
        (None, None) => {
            let start = rng.random_range(0..count);
            let mut open = (0..count).map(|i| (start + i) % count);
            let (found, a) = open.find_map(|i| wait(i).map(|w| (i, w)))?;
            let second = open.find_map(|i| wait(i).map(|w| (i, w)));
            Some(match second {
                Some((other, b)) if b < a => other,
                Some(_) | None => found,
            })
        }
    }
}

/// The better of `have` and the first other replica after `skip` that may be asked.
fn better(
    have: usize,
    a: Wait,
    skip: usize,
    count: usize,
    wait: &mut impl FnMut(usize) -> Option<Wait>,
) -> usize {
    (1..count)
        .map(|i| (skip + i) % count)
        .filter(|&i| i != have)
        .find_map(|i| wait(i).map(|w| (i, w)))
        .map_or(have, |(other, b)| if b < a { other } else { have })
}

#[cfg(test)]
mod tests;
