//! Parts of one model in step: an update of a split application replaces the replicas of its parts together.
//!
//! A picture is drawn by parts of one model, so that replicas of a new one serve nobody before every part has some. Of the
//! old model as large a share of every part stays as the new one cannot serve yet: what the part of the new model that is
//! furthest behind has, measured by what is wanted of it. What draws leaves before what encodes for it and decodes what it
//! drew.
//!
//! Pure; refuses to know replicas, time and room. What is done where there is no room for parts of both models is
//! [`super::rollout`]'s to say.
//!
//! Invariant: while a part lets a replica go as [`Parts::hold`] says, a model that had a running replica of every part
//! before has one after it, or the wanted model has, with as many as are wanted.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

/// Replicas of one part that have one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// They run, and have for long enough to count on where they are of the wanted version.
    pub(super) ready: usize,
    /// They run.
    pub(super) running: usize,
    /// They run, or finish what they have.
    pub(super) lives: usize,
}

/// A part of a split application.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// How many replicas are wanted.
    pub(super) target: usize,
    /// Its requests are in need of the other parts from their begin to their end.
    pub(super) draws: bool,
    /// Its replicas, by model.
    pub(super) models: BTreeMap<String, Count>,
}

/// What a part keeps of the model before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) model: String,
    /// So many of its replicas that run, of those there are.
    pub(super) count: usize,
    /// A part of the wanted model that is furthest behind; none where requests under way are waited for.
    pub(super) behind: Option<usize>,
}

/// The parts of a split application.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts(pub(super) Vec<Part>);

/// A part of a whole, compared without rounding.
#[derive(Clone, Copy, Debug)]
struct Share {
    of: usize,
    whole: usize,
}

impl Share {
    const ALL: Self = Self { of: 1, whole: 1 };

    fn cmp(self, other: Self) -> Ordering {
        (self.of * other.whole).cmp(&(other.of * self.whole))
    }
}

impl Part {
    fn count(&self, model: &str) -> Count {
        self.models.get(model).copied().unwrap_or_default()
    }
}

impl Parts {
    /// What a part keeps of another model than the one that is wanted of it, if anything.
    pub(super) fn hold(&self, part: usize, wanted: &str) -> Option<Hold> {
        let (behind, share) = self.share(wanted, |count| count.ready);
        let here = self.0.get(part)?;
        if share.cmp(Share::ALL) == Ordering::Less
            && let Some(model) = self.other(wanted)
        {
            return Some(Hold {
                model: model.to_owned(),
                count: (here.target * (share.whole - share.of)).div_ceil(share.whole),
                behind,
            });
        }
        if here.draws {
            return None;
        }
        let draws = || self.0.iter().filter(|part| part.draws);
        let needed = |model: &&str| draws().any(|part| part.count(model).lives > 0);
        let mut others = here.models.keys().map(String::as_str);
        others
            .find(|model| *model != wanted && here.count(model).running > 0 && needed(model))
            .map(|model| Hold {
                model: model.to_owned(),
                count: 1,
                behind: None,
            })
    }

    /// Some part has no replica of the wanted model that can be counted on, while another model serves: then one of each is
    /// wanted before more of any.
    pub(super) fn begins(&self, wanted: &str) -> bool {
        self.share(wanted, |count| count.ready).1.of == 0 && self.other(wanted).is_some()
    }

    /// Whether every part has a running replica of a model.
    pub(super) fn serves(&self, model: &str) -> bool {
        !self.0.is_empty() && self.0.iter().all(|part| part.count(model).running > 0)
    }

    /// Every model that some replica has.
    pub(super) fn models(&self) -> BTreeSet<&str> {
        let models = self.0.iter().flat_map(|part| part.models.keys());
        models.map(String::as_str).collect()
    }

    /// The model beside the wanted one that serves, the most of it.
    fn other(&self, wanted: &str) -> Option<&str> {
        let of = |model: &str| self.share(model, |count| count.running).1;
        let others = self.models().into_iter();
        others
            .filter(|model| *model != wanted && self.serves(model))
            .max_by(|a, b| of(a).cmp(of(b)))
    }

    /// The smallest part of what is wanted that any part has of a model, at most all, and which part that is.
    fn share(&self, model: &str, has: fn(Count) -> usize) -> (Option<usize>, Share) {
        let parts = self.0.iter().enumerate().filter(|(_, part)| part.target > 0);
        let shares = parts.map(|(index, part)| {
            let share = Share {
                of: has(part.count(model)).min(part.target),
                whole: part.target,
            };
            (Some(index), share)
        });
        shares
            .min_by(|(_, a), (_, b)| a.cmp(*b))
            .unwrap_or((None, Share::ALL))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(target: usize, draws: bool, old: usize, new: usize) -> Part {
        let count = |n| Count {
            ready: n,
            running: n,
            lives: n,
        };
        let models = [("old", old), ("new", new)].map(|(model, n)| (model.to_owned(), count(n)));
        Part {
            target,
            draws,
            models: models.into(),
        }
    }

    fn counts(parts: &Parts) -> Vec<usize> {
        let all = 0..parts.0.len();
        all.map(|index| parts.hold(index, "new").map_or(0, |hold| hold.count))
            .collect()
    }

    #[test]
    fn the_old_model_stays_whole_until_every_part_of_the_new_one_serves() {
        let parts = |new: [usize; 3]| {
            Parts(vec![
                part(2, false, 2, new[0]),
                part(4, true, 4, new[1]),
                part(1, false, 1, new[2]),
            ])
        };
        assert_eq!(counts(&parts([0, 0, 0])), [2, 4, 1]);
        assert_eq!(counts(&parts([2, 4, 0])), [2, 4, 1], "the last is not there");
        assert_eq!(parts([2, 4, 0]).hold(0, "new").unwrap().behind, Some(2));
        assert!(parts([2, 4, 0]).begins("new"));
        assert_eq!(
            counts(&parts([1, 1, 1])),
            [2, 3, 1],
            "a quarter of what draws is there"
        );
        assert_eq!(counts(&parts([1, 3, 1])), [1, 2, 1]);
        assert!(!parts([1, 1, 1]).begins("new"));
    }

    #[test]
    fn what_draws_leaves_before_what_it_needs() {
        let mut parts = Parts(vec![
            part(1, false, 1, 1),
            part(1, true, 1, 1),
            part(1, false, 1, 1),
        ]);
        assert_eq!(counts(&parts), [1, 0, 1]);
        parts.0[1].models.insert(
            "old".into(),
            Count {
                lives: 1,
                ..Count::default()
            },
        );
        assert_eq!(counts(&parts), [1, 0, 1], "it finishes what it has");
        parts.0[1].models.remove("old");
        assert_eq!(counts(&parts), [0, 0, 0]);
    }

    #[test]
    fn a_model_that_lacks_a_part_is_not_held() {
        let parts = Parts(vec![part(1, false, 0, 0), part(1, true, 1, 0)]);
        assert_eq!(counts(&parts), [0, 0]);
        assert!(!parts.begins("new"));
        // One that is scaled to none is nobody's lack.
        let idle = Parts(vec![part(0, false, 0, 0), part(0, true, 0, 0)]);
        assert_eq!(counts(&idle), [0, 0]);
    }

    proptest! {
        #[test]
        fn whatever_order_parts_let_go_in_some_model_serves(
            sizes in prop::collection::vec((1_usize..6, 0_usize..6), 2..5),
            order in prop::collection::vec((0_usize..5, any::<bool>()), 0..60),
        ) {
            let draws = 1;
            let of = |(index, (target, _)): (usize, &(usize, usize))| part(*target, index == draws, *target, 0);
            let mut parts = Parts(sizes.iter().enumerate().map(of).collect());
            for (index, comes) in order {
                let index = index % parts.0.len();
                if comes {
                    let part = &mut parts.0[index];
                    let new = part.models.get_mut("new").unwrap();
                    let n = (new.running + 1).min(part.target);
                    *new = Count { ready: n, running: n, lives: n };
                } else {
                    let keep = parts.hold(index, "new").filter(|hold| hold.model == "old").map_or(0, |hold| hold.count);
                    let old = parts.0[index].models.get_mut("old").unwrap();
                    let n = old.running.min(keep);
                    *old = Count { ready: n, running: n, lives: n };
                }
                prop_assert!(parts.serves("old") || parts.serves("new"), "{parts:?}");
                // Together they can do what is wanted, as far as parts that are there in step can.
                let share = |model: &str| {
                    let shares = parts.0.iter().map(|part| part.count(model).running as f64 / part.target as f64);
                    shares.fold(1.0, f64::min)
                };
                prop_assert!(share("old") + share("new") > 0.999, "{parts:?}");
            }
        }
    }
}
