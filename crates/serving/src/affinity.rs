//! Which replica a request for a model goes to, where every replica holds some of many models.
//!
//! A replica that holds the model draws at once; one that does not must load it first, which costs seconds and may push
//! another model out. So those that hold it come first, by power of two choices on predicted wait. When even the soonest
//! of them has more work ahead than a load takes, the request spills over to a replica that holds fewest models, and from
//! then on one more holds the hot one.
//!
//! It refuses to know what models are, and to load any. A [`Survey`] is of one moment: whoever picks and sends must survey
//! again.
//!
//! Invariants: a replica that is not open is never picked; a replica without the model is picked only when none has it, or
//! when it is predicted to be done sooner, load included.

use std::time::Duration;

use rand::Rng;

use crate::route::{self, Wait};

/// How long a model takes to load before any load was measured: two gigabytes of Stable Diffusion 1.5 in half precision
/// from a local disk, and the sessions made of it.
pub const LOAD_ASSUMED: Duration = Duration::from_secs(10);

/// A replica, for a request of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Predicted wait there.
    pub wait: Wait,
    /// What is left of a load of the model that is under way, nanoseconds. It says which of those that hold it is sooner; it
    /// is no reason to load the model elsewhere too, which would take as long.
    pub loading_ns: u64,
    /// It may be asked now.
    pub is_open: bool,
    /// It holds the model.
    pub holds: bool,
    /// Models that it holds.
    pub held: usize,
}

/// Which replica, and why it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// It holds the model.
    Held(usize),
    /// None holds the model.
    Cold(usize),
    /// Those that hold it have too much work.
    Spilled(usize),
}

impl Pick {
    /// Its number in the survey.
    pub fn index(self) -> usize {
        match self {
            Self::Held(index) | Self::Cold(index) | Self::Spilled(index) => index,
        }
    }
}

/// What a request waits behind, beyond what the replicas have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead {
    /// Nanoseconds of work of requests for the same model that wait for a replica before it.
    pub ns: u64,
    /// Nanoseconds that a model takes to load.
    pub load_ns: u64,
}

/// The replicas of a deployment, as they are for one model.
#[derive(Debug, Default)]
pub struct Survey {
    /// Open, and hold it.
    holding: Vec<(usize, Wait)>,
    /// Open, do not hold it, and hold fewest.
    others: Vec<(usize, Wait)>,
    /// What those hold.
    fewest: usize,
    /// All that hold it, open or full.
    holders: u64,
    /// The soonest of those, nanoseconds.
    soonest: u64,
}

impl Survey {
    /// Takes in a replica that can be reached.
    pub fn add(&mut self, index: usize, candidate: Candidate) {
        let Candidate {
            wait,
            loading_ns,
            is_open,
            holds,
            held,
        } = candidate;
        if holds {
            self.soonest = match self.holders {
                0 => wait.ns,
                _ => self.soonest.min(wait.ns),
            };
            self.holders += 1;
            if is_open {
                let ns = wait.ns.saturating_add(loading_ns);
                self.holding.push((index, Wait { ns, ..wait }));
            }
            return;
        }
        if !is_open {
            return;
        }
        if self.others.is_empty() || held < self.fewest {
            self.others.clear();
            self.fewest = held;
        }
        if held == self.fewest {
            self.others.push((index, wait));
        }
    }

    /// Picks a replica; `None` when a request does better to wait, or when none is open.
    pub fn pick<R: Rng + ?Sized>(&self, rng: &mut R, ahead: Ahead) -> Option<Pick> {
        let two =
            |of: &[(usize, Wait)], rng: &mut R| route::pick(of.len(), rng, |i| Some(of[i].1)).map(|i| of[i]);
        let other = two(&self.others, rng);
        if self.holders == 0 {
            return other.map(|(index, _)| Pick::Cold(index));
        }
        let sooner = self.soonest.saturating_add(ahead.ns / self.holders);
        if let Some((index, wait)) = other
            && wait.ns.saturating_add(ahead.load_ns) < sooner
        {
            return Some(Pick::Spilled(index));
        }
        two(&self.holding, rng).map(|(index, _)| Pick::Held(index))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const LOAD: u64 = 1_000;

    fn of(ns: u64, is_open: bool, holds: bool, held: usize) -> Candidate {
        Candidate {
            wait: Wait { ns, ongoing: 0 },
            loading_ns: 0,
            is_open,
            holds,
            held,
        }
    }

    fn pick(candidates: &[Candidate], ahead_ns: u64) -> Option<Pick> {
        let mut survey = Survey::default();
        for (index, candidate) in candidates.iter().enumerate() {
            survey.add(index, *candidate);
        }
        let ahead = Ahead {
            ns: ahead_ns,
            load_ns: LOAD,
        };
        survey.pick(&mut StdRng::seed_from_u64(1), ahead)
    }

    #[test]
    fn whoever_holds_the_model_is_asked_though_others_are_idle() {
        let busy = of(LOAD, true, true, 3);
        assert_eq!(
            pick(&[of(0, true, false, 0), busy], 0),
            Some(Pick::Held(1)),
            "a load takes as long"
        );
    }

    #[test]
    fn a_model_that_nobody_holds_goes_where_fewest_are() {
        let replicas = [
            of(0, true, false, 2),
            of(900, true, false, 1),
            of(0, false, false, 0),
        ];
        assert_eq!(pick(&replicas, 0), Some(Pick::Cold(1)));
        assert_eq!(pick(&[of(0, false, false, 0)], 0), None);
        assert_eq!(pick(&[], 0), None);
    }

    #[test]
    fn a_hot_model_spills_over_once_a_load_is_sooner() {
        let idle = of(0, true, false, 0);
        assert_eq!(
            pick(&[of(LOAD + 1, true, true, 1), idle], 0),
            Some(Pick::Spilled(1))
        );
        let full = of(10, false, true, 1);
        assert_eq!(pick(&[full, idle], 0), None, "it waits for the one that holds it");
        assert_eq!(
            pick(&[full, idle], LOAD),
            Some(Pick::Spilled(1)),
            "others wait for that one too"
        );
        assert_eq!(
            pick(&[full, full, idle], LOAD),
            None,
            "two that hold it share what waits"
        );
        let busy = of(LOAD, true, false, 0);
        assert_eq!(
            pick(&[of(LOAD, true, true, 1), busy], LOAD / 2),
            Some(Pick::Held(0))
        );
    }

    #[test]
    fn a_load_under_way_is_waited_for_and_not_repeated() {
        let loads = Candidate {
            loading_ns: LOAD,
            ..of(10, true, true, 1)
        };
        let idle = of(0, true, false, 0);
        assert_eq!(pick(&[loads, idle], 0), Some(Pick::Held(0)));
        let busy = of(LOAD / 2, true, true, 1);
        assert_eq!(
            pick(&[loads, busy], 0),
            Some(Pick::Held(1)),
            "the other one is sooner"
        );
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        (0..5_000u64, any::<bool>(), any::<bool>(), 0..4usize)
            .prop_map(|(ns, is_open, holds, held)| of(ns, is_open, holds, held))
    }

    proptest! {
        #[test]
        fn what_is_picked_is_open_and_a_load_is_never_for_nothing(
            replicas in prop::collection::vec(candidate(), 0..8), ahead in 0..5_000u64,
        ) {
            let holders: Vec<_> = replicas.iter().filter(|r| r.holds).collect();
            match pick(&replicas, ahead) {
                Some(Pick::Held(i)) => prop_assert!(replicas[i].is_open && replicas[i].holds),
                Some(Pick::Cold(i)) => prop_assert!(replicas[i].is_open && holders.is_empty()),
                Some(Pick::Spilled(i)) => {
                    prop_assert!(replicas[i].is_open && !replicas[i].holds);
                    let soonest = holders.iter().map(|r| r.wait.ns).min().unwrap();
                    let there = soonest + ahead / holders.len() as u64;
                    prop_assert!(replicas[i].wait.ns + LOAD < there);
                }
                None => prop_assert!(
                    holders.iter().all(|r| !r.is_open) && (!holders.is_empty() || replicas.iter().all(|r| !r.is_open))
                ),
            }
        }

        #[test]
        fn a_load_goes_where_fewest_models_are(
            replicas in prop::collection::vec(candidate(), 0..8), ahead in 0..5_000u64,
        ) {
            if let Some(Pick::Cold(i) | Pick::Spilled(i)) = pick(&replicas, ahead) {
                let fewest = replicas.iter().filter(|r| r.is_open && !r.holds).map(|r| r.held).min();
                prop_assert_eq!(Some(replicas[i].held), fewest);
            }
        }
    }
}
