//! What waits in each group: rows, the cost of a call, the nearest deadline.
//!
//! One slot for each group that is listed, sorted by key, so that candidates and seats find theirs by bisection.

use super::deficit::{Ring, Standing};
use super::{Candidate, FILL_SHARE, Group, Timesteps, nanos};

/// A candidate whose group is not listed.
const NOWHERE: u32 = u32::MAX;

/// A group as it stands now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    key: u64,
    /// Place in the groups.
    pub(super) group: u32,
    pub(super) weight: u64,
    cap: usize,
    /// Rows that wait, all of them, and those of the smallest trajectory.
    rows: usize,
    least: usize,
    /// Rows of its next call, about.
    pub(super) likely: usize,
    /// Predicted nanoseconds of that call alone, and from it to the next one.
    pub(super) cost: u64,
    pub(super) tick: u64,
    /// The shortest time that one of its deadlines can still wait.
    pub(super) slack: u64,
    /// Ticks that it had.
    pub(super) ticks: u32,
    /// Mean rows of its ticks, 0 before the first.
    fill: f64,
    seated: bool,
}

/// All groups as they stand now. Memory is reused.
#[derive(Debug, Default)]
pub(super) struct Slots {
    loads: Vec<Load>,
    /// The loads of the plan before, for what is remembered.
    before: Vec<Load>,
    /// Slot of each candidate.
    of: Vec<u32>,
    /// Slots in the order in which candidates name them.
    named: Vec<u32>,
}

impl Slots {
    /// Takes stock.
    pub(super) fn fill(
        &mut self,
        groups: &[Group],
        candidates: &[Candidate],
        timesteps: Timesteps,
        pace: f64,
    ) {
        std::mem::swap(&mut self.loads, &mut self.before);
        self.loads.clear();
        self.loads.extend(
            groups
                .iter()
                .enumerate()
                .map(|(index, group)| Load::new(index, group)),
        );
        self.loads.sort_unstable_by_key(|load| (load.key, load.group));
        debug_assert!(
            self.loads.windows(2).all(|two| two[0].key < two[1].key),
            "a group is listed twice"
        );
        self.of.clear();
        self.named.clear();
        self.named.reserve(groups.len());
        let mut last = NOWHERE;
        for candidate in candidates {
            if self
                .loads
                .get(last as usize)
                .is_none_or(|load| load.key != candidate.group)
            {
                let found = self.loads.binary_search_by_key(&candidate.group, |load| load.key);
                last = found.map_or(NOWHERE, |slot| slot as u32);
            }
            self.of.push(last);
            if let Some(load) = self.loads.get_mut(last as usize) {
                if load.rows == 0 {
                    self.named.push(last);
                }
                load.rows = load.rows.saturating_add(candidate.rows.max(1));
                load.least = load.least.min(candidate.rows);
            }
        }
        let mut before = self.before.iter().peekable();
        for load in &mut self.loads {
            while before.next_if(|old| old.key < load.key).is_some() {}
            if let Some(old) = before.peek().filter(|old| old.key == load.key) {
                load.ticks = old.ticks;
                load.fill = old.fill;
            }
            if load.rows == 0 {
                continue;
            }
            let full = load.rows.min(load.cap);
            load.likely = match timesteps {
                Timesteps::Mixed => full,
                // How many stand at one timestep is known only from the ticks before.
                Timesteps::Equal => (load.fill.round() as usize).min(full),
            }
            .max(load.least)
            .max(1);
            load.cost = nanos(groups[load.group as usize].curve.predict(load.likely)).max(1);
            load.tick = (load.cost as f64 * pace) as u64;
        }
    }

    /// Whether every candidate has a slot.
    pub(super) fn is_complete(&self) -> bool {
        !self.of.contains(&NOWHERE)
    }

    /// Brings the ring up to date: groups with something to do have a seat, new ones behind the others.
    pub(super) fn enter(&mut self, ring: &mut Ring) {
        let loads = &mut self.loads;
        ring.update(|key| {
            let Ok(slot) = loads.binary_search_by_key(&key, |load| load.key) else {
                return Standing::Gone;
            };
            let load = &mut loads[slot];
            load.seated = true;
            if load.rows == 0 {
                return Standing::Idle;
            }
            Standing::Active {
                slot: slot as u32,
                weight: load.weight as u32,
            }
        });
        for slot in &self.named {
            let load = &mut loads[*slot as usize];
            if !load.seated {
                load.seated = true;
                ring.enter(load.key, *slot, load.weight as u32);
            }
        }
    }

    /// Computes how long each group can wait for its nearest deadline that can still be met.
    pub(super) fn slacken(&mut self, now: u64, candidates: &[Candidate]) {
        for (candidate, slot) in candidates.iter().zip(&self.of) {
            let (Some(deadline), Some(load)) = (candidate.deadline, self.loads.get_mut(*slot as usize))
            else {
                continue;
            };
            let needs = load.tick.saturating_mul(u64::from(candidate.calls_left));
            if let Some(slack) = nanos(deadline).checked_sub(now.saturating_add(needs)) {
                load.slack = load.slack.min(slack);
            }
        }
    }

    /// Takes in that a group had a tick of so many rows.
    pub(super) fn ran(&mut self, slot: u32, rows: usize) {
        let load = &mut self.loads[slot as usize];
        load.ticks = load.ticks.wrapping_add(1);
        load.fill = if load.fill == 0.0 {
            rows as f64
        } else {
            load.fill + (rows as f64 - load.fill) * FILL_SHARE
        };
    }

    /// The slot of a candidate.
    pub(super) fn of(&self, candidate: usize) -> Option<u32> {
        self.of.get(candidate).copied().filter(|slot| *slot != NOWHERE)
    }

    /// The cap of a candidate's group.
    pub(super) fn cap(&self, candidate: usize) -> usize {
        self.of(candidate).map_or(0, |slot| self.loads[slot as usize].cap)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Load> {
        self.loads.get(slot as usize)
    }

    /// Groups that have something to do.
    pub(super) fn active(&self) -> usize {
        self.named.len()
    }

    /// Their weights together.
    pub(super) fn weight(&self) -> u64 {
        self.loads_named().map(|load| load.weight).sum()
    }

    /// The cost of one call of each.
    pub(super) fn round(&self) -> u64 {
        self.loads_named()
            .fold(0, |sum, load| sum.saturating_add(load.cost))
    }

    /// The cheapest call of all: groups of equal cost and weight then take turns call by call.
    pub(super) fn quantum(&self) -> u64 {
        self.loads_named().map(|load| load.cost).min().unwrap_or(1)
    }

    fn loads_named(&self) -> impl Iterator<Item = &Load> {
        self.named.iter().map(|slot| &self.loads[*slot as usize])
    }
}

impl Load {
    fn new(index: usize, group: &Group) -> Self {
        Self {
            key: group.key,
            group: index as u32,
            weight: u64::from(group.weight.max(1)),
            cap: group.cap,
            rows: 0,
            least: usize::MAX,
            likely: 0,
            cost: 0,
            tick: 0,
            slack: u64::MAX,
            ticks: 0,
            fill: 0.0,
            seated: false,
        }
    }
}
