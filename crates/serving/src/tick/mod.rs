//! Which trajectories run in the next tick.
//!
//! A tick is one call of the denoiser, so all its rows are of one group: they fit one call. Groups take turns by what their
//! calls cost (`deficit`); inside a group the order is by class, deadline, work left and age (`order`). It knows nothing of
//! models, clocks or cancellation: the caller leaves out what must not run, and drops what is too late.
//!
//! Pre-empting is leaving a trajectory out: its state stays where it is, and nothing has to be saved or loaded.
//!
//! Invariants: a trajectory's rows are never split over two ticks; a tick has at most [`Group::cap`] rows unless one
//! trajectory alone has more; all rows are of one group, and of one timestep where the model needs it; a plan is empty only
//! when nothing is active; nothing is allocated once the buffers have grown to what is active.

use std::time::Duration;

use crate::curve::Curve;

pub(crate) mod deficit;
mod fifo;
mod order;
mod slots;

use deficit::Ring;
use fifo::Fifo;
use order::{Line, Scene};
use slots::Slots;

/// Every which tick of a group goes to those that are overdue first.
const OLDEST_EVERY: u32 = 8;
/// How many of its own calls a group with an urgent deadline may run ahead of its part of the device.
const DEBT_CALLS: u64 = 4;
/// What of a tick's rows goes into the mean fill of a group: about the last eight ticks.
const FILL_SHARE: f64 = 1.0 / 8.0;
/// How far the loop may be behind the predicted calls: three quarters of the time go elsewhere.
const MAX_PACE: f64 = 4.0;
/// What one tick moves the pace by, and how far one may stand from it before it is cut.
const PACE_SHARE: f64 = 1.0 / 16.0;
const PACE_CUT: f64 = 0.5;

/// Which timesteps the rows of one call may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timesteps {
    /// Each row its own.
    Mixed,
    /// One for all rows.
    Equal,
}

/// How much a request matters to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// Runs in the gaps that others leave; age lifts it.
    Low,
    /// Most requests.
    #[default]
    Normal,
    /// Runs before others of its group.
    High,
}

/// A trajectory that could run, as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Equal for trajectories whose rows fit one call: model, latent shape, length of the text, kind of conditioning,
    /// determinism. One that no [`Group`] has as key is never chosen.
    pub group: u64,
    /// Equal for trajectories that go through the same timesteps; only [`Policy::Fifo`] asks.
    pub grid: u64,
    /// Its rows in its next call: 2 with guidance, else 1.
    pub rows: usize,
    /// Calls until it is done; a second-order sampler has two for a step.
    pub calls_left: u32,
    /// How much it matters.
    pub class: Class,
    /// When its last call must have ended, on the clock of `now`: what comes after, as decoding, is taken off.
    pub deadline: Option<Duration>,
    /// When it came, on the same clock.
    pub arrived: Duration,
    /// Number of its request; smaller came earlier. Pictures of one request have it in common: they are late together.
    pub request: u64,
    /// Order of arrival, one number for each trajectory; smaller came earlier.
    pub order: u64,
    /// Bits of the timestep of its next call.
    pub timestep: u32,
}

/// What fits one call, and what that costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Names it to [`Candidate::group`].
    pub key: u64,
    /// Rows that one call may have.
    pub cap: usize,
    /// Its part of the device beside the other groups' weights: 1 for all means equal parts.
    pub weight: u32,
    /// How long its calls take.
    pub curve: Curve,
}

/// How trajectories are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Anew for every tick.
    Steps(Steps),
    /// Whole requests in batches of equals, first come first served: the baseline of a comparison.
    Fifo,
}

/// What the step policy can be tuned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// A request without a deadline is overtaken only by those that come within so many times the time it still needs.
    pub stretch: u32,
    /// A request of the low class counts as a normal one when it has waited so long, and `stretch` times what it still
    /// needs; any request is overdue after twice that, and has a part of the ticks to itself.
    pub patience: Duration,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            stretch: 16,
            patience: Duration::from_secs(10),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::Steps(Steps::default())
    }
}

/// What the next tick is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Key of its group.
    pub group: u64,
    /// Its rows.
    pub rows: usize,
    /// What it is predicted to take.
    pub cost: Duration,
    /// Whether it jumped the queue for a deadline.
    pub urgent: bool,
}

/// Whether work that takes so long, begun now and not interrupted, meets a deadline.
#[must_use]
pub fn feasible(now: Duration, deadline: Duration, work: Duration) -> bool {
    now.saturating_add(work) <= deadline
}

/// Remembers whose turn it is.
#[derive(Debug)]
pub struct Planner {
    policy: Policy,
    /// Elapsed over predicted time of a tick.
    pace: f64,
    slots: Slots,
    ring: Ring,
    line: Line,
    fifo: Fifo,
}

/// What all ticks of one call of [`Planner::plan`] have in common.
#[derive(Clone, Copy)]
struct Round<'a> {
    now: Duration,
    groups: &'a [Group],
    candidates: &'a [Candidate],
    timesteps: Timesteps,
}

impl Default for Planner {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl Planner {
    /// Makes a planner that has served nothing.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            pace: 1.0,
            slots: Slots::default(),
            ring: Ring::default(),
            line: Line::default(),
            fifo: Fifo::default(),
        }
    }

    /// Chooses the trajectories of the next tick: writes their indices in `candidates` to `chosen`, in the order of
    /// `candidates`. `None`, and nothing chosen, when there is none.
    ///
    /// `groups` has the group of every candidate, each key once; one that is left out is forgotten, with its turn.
    pub fn plan(
        &mut self,
        now: Duration,
        groups: &[Group],
        candidates: &[Candidate],
        timesteps: Timesteps,
        chosen: &mut Vec<usize>,
    ) -> Option<Plan> {
        // Room for all at once, so that the buffers grow only when there are more candidates than ever.
        chosen.clear();
        chosen.reserve(candidates.len());
        let round = Round {
            now,
            groups,
            candidates,
            timesteps,
        };
        self.slots.fill(groups, candidates, timesteps, self.pace);
        debug_assert!(
            self.slots.is_complete(),
            "a candidate's group is not among the groups"
        );
        match self.policy {
            Policy::Steps(steps) => self.step(&round, &steps, chosen),
            Policy::Fifo => self.whole(&round, chosen),
        }
    }

    /// Takes in how long it really was from the plan of a tick to the plan after it, while there was always something to do:
    /// what the text encoder, the decoder and other models took counts for the prediction of deadlines. Without it a tick
    /// is thought to take its call.
    pub fn elapsed(&mut self, predicted: Duration, elapsed: Duration) {
        if predicted.is_zero() {
            return;
        }
        let off = elapsed.as_secs_f64() / predicted.as_secs_f64() - self.pace;
        self.pace = (self.pace + off.clamp(-PACE_CUT, PACE_CUT) * PACE_SHARE).clamp(1.0, MAX_PACE);
    }

    fn step(&mut self, round: &Round<'_>, steps: &Steps, chosen: &mut Vec<usize>) -> Option<Plan> {
        let now = nanos(round.now);
        self.slots.enter(&mut self.ring);
        let (seat, urgent) = self.turn(now, round.candidates)?;
        let slot = self.ring.seats().get(seat)?.slot?;
        let load = self.slots.get(slot)?;
        let scene = Scene {
            now,
            tick: load.tick,
            rows: load.likely as u64,
            share: (load.weight, self.slots.weight()),
            oldest: load.ticks % OLDEST_EVERY == OLDEST_EVERY - 1,
        };
        self.line.clear(round.candidates.len());
        for (index, candidate) in round.candidates.iter().enumerate() {
            if self.slots.of(index) == Some(slot) {
                self.line.push(index as u32, candidate, steps, &scene);
            }
        }
        self.line.sort(&scene);
        let group = &round.groups[load.group as usize];
        let rows = fill(
            group,
            round,
            self.line.entries.iter().map(|entry| entry.index),
            chosen,
        );
        let cost = group.curve.predict(rows);
        self.ring.charge(seat, nanos(cost).max(1));
        self.slots.ran(slot, rows);
        Some(Plan {
            group: group.key,
            rows,
            cost,
            urgent,
        })
    }

    /// The seat whose group runs, and whether it jumped the queue.
    fn turn(&mut self, now: u64, candidates: &[Candidate]) -> Option<(usize, bool)> {
        let jumps = if self.slots.active() > 1 {
            self.urgent(now, candidates)
        } else {
            None
        };
        match jumps {
            Some(seat) => Some((seat, true)),
            None => Some((self.ring.next(self.slots.quantum())?, false)),
        }
    }

    /// The seat of the group with the nearest deadline that would be missed if it waited for one more round of the others,
    /// as long as it is not too far in debt.
    fn urgent(&mut self, now: u64, candidates: &[Candidate]) -> Option<usize> {
        self.slots.slacken(now, candidates);
        let (round, slots) = (self.slots.round(), &self.slots);
        let seats = self.ring.seats().iter().enumerate();
        seats
            .filter_map(|(index, seat)| {
                let load = slots.get(seat.slot?)?;
                let waits = round.saturating_sub(load.cost);
                let debt = load.cost.saturating_mul(DEBT_CALLS);
                let may = seat.credit > -i64::try_from(debt).unwrap_or(i64::MAX);
                (may && load.slack < waits).then_some((load.slack, seat.key, index))
            })
            .min()
            .map(|(_, _, index)| index)
    }

    fn whole(&mut self, round: &Round<'_>, chosen: &mut Vec<usize>) -> Option<Plan> {
        let (slot, line) = self.fifo.line(&self.slots, round.candidates)?;
        let group = &round.groups[self.slots.get(slot)?.group as usize];
        let rows = fill(group, round, line.iter().map(|(_, index)| *index), chosen);
        Some(Plan {
            group: group.key,
            rows,
            cost: group.curve.predict(rows),
            urgent: false,
        })
    }
}

/// Fills a call from the line; gives its rows.
fn fill(group: &Group, round: &Round<'_>, line: impl Iterator<Item = u32>, chosen: &mut Vec<usize>) -> usize {
    let (mut rows, mut timestep) = (0, None);
    for index in line {
        let candidate = &round.candidates[index as usize];
        // Without mixed timesteps the first one decides, and takes all along that stand where it stands.
        if round.timesteps == Timesteps::Equal
            && *timestep.get_or_insert(candidate.timestep) != candidate.timestep
        {
            continue;
        }
        // One that does not fit is passed over, not waited for: the next one may have a single row. It is not starved,
        // because it comes first as soon as those before it are done.
        if rows == 0 || candidate.rows <= group.cap.saturating_sub(rows) {
            chosen.push(index as usize);
            rows += candidate.rows;
        }
        if rows >= group.cap {
            break;
        }
    }
    chosen.sort_unstable();
    rows
}

/// A time in nanoseconds; what is longer than 584 years is for ever.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
