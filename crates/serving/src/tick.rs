//! Which trajectories run in the next tick.
//!
//! A tick is one UNet call, so all its rows have one shape; and where the model takes a single timestep for the whole batch,
//! one timestep too. Shapes take turns, the one that waited longest first, so that no shape blocks another; inside a shape
//! the earliest arrival comes first, and finishes first. It knows nothing of models, clocks or cancellation: the caller
//! leaves out what must not run.
//!
//! Invariant: a trajectory's rows are never split over two ticks, a tick has at most [`Candidate::cap`] rows unless its first
//! trajectory alone has more, and a plan is empty only when nothing is active.

use std::collections::HashMap;

/// Which timesteps the rows of one call may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timesteps {
    /// Each row its own.
    Mixed,
    /// One for all rows.
    Equal,
}

/// A trajectory that could run, as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Equal for trajectories whose rows fit one call: latent height and width, length of the text.
    pub shape: u64,
    /// Rows that one call of this shape may have; the same for all candidates of a shape.
    pub cap: usize,
    /// Order of arrival; smaller came earlier.
    pub arrival: u64,
    /// Bits of the timestep of its next call.
    pub timestep: u32,
    /// Its rows in one call: 2 with guidance, else 1.
    pub rows: usize,
}

/// Remembers whose turn it is.
#[derive(Debug, Default)]
pub struct Planner {
    tick: u64,
    /// The tick in which each shape ran last; shapes that are no longer active are forgotten.
    served: HashMap<u64, u64>,
}

impl Planner {
    /// Makes a planner that has served nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses the trajectories of the next tick: writes their indices in `candidates` to `chosen`, earliest arrival first.
    ///
    /// `candidates` must be in order of arrival. Nothing is allocated once `chosen` and the table of shapes have grown.
    pub fn plan(&mut self, candidates: &[Candidate], timesteps: Timesteps, chosen: &mut Vec<usize>) {
        debug_assert!(candidates.is_sorted_by_key(|candidate| candidate.arrival));
        chosen.clear();
        self.served
            .retain(|shape, _| candidates.iter().any(|candidate| candidate.shape == *shape));
        let Some(shape) = self.next_shape(candidates) else {
            return;
        };
        self.tick += 1;
        self.served.insert(shape, self.tick);
        let mut rows = 0;
        let mut timestep = None;
        for (index, candidate) in candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.shape == shape)
        {
            // Without mixed timesteps the earliest arrival decides, and takes all along that stand where it stands.
            if timesteps == Timesteps::Equal
                && *timestep.get_or_insert(candidate.timestep) != candidate.timestep
            {
                continue;
            }
            // One that does not fit is passed over, not waited for: the next one may have a single row. It is not starved,
            // because it comes first as soon as those before it are done.
            if rows == 0 || rows + candidate.rows <= candidate.cap {
                chosen.push(index);
                rows += candidate.rows;
            }
            if rows >= candidate.cap {
                break;
            }
        }
    }

    /// The shape that ran longest ago; among those that never ran, the one that arrived first.
    fn next_shape(&self, candidates: &[Candidate]) -> Option<u64> {
        candidates
            .iter()
            .min_by_key(|candidate| {
                (
                    self.served.get(&candidate.shape).copied().unwrap_or(0),
                    candidate.arrival,
                )
            })
            .map(|candidate| candidate.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use Timesteps::{Equal, Mixed};

    fn candidate(shape: u64, arrival: u64, timestep: u32, rows: usize) -> Candidate {
        Candidate {
            shape,
            cap: 4,
            arrival,
            timestep,
            rows,
        }
    }

    fn plan(planner: &mut Planner, candidates: &[Candidate], timesteps: Timesteps) -> Vec<usize> {
        let mut chosen = vec![99];
        planner.plan(candidates, timesteps, &mut chosen);
        chosen
    }

    #[test]
    fn nothing_active_gives_an_empty_plan() {
        assert!(plan(&mut Planner::new(), &[], Mixed).is_empty());
    }

    #[test]
    fn rows_of_different_timesteps_share_a_tick_where_the_model_allows_it() {
        let candidates = [
            candidate(1, 0, 900, 2),
            candidate(1, 1, 300, 2),
            candidate(1, 2, 900, 2),
        ];
        assert_eq!(plan(&mut Planner::new(), &candidates, Mixed), [0, 1]);
        assert_eq!(plan(&mut Planner::new(), &candidates, Equal), [0, 2]);
    }

    #[test]
    fn a_single_row_fills_what_a_pair_leaves() {
        let candidates = [
            candidate(1, 0, 1, 1),
            candidate(1, 1, 1, 2),
            candidate(1, 2, 1, 2),
            candidate(1, 3, 1, 1),
        ];
        assert_eq!(plan(&mut Planner::new(), &candidates, Mixed), [0, 1, 3]);
    }

    #[test]
    fn a_pair_runs_even_where_one_row_is_the_cap() {
        let candidates =
            [candidate(1, 0, 1, 2), candidate(1, 1, 1, 1)].map(|one| Candidate { cap: 1, ..one });
        assert_eq!(plan(&mut Planner::new(), &candidates, Mixed), [0]);
    }

    #[test]
    fn shapes_take_turns_and_a_new_shape_comes_next() {
        let mut planner = Planner::new();
        let mut candidates = vec![candidate(1, 0, 1, 2), candidate(2, 1, 1, 2)];
        assert_eq!(plan(&mut planner, &candidates, Mixed), [0]);
        assert_eq!(plan(&mut planner, &candidates, Mixed), [1]);
        assert_eq!(plan(&mut planner, &candidates, Mixed), [0]);
        candidates.push(candidate(3, 2, 1, 2));
        assert_eq!(plan(&mut planner, &candidates, Mixed), [2]);
        assert_eq!(plan(&mut planner, &candidates, Mixed), [1]);
    }

    fn arbitrary() -> impl Strategy<Value = (Vec<Candidate>, Timesteps)> {
        let one = (0..4_u64, 0..3_u32, 1..=2_usize);
        (prop::collection::vec(one, 0..24), 1..10_usize, any::<bool>()).prop_map(|(list, cap, mixed)| {
            let candidates = list
                .into_iter()
                .enumerate()
                .map(|(arrival, (shape, timestep, rows))| {
                    // Larger shapes hold less.
                    let cap = (cap / (shape as usize + 1)).max(1);
                    Candidate {
                        cap,
                        ..candidate(shape, arrival as u64, timestep, rows)
                    }
                })
                .collect();
            (candidates, if mixed { Mixed } else { Equal })
        })
    }

    proptest! {
        #[test]
        fn every_plan_keeps_the_invariants((candidates, timesteps) in arbitrary()) {
            let chosen = plan(&mut Planner::new(), &candidates, timesteps);
            prop_assert_eq!(chosen.is_empty(), candidates.is_empty());
            prop_assert!(chosen.is_sorted());
            let rows: usize = chosen.iter().map(|index| candidates[*index].rows).sum();
            prop_assert!(chosen.is_empty() || rows <= candidates[chosen[0]].cap || chosen.len() == 1);
            for index in &chosen {
                prop_assert_eq!(candidates[*index].shape, candidates[chosen[0]].shape);
                prop_assert!(timesteps == Mixed || candidates[*index].timestep == candidates[chosen[0]].timestep);
            }
        }

        #[test]
        fn everyone_finishes_and_no_shape_waits_longer_than_one_round((candidates, timesteps) in arbitrary()) {
            // Each trajectory needs three ticks; timesteps go down as they run.
            let mut planner = Planner::new();
            let mut left: Vec<(Candidate, u32)> = candidates.into_iter().map(|candidate| (candidate, 3)).collect();
            let mut since: HashMap<u64, usize> = HashMap::new();
            for _ in 0..24 * 3 + 1 {
                let active: Vec<Candidate> = left.iter().map(|(candidate, _)| *candidate).collect();
                let chosen = plan(&mut planner, &active, timesteps);
                let Some(first) = chosen.first() else { break };
                let ran = active[*first].shape;
                for shape in 0..4 {
                    let waits = shape != ran && active.iter().any(|candidate| candidate.shape == shape);
                    let wait = since.entry(shape).or_default();
                    *wait = if waits { *wait + 1 } else { 0 };
                    prop_assert!(*wait <= 3, "shape {} waited {} ticks", shape, wait);
                }
                for index in chosen {
                    left[index].1 -= 1;
                    left[index].0.timestep += 10;
                }
                left.retain(|(_, ticks)| *ticks > 0);
            }
            prop_assert!(left.is_empty());
        }
    }
}
