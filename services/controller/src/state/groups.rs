//! Which worker groups grow, so that replicas without a place get one: `plan` is pure and bin-packs what is declared.
//!
//! Replicas that no attached worker holds fill the workers that were started and have not attached, and then new ones of the
//! cheapest group that could hold them. Refuses to know how workers are started, and what is free on those that are attached:
//! what fits there has been placed already.
//!
//! Invariant: no group grows over its max, nor all together over the limit; what is on its way is counted before anything is
//! added.
//! Cost: O(replicas + shapes x workers on their way).

use std::collections::BTreeMap;

use mobula_serving::place::{Amounts, Kind, Selector};

/// A group as the planner sees it.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) kind: Kind,
    /// What each worker has; none if nobody knows, then it is taken to be enough.
    pub(super) capacity: Option<Amounts>,
    pub(super) labels: BTreeMap<String, String>,
    /// Replicas that a worker holds at most.
    pub(super) per_worker: Option<usize>,
    /// Workers that are attached.
    pub(super) attached: usize,
    /// Workers that were started and have not attached.
    pub(super) starting: usize,
    pub(super) min: usize,
    pub(super) max: usize,
}

impl Pool {
    fn there(&self) -> usize {
        self.attached + self.starting
    }

    /// True if a worker of the group could hold a replica of the shape, were it empty.
    fn could_hold(&self, shape: &Shape) -> bool {
        self.kind == shape.kind
            && shape.selector.matches(&self.labels)
            && self.per_worker != Some(0)
            && self
                .capacity
                .as_ref()
                .is_none_or(|capacity| shape.need.fits(capacity))
    }

    /// What is cheapest comes first: what has the least of what is scarce. A group that nobody knows anything of comes last.
    fn price(&self) -> (bool, u64, u64, u64, u64) {
        let known = self.capacity.as_ref();
        let price = known.map_or((0, 0, 0, 0), |c| (c.gpus, c.vram, c.cpus, c.memory));
        (known.is_none(), price.0, price.1, price.2, price.3)
    }
}

/// Replicas without a place that are alike.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) need: Amounts,
    pub(super) selector: Selector,
    /// So many of them a worker may hold at most, for the sake of their spreading.
    pub(super) beside: usize,
    pub(super) count: usize,
}

/// Why replicas of a shape get no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmet {
    /// There is no group of the kind.
    NoGroup,
    /// No group of the kind has workers that could hold one.
    TooLarge,
    /// The groups that could are as large as they may be.
    Full,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many workers each group gets more.
    pub(super) raise: Vec<usize>,
    /// For each shape, the group that it waits for.
    pub(super) by: Vec<Option<usize>>,
    /// For each shape, why some of it get none, if so.
    pub(super) unmet: Vec<Option<Unmet>>,
}

/// A worker that is not attached yet.
struct Bin {
    pool: usize,
    /// None if it is enough for all that may go there.
    free: Option<Amounts>,
    left: usize,
}

impl Bin {
    fn new(index: usize, pool: &Pool) -> Self {
        Self {
            pool: index,
            free: pool.capacity.clone(),
            left: pool.per_worker.unwrap_or(usize::MAX),
        }
    }

    fn holds(&self, need: &Amounts) -> bool {
        self.left > 0 && self.free.as_ref().is_none_or(|free| need.fits(free))
    }

    /// Takes as many as fit, at most so many; gives how many.
    fn fill(&mut self, need: &Amounts, most: usize) -> usize {
        let mut taken = 0;
        while taken < most && self.holds(need) {
            if let Some(free) = &mut self.free {
                free.take(need);
            }
            self.left -= 1;
            taken += 1;
        }
        taken
    }
}

/// Plans for what has no place; `limit` is how many workers may be added to all groups together.
pub(super) fn plan(pools: &[Pool], shapes: &[Shape], limit: usize) -> Plan {
    let mut left = limit;
    let mut raise = vec![0; pools.len()];
    // Those that are always there come first: they may be all that is needed.
    for (more, pool) in raise.iter_mut().zip(pools) {
        *more = pool.min.min(pool.max).saturating_sub(pool.there()).min(left);
        left -= *more;
    }
    let on_their_way = pools.iter().zip(&raise).enumerate();
    let mut bins: Vec<Bin> = on_their_way
        .flat_map(|(i, (pool, more))| (0..pool.starting + more).map(move |_| Bin::new(i, pool)))
        .collect();
    let mut order: Vec<usize> = (0..shapes.len()).collect();
    // The largest first, or what is small takes the room that only they need.
    order.sort_by(|a, b| size(&shapes[*b]).cmp(&size(&shapes[*a])).then(a.cmp(b)));
    let mut cheapest: Vec<usize> = (0..pools.len()).collect();
    cheapest.sort_by_key(|i| (pools[*i].price(), *i));

    let (mut by, mut unmet) = (vec![None; shapes.len()], vec![None; shapes.len()]);
    for shape in order {
        let Shape { need, beside, .. } = &shapes[shape];
        let mut count = shapes[shape].count;
        for bin in &mut bins {
            if count > 0 && pools[bin.pool].could_hold(&shapes[shape]) {
                let taken = bin.fill(need, count.min((*beside).max(1)));
                if taken > 0 {
                    by[shape].get_or_insert(bin.pool);
                }
                count -= taken;
            }
        }
        for i in &cheapest {
            let pool = &pools[*i];
            while count > 0
                && left > 0
                && pool.could_hold(&shapes[shape])
                && pool.there() + raise[*i] < pool.max
            {
                let mut bin = Bin::new(*i, pool);
                by[shape].get_or_insert(*i);
                count -= bin.fill(need, count.min((*beside).max(1)));
                bins.push(bin);
                raise[*i] += 1;
                left -= 1;
            }
        }
        if count > 0 {
            let of_kind = || pools.iter().filter(|pool| pool.kind == shapes[shape].kind);
            unmet[shape] = Some(match () {
                () if of_kind().next().is_none() => Unmet::NoGroup,
                () if !of_kind().any(|pool| pool.could_hold(&shapes[shape])) => Unmet::TooLarge,
                () => Unmet::Full,
            });
        }
    }
    Plan { raise, by, unmet }
}

fn size(shape: &Shape) -> (u64, u64, u64, u64, u64) {
    let Amounts {
        cpus,
        gpus,
        memory,
        vram,
        custom,
    } = &shape.need;
    (*gpus, *vram, custom.values().sum(), *cpus, *memory)
}

#[cfg(test)]
mod tests {
    use mobula_serving::place::{Match, UNIT};
    use proptest::prelude::*;

    use super::*;

    fn pool(cpus: u64, gpus: u64, max: usize) -> Pool {
        Pool {
            kind: Kind::Inference,
            capacity: Some(amounts(cpus, gpus)),
            labels: BTreeMap::new(),
            per_worker: None,
            attached: 0,
            starting: 0,
            min: 0,
            max,
        }
    }

    fn amounts(cpus: u64, gpus: u64) -> Amounts {
        Amounts {
            cpus: cpus * UNIT,
            gpus: gpus * UNIT,
            ..Amounts::default()
        }
    }

    fn shape(cpus: u64, gpus: u64, count: usize) -> Shape {
        Shape {
            kind: Kind::Inference,
            need: amounts(cpus, gpus),
            selector: Selector::default(),
            beside: usize::MAX,
            count,
        }
    }

    #[test]
    fn the_cheapest_group_that_could_hold_a_replica_grows_by_as_many_as_are_needed() {
        let pools = [pool(16, 4, 10), pool(4, 0, 10), pool(8, 1, 10)];
        let plan = plan(&pools, &[shape(2, 0, 5), shape(1, 1, 2)], 100);
        // Each GPU replica has a worker of its own, with room for three of the others; the other two go to a cheap one.
        assert_eq!(plan.raise, [0, 0, 2]);
        assert_eq!(plan.unmet, [None, None]);
        assert_eq!(super::plan(&pools, &[shape(2, 0, 5)], 100).raise, [0, 3, 0]);
    }

    #[test]
    fn what_is_on_its_way_is_counted_and_a_min_is_always_there() {
        let mut starting = pool(4, 0, 10);
        starting.starting = 2;
        assert_eq!(plan(&[starting.clone()], &[shape(2, 0, 4)], 100).raise, [0]);
        assert_eq!(plan(&[starting.clone()], &[shape(2, 0, 5)], 100).raise, [1]);
        starting.min = 5;
        assert_eq!(plan(&[starting], &[shape(2, 0, 5)], 100).raise, [3]);
    }

    #[test]
    fn limits_are_kept_and_the_reason_is_told() {
        let full = plan(&[pool(4, 0, 2)], &[shape(4, 0, 5)], 100);
        assert_eq!((full.raise, full.unmet), (vec![2], vec![Some(Unmet::Full)]));
        let large = plan(&[pool(4, 0, 2)], &[shape(8, 0, 1)], 100);
        assert_eq!((large.raise, large.unmet), (vec![0], vec![Some(Unmet::TooLarge)]));
        assert_eq!(plan(&[], &[shape(1, 0, 1)], 100).unmet, [Some(Unmet::NoGroup)]);
        assert_eq!(plan(&[pool(4, 0, 9)], &[shape(4, 0, 5)], 3).raise, [3]);
    }

    #[test]
    fn labels_and_spreading_are_heeded() {
        let mut labelled = pool(8, 0, 9);
        labelled.labels = [("zone".to_owned(), "b".to_owned())].into();
        let mut picky = shape(1, 0, 4);
        picky.selector.0.insert("zone".into(), Match::parse("b").unwrap());
        picky.beside = 1;
        assert_eq!(plan(&[pool(4, 0, 9), labelled], &[picky], 100).raise, [0, 4]);
    }

    #[test]
    fn a_group_of_unknown_size_takes_what_it_may_hold() {
        let mut unknown = pool(0, 0, 9);
        unknown.capacity = None;
        unknown.per_worker = Some(1);
        assert_eq!(plan(&[unknown], &[shape(64, 8, 3)], 100).raise, [3]);
    }

    proptest! {
        #[test]
        fn no_limit_is_ever_broken_and_nothing_is_added_that_nobody_needs(
            pools in prop::collection::vec((1_u64..9, 0_u64..3, 0_usize..6, 0_usize..4, 0_usize..4, 0_usize..4), 0..4),
            shapes in prop::collection::vec((1_u64..9, 0_u64..3, 0_usize..9), 0..4),
            limit in 0_usize..12,
        ) {
            let pools: Vec<Pool> = pools.into_iter().map(|(cpus, gpus, max, min, attached, starting)| Pool {
                min,
                attached,
                starting,
                ..pool(cpus, gpus, max)
            }).collect();
            let shapes: Vec<Shape> = shapes.into_iter().map(|(cpus, gpus, count)| shape(cpus, gpus, count)).collect();
            let plan = plan(&pools, &shapes, limit);
            prop_assert!(plan.raise.iter().sum::<usize>() <= limit);
            let wanted: usize = shapes.iter().map(|shape| shape.count).sum();
            let mut beyond_min = 0;
            for (pool, raise) in pools.iter().zip(&plan.raise) {
                prop_assert!(*raise == 0 || pool.there() + raise <= pool.max.max(pool.min));
                beyond_min += raise.saturating_sub(pool.min.saturating_sub(pool.there()));
            }
            prop_assert!(beyond_min <= wanted);
            for (shape, unmet) in shapes.iter().zip(&plan.unmet) {
                let could = pools.iter().any(|pool| pool.could_hold(shape));
                prop_assert!(unmet != &Some(Unmet::Full) || could);
            }
        }
    }
}
