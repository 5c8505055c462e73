//! Who of one group comes first.
//!
//! By class; inside a class those whose deadline can still be met, the earliest first; then those without a deadline, by what
//! is left of them and when they came; behind everybody those whose deadline cannot be met any more.
//!
//! Not every deadline that one request alone could meet can be met beside other groups and other requests. Who could not
//! even by running in each call of its group steps back behind its class; and while the rest does not fit together, so does
//! the one with the most work left, which leaves the largest number in time (Moore 1968, "An n job, one machine sequencing
//! algorithm for minimizing the number of late jobs"): finishing some beats advancing all. Who is nearly done has little
//! left, so it is rarely the one.
//!
//! Those without a deadline stand by arrival + stretch x time left: a short request overtakes a long one that came a little
//! before it, and nobody who comes later than stretch x time left overtakes at all. It changes only as work is done, so there
//! is no thrashing. Age lifts the low class to the normal one, and gives those that waited for too long some of the turns,
//! whatever else waits; not more, because under lasting overload all wait for long, and then first come first served would
//! be all that is left. A deadline is an urgency of its own: age counts for those without one, and those that miss theirs.
//!
//! Invariant: the order is total and depends on nothing but its arguments.

use std::collections::BinaryHeap;

use super::{Candidate, Class, Steps, nanos};

/// A candidate with its place in line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Smaller comes first.
    level: u8,
    /// Smaller comes first, inside a level.
    key: u64,
    request: u64,
    order: u64,
    /// Place in the candidates.
    pub(super) index: u32,
    /// Row-calls that are left, and what they take without a break, in nanoseconds.
    work: u64,
    left: u64,
    /// Nanoseconds.
    deadline: u64,
}

/// What the order depends on besides the candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene {
    /// Nanoseconds.
    pub(super) now: u64,
    /// Predicted nanoseconds from one call of the group to its next when it has the device to itself.
    pub(super) tick: u64,
    /// Rows of such a call.
    pub(super) rows: u64,
    /// The part of the device that is the group's: `share.0` of `share.1`.
    pub(super) share: (u64, u64),
    /// Whether this call goes to those that are overdue first.
    pub(super) oldest: bool,
}

/// Who has waited so many times what lifts the low class is overdue.
const OVERDUE: u64 = 2;
/// The level of those that waited longest, when it is their turn.
const OLDEST: u8 = 0;
/// The first level of the highest class; each class has three.
const FIRST: u8 = 1;
const BANDS: u8 = 3;
/// The bands of a class: a deadline, a deadline that steps back, none.
const AHEAD: u8 = 0;
const BACK: u8 = 1;
const OPEN: u8 = 2;
/// The first level of those that are late whatever happens, behind all classes.
const HOPELESS: u8 = FIRST + 3 * BANDS;

/// Memory of the order, reused.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) entries: Vec<Entry>,
    /// Work and place in `entries` of those that have a deadline, the most work on top.
    kept: BinaryHeap<(u64, u32)>,
}

impl Line {
    /// Empties the line, and makes room for so many.
    pub(super) fn clear(&mut self, candidates: usize) {
        self.entries.clear();
        self.kept.clear();
        self.entries.reserve(candidates);
        self.kept.reserve(candidates);
    }

    /// Puts a candidate in line.
    pub(super) fn push(&mut self, index: u32, candidate: &Candidate, steps: &Steps, scene: &Scene) {
        let left = scene.tick.saturating_mul(u64::from(candidate.calls_left));
        let arrived = nanos(candidate.arrived);
        let stretched = left.saturating_mul(u64::from(steps.stretch));
        let deadline = candidate.deadline.map_or(u64::MAX, nanos);
        let hopeless = scene.now.saturating_add(left) > deadline;
        let lifts = if candidate.deadline.is_none() || hopeless {
            let step = nanos(steps.patience).saturating_add(stretched);
            scene.now.saturating_sub(arrived) / step.max(1)
        } else {
            0
        };
        let level = if lifts >= OVERDUE && scene.oldest {
            OLDEST
        } else {
            let above = match candidate.class {
                Class::High => 0,
                Class::Low if lifts == 0 => 2,
                Class::Normal | Class::Low => 1,
            };
            match candidate.deadline {
                _ if hopeless => HOPELESS + above,
                Some(_) => FIRST + above * BANDS + AHEAD,
                None => FIRST + above * BANDS + OPEN,
            }
        };
        let key = match band(level) {
            _ if level == OLDEST => arrived,
            Some(AHEAD) => deadline,
            _ => arrived.saturating_add(stretched),
        };
        self.entries.push(Entry {
            level,
            key,
            request: candidate.request,
            order: candidate.order,
            index,
            work: u64::from(candidate.calls_left).saturating_mul(candidate.rows as u64),
            deadline,
            left,
        });
    }

    /// Puts all in order.
    pub(super) fn sort(&mut self, scene: &Scene) {
        self.entries.sort_unstable_by_key(Entry::place);
        if self.step_back(scene) {
            self.entries.sort_unstable_by_key(Entry::place);
        }
    }

    /// Makes those step back with whom not all deadlines can be met; true when somebody did. The pictures of one request,
    /// which stand side by side, do so together: a part of them in time is worth nothing.
    fn step_back(&mut self, scene: &Scene) -> bool {
        let (mut level, mut work, mut any, mut next) = (0, 0_u64, false, 0);
        while let Some(entry) = self.entries.get(next).copied() {
            let Some(band) = band(entry.level) else { break };
            if entry.level != level {
                // Nobody steps back for a lower class.
                level = entry.level;
                self.kept.clear();
            }
            let begin = next;
            next = self.end(begin);
            let request = &self.entries[begin..next];
            let whole = request
                .iter()
                .fold(0, |sum: u64, one| sum.saturating_add(one.work));
            let left = request.iter().map(|one| one.left).max().unwrap_or(0);
            work = work.saturating_add(whole);
            if band != AHEAD {
                continue;
            }
            if scene.runs_late(left, entry.deadline) {
                work = work.saturating_sub(whole);
                any = true;
                self.send_back(begin, whole);
                continue;
            }
            self.kept.push((whole, begin as u32));
            while scene.overruns(work, entry.deadline)
                && let Some((most, index)) = self.kept.pop()
            {
                work = work.saturating_sub(most);
                any = true;
                self.send_back(index as usize, most);
            }
        }
        any
    }

    /// The end of the request that begins at a place.
    fn end(&self, begin: usize) -> usize {
        let first = self.entries[begin];
        let same =
            |one: &&Entry| (one.level, one.key, one.request) == (first.level, first.key, first.request);
        begin + self.entries[begin..].iter().take_while(same).count()
    }

    /// Puts a request behind those of its class that will be in time, the least work first.
    fn send_back(&mut self, begin: usize, work: u64) {
        let end = self.end(begin);
        for entry in &mut self.entries[begin..end] {
            entry.level += BACK - AHEAD;
            entry.key = work;
        }
    }
}

impl Entry {
    fn place(&self) -> (u8, u64, u64, u64, u32) {
        (self.level, self.key, self.request, self.order, self.index)
    }
}

impl Scene {
    /// Whether a trajectory ends after its deadline when it is in every call of the group, with the group's part of the device.
    fn runs_late(&self, left: u64, deadline: u64) -> bool {
        let (part, whole) = self.share;
        let needed = u128::from(left) * u128::from(whole);
        needed > u128::from(deadline.saturating_sub(self.now)).saturating_mul(u128::from(part))
    }

    /// Whether so many row-calls take longer than the time to a deadline.
    fn overruns(&self, work: u64, deadline: u64) -> bool {
        let left = u128::from(deadline.saturating_sub(self.now));
        // work x tick / (rows x share) > left, without the division.
        let needed = u128::from(work) * u128::from(self.tick);
        let (part, whole) = self.share;
        needed.saturating_mul(u128::from(whole)) > left.saturating_mul(u128::from(self.rows * part))
    }
}

/// The band of a level of those that can still be in time; `None` for the others.
fn band(level: u8) -> Option<u8> {
    match level {
        OLDEST => Some(OPEN),
        FIRST..HOPELESS => Some((level - FIRST) % BANDS),
        _ => None,
    }
}
