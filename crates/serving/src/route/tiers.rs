//! Replicas that are near come first, as long as they are not busier than others by more than a margin.
//!
//! Replicas stand in the order of their distance, in tiers: the same machine, the same zone, the rest. Among those of a
//! tier two choices decide; a tier further away is asked only when the nearer ones are full, or when its choice is sooner
//! by more than the margin. So traffic stays in its zone while the zone keeps up, and no replica starves for being far.
//!
//! It refuses to know what zones are.

use rand::Rng;

use super::{Wait, pick};

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Distance {
    /// On the same machine.
    Here,
    /// In the same zone.
    Near,
    /// Anywhere else, or nobody says where.
    #[default]
    Far,
}

impl Distance {
    /// Between a router and a replica, from their machines and zones; what is empty is not known.
    pub fn between(router: (&str, &str), replica: (&str, &str)) -> Self {
        let same = |a: &str, b: &str| !a.is_empty() && a == b;
        if same(router.0, replica.0) {
            Self::Here
        } else if same(router.1, replica.1) {
            Self::Near
        } else {
            Self::Far
        }
    }
}

/// How many replicas there are up to each distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tiers([usize; 3]);

impl Tiers {
    /// Counts replicas that stand in the order of their distance.
    pub fn of(distances: impl Iterator<Item = Distance>) -> Self {
        let mut counts = [0; 3];
        for distance in distances {
            let from = match distance {
                Distance::Here => 0,
                Distance::Near => 1,
                Distance::Far => 2,
            };
            counts[from..].iter_mut().for_each(|count| *count += 1);
        }
        Self(counts)
    }

    /// Picks one by power of two choices, the nearest first; `wait` gives a replica's wait, or `None` when it may not be
    /// asked. `margin_ns` is how much longer a nearer one's wait may be.
    pub fn pick<R: Rng + ?Sized>(
        &self,
        rng: &mut R,
        margin_ns: u64,
        mut wait: impl FnMut(usize) -> Option<Wait>,
    ) -> Option<usize> {
        let mut best: Option<(usize, Wait)> = None;
        let mut begin = 0;
        for end in self.0 {
            let count = end - begin;
            if count > 0 {
                // Nothing can be sooner than now by more than the margin.
                if best.is_some_and(|(_, wait)| wait.ns <= margin_ns) {
                    break;
                }
                let found = pick(count, rng, |i| wait(begin + i)).map(|i| begin + i);
                let found = found.and_then(|i| Some((i, wait(i)?)));
                best = match (best, found) {
                    (Some((_, have)), Some((i, other))) if other.ns.saturating_add(margin_ns) < have.ns => {
                        Some((i, other))
                    }
                    (None, found) => found,
                    (best, _) => best,
                };
            }
            begin = end;
        }
        best.map(|(i, _)| i)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn wait(ns: u64) -> Wait {
        Wait { ns, ongoing: 0 }
    }

    fn tiers(counts: [usize; 3]) -> Tiers {
        let [here, near, far] = counts;
        let all = [
            (Distance::Here, here),
            (Distance::Near, near),
            (Distance::Far, far),
        ];
        Tiers::of(all.into_iter().flat_map(|(of, n)| std::iter::repeat_n(of, n)))
    }

    #[test]
    fn what_nobody_says_is_far() {
        assert_eq!(Distance::between(("", ""), ("", "")), Distance::Far);
        assert_eq!(Distance::between(("a", "z"), ("a", "y")), Distance::Here);
        assert_eq!(Distance::between(("a", "z"), ("b", "z")), Distance::Near);
        assert_eq!(Distance::between(("a", "z"), ("b", "")), Distance::Far);
    }

    #[test]
    fn the_nearest_is_asked_while_it_keeps_up() {
        let mut rng = StdRng::seed_from_u64(1);
        let tiers = tiers([1, 1, 2]);
        let waits = |waits: [Option<u64>; 4]| move |i: usize| waits[i].map(wait);
        let mut pick = |of: [Option<u64>; 4]| tiers.pick(&mut rng, 100, waits(of));
        assert_eq!(pick([Some(90), Some(0), Some(0), Some(0)]), Some(0));
        assert_eq!(pick([Some(101), Some(0), Some(0), Some(0)]), Some(1));
        assert_eq!(pick([Some(101), Some(1), Some(500), Some(500)]), Some(0));
        assert_eq!(pick([None, Some(90), Some(0), Some(0)]), Some(1));
        assert_eq!(pick([Some(500), Some(500), Some(7), None]), Some(2));
        assert_eq!(pick([None, None, None, Some(9)]), Some(3));
        assert_eq!(pick([None; 4]), None);
    }

    #[test]
    fn under_load_the_far_ones_work_too_and_nobody_starves() {
        let mut rng = StdRng::seed_from_u64(2);
        let tiers = tiers([1, 2, 5]);
        let mut work = [0_u64; 8];
        let mut served = [0_u32; 8];
        for _ in 0..10_000 {
            let i = tiers.pick(&mut rng, 50, |i| Some(wait(work[i]))).unwrap();
            work[i] += 10;
            served[i] += 1;
            // As much is done as comes: the queues stay as they are.
            let busiest = (0..8).max_by_key(|i| work[*i]).unwrap();
            work[busiest] =
                work[busiest].saturating_sub(if work.iter().sum::<u64>() > 2_000 { 10 } else { 0 });
        }
        assert!(served.iter().all(|n| *n > 0), "{served:?}");
        let nearest = work[0];
        assert!(work.iter().all(|far| far + 50 + 10 >= nearest), "{work:?}");
    }

    proptest! {
        #[test]
        fn what_is_picked_is_open_and_a_farther_one_is_sooner_by_the_margin(
            waits in prop::collection::vec(prop::option::of(0u64..1_000), 1..12),
            cuts in (0usize..12, 0usize..12), margin in 0u64..500, seed: u64,
        ) {
            let n = waits.len();
            let (a, b) = (cuts.0.min(cuts.1).min(n), cuts.0.max(cuts.1).min(n));
            let tiers = tiers([a, b - a, n - b]);
            let of = |i: usize| waits[i].map(wait);
            match tiers.pick(&mut StdRng::seed_from_u64(seed), margin, of) {
                None => prop_assert!(waits.iter().all(Option::is_none)),
                Some(i) => {
                    let picked = waits[i];
                    prop_assert!(picked.is_some());
                    // Of every nearer tier somebody open was longer by more than the margin, or nobody was open.
                    let nearer = if i >= b { vec![0..a, a..b] } else if i >= a { vec![0..a, 0..0] } else { vec![] };
                    for tier in nearer {
                        let longest = waits[tier].iter().flatten().max();
                        prop_assert!(longest.is_none_or(|w| *w > picked.unwrap()), "{i} of {waits:?}");
                    }
                }
            }
        }
    }
}
