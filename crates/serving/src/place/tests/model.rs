//! Random problems, and what must hold of an answer, worked out without the solver's own arithmetic.

use proptest::{prelude::*, strategy::Strategy as Random};

use super::{super::Strategy, *};

fn kinds() -> impl Random<Value = Kind> {
    prop_oneof![1 => Just(Kind::Preprocess), 4 => Just(Kind::Inference)]
}

pub(super) fn strategies() -> impl Random<Value = Strategy> {
    prop_oneof![
        Just(Strategy::Default),
        Just(Strategy::Pack),
        Just(Strategy::Spread),
        Just(Strategy::StrictPack),
        Just(Strategy::StrictSpread),
    ]
}

/// CPUs, memory and a custom resource, in coarse steps so that things just fit or just do not.
fn amounts(most: u64) -> impl Random<Value = Amounts> {
    (0..=most, 0..=most, prop::option::of(0..=most)).prop_map(|(cpus, memory, custom)| Amounts {
        cpus: cpus * UNIT / 4,
        memory,
        custom: custom.map(|n| ("tpu".to_owned(), n * UNIT)).into_iter().collect(),
        ..Amounts::default()
    })
}

/// Up to three GPUs with up to four units of memory each; some workers have a part of one.
fn worker_amounts() -> impl Random<Value = Amounts> {
    let gpus = prop_oneof![Just(0_u64), (1_u64..4).prop_map(|n| 4 * n), 1_u64..8];
    (amounts(16), gpus, 0_u64..5).prop_map(|(amounts, quarters, vram)| Amounts {
        gpus: quarters * UNIT / 4,
        vram: quarters.div_ceil(4) * vram,
        ..amounts
    })
}

fn replica_amounts() -> impl Random<Value = Amounts> {
    let gpus = prop_oneof![
        3 => Just(0_u64),
        3 => 1_u64..4,
        1 => Just(4_u64),
        1 => Just(8_u64),
        1 => Just(6_u64)
    ];
    let vram = prop_oneof![2 => Just(0_u64), 1 => 1_u64..4];
    (amounts(5), gpus, vram).prop_map(|(amounts, quarters, vram)| Amounts {
        gpus: quarters * UNIT / 4,
        vram,
        ..amounts
    })
}

fn workers(reserved: bool) -> impl Random<Value = Worker> {
    let zone = prop::option::of(prop_oneof![Just("a"), Just("b")]);
    let taken = if reserved {
        worker_amounts().boxed()
    } else {
        Just(Amounts::default()).boxed()
    };
    let room = prop::option::weighted(0.3, 0_usize..4);
    (kinds(), 0_usize..4, worker_amounts(), taken, room, zone).prop_map(
        |(kind, node, capacity, mut reserved, room, zone)| {
            // A quarter of what a worker could have.
            reserved.cpus /= 4;
            reserved.memory /= 4;
            reserved.gpus /= 4;
            reserved.vram /= 4;
            reserved.custom.clear();
            Worker {
                kind,
                node,
                capacity,
                reserved,
                reserved_gpus: Vec::new(),
                room,
                labels: zone
                    .map(|zone| ("zone".to_owned(), zone.to_owned()))
                    .into_iter()
                    .collect(),
            }
        },
    )
}

fn selectors() -> impl Random<Value = Selector> {
    prop_oneof![
        3 => Just(selector(&[])),
        1 => Just(selector(&[("zone", "a")])),
        1 => Just(selector(&[("zone", "!a")])),
    ]
}

pub(super) fn groups(replicas: std::ops::Range<usize>) -> impl Random<Value = Group> {
    let avoid = prop::collection::btree_set(0_usize..8, 0..3);
    let gang = prop_oneof![2 => Just(1_usize), 1 => 2_usize..4];
    let prefer = prop::collection::vec(selectors(), 0..3);
    let per_node = prop::option::weighted(0.3, 1_usize..4);
    let first = (kinds(), replica_amounts(), replicas, avoid);
    (first, strategies(), gang, per_node, selectors(), prefer).prop_map(
        |((kind, need, replicas, avoid), strategy, gang, per_node, selector, prefer)| Group {
            kind,
            need,
            replicas,
            avoid,
            strategy,
            gang,
            per_node,
            selector,
            prefer,
        },
    )
}

/// With `reserved`, some of the workers is taken by what the solver is not told the place of.
pub(super) fn problems(reserved: bool) -> impl Random<Value = Problem> {
    let workers = prop::collection::vec(workers(reserved), 0..8);
    (workers, prop::collection::vec(groups(0..6), 0..5))
        .prop_map(|(workers, groups)| Problem { workers, groups })
}

/// Problems of one group that trying everything can solve.
pub(super) fn small() -> impl Random<Value = Problem> {
    let one = groups(1..6).prop_map(|mut group| {
        // Needs of which several fit, or there is nothing to choose.
        group.kind = Kind::Inference;
        group.need.cpus = group.need.cpus.min(UNIT / 2);
        group.need.memory = 0;
        group.need.custom.clear();
        group
    });
    let workers = workers(false).prop_map(|mut worker| {
        worker.kind = Kind::Inference;
        worker
    });
    (prop::collection::vec(workers, 1..5), one).prop_map(|(workers, group)| Problem {
        workers,
        groups: vec![group],
    })
}

/// Strictly spread gangs on nodes with few places, where which node a gang takes decides about the others.
pub(super) fn spread_out() -> impl Random<Value = (Problem, Placement)> {
    let workers = prop::collection::vec((1_u64..3, any::<bool>()), 3..7);
    let previous = prop::collection::vec(prop::option::of(0_usize..6), 6);
    (workers, 2_usize..4, 2_usize..4, previous).prop_map(|(workers, gang, gangs, previous)| {
        let mut group = strategic(Strategy::StrictSpread, gang * gangs, gang);
        group.prefer = vec![selector(&[("zone", "a")])];
        let worker = |(node, (places, wanted)): (usize, (u64, bool))| Worker {
            node,
            labels: labels(if wanted { &[("zone", "a")] } else { &[] }),
            ..worker(Kind::Inference, cpus(places))
        };
        let problem = Problem {
            workers: workers.into_iter().enumerate().map(worker).collect(),
            groups: vec![group],
        };
        (problem, vec![previous])
    })
}

/// Replicas that share GPUs, and the order in which they come.
pub(super) fn sharing() -> impl Random<Value = (Problem, Vec<usize>)> {
    let worker = (2_u64..5, 0_u64..2).prop_map(|(gpus, vram)| {
        let amounts = Amounts {
            gpus: gpus * UNIT,
            vram: vram * gpus * 8,
            ..Amounts::default()
        };
        worker(Kind::Inference, amounts)
    });
    let group = (1_u64..10, prop_oneof![3 => Just(0_u64), 1 => 1_u64..5]).prop_map(|(tenths, vram)| {
        let amounts = Amounts {
            gpus: tenths * UNIT / 10,
            vram,
            ..Amounts::default()
        };
        group(Kind::Inference, amounts, 0)
    });
    let groups = prop::collection::vec(group, 2..5);
    let arrivals = prop::collection::vec(0_usize..100, 1..14);
    (prop::collection::vec(worker, 1..3), groups, arrivals).prop_map(|(workers, groups, mut arrivals)| {
        arrivals.iter_mut().for_each(|group| *group %= groups.len());
        (Problem { workers, groups }, arrivals)
    })
}

pub(super) fn placements() -> impl Random<Value = Placement> {
    prop::collection::vec(prop::collection::vec(prop::option::of(0_usize..9), 0..7), 0..6)
}

/// Fails if anything is given twice or to whom it must not be.
pub(super) fn check(problem: &Problem, previous: &Placement, solution: &Solution) {
    capacities(problem, solution);
    for (g, (group, places)) in problem.groups.iter().zip(&solution.placement).enumerate() {
        assert_eq!(places.len(), group.replicas);
        assert_eq!(places.contains(&None), solution.reasons[g].is_some());
        for worker in places.iter().flatten() {
            let worker = &problem.workers[*worker];
            assert_eq!(worker.kind, group.kind);
            assert!(group.selector.matches(&worker.labels));
        }
        let node = |worker: usize| problem.workers[worker].node;
        for at in places.iter().flatten().map(|worker| node(*worker)) {
            let there = places
                .iter()
                .flatten()
                .filter(|worker| node(**worker) == at)
                .count();
            assert!(
                there <= group.per_node.unwrap_or(usize::MAX),
                "node {at} holds {there}"
            );
        }
        let scope = if group.gang > 1 {
            group.gang
        } else {
            group.replicas.max(1)
        };
        for (start, members) in (0..).step_by(scope).zip(places.chunks(scope)) {
            let mut nodes: Vec<usize> = members.iter().flatten().map(|worker| node(*worker)).collect();
            let all = nodes.len();
            nodes.sort_unstable();
            nodes.dedup();
            match group.strategy {
                Strategy::StrictPack => assert!(nodes.len() < 2, "on nodes {nodes:?}"),
                Strategy::StrictSpread => assert_eq!(nodes.len(), all, "twice on one node"),
                Strategy::Default | Strategy::Pack | Strategy::Spread => {}
            }
            if group.gang > 1 && members.contains(&None) {
                let before = |i: usize| previous.get(g).and_then(|before| *before.get(i)?);
                let stays = (start..)
                    .zip(members)
                    .all(|(i, at)| at.is_none() || *at == before(i));
                assert!(stays, "a gang is placed in part: {members:?}");
            }
        }
    }
}

/// Fails if a worker or one of its GPUs gives more than it has.
fn capacities(problem: &Problem, solution: &Solution) {
    for (w, worker) in problem.workers.iter().enumerate() {
        let mut free = worker.capacity.clone();
        free.take(&worker.reserved);
        let mut room = worker.room.unwrap_or(usize::MAX);
        let gpus = worker.capacity.gpus.div_ceil(UNIT).max(1);
        let whole = worker.capacity.gpus / UNIT;
        let mut left: Vec<(u64, u64)> = (0..gpus)
            .map(|gpu| {
                let share = if gpu < whole {
                    UNIT
                } else {
                    worker.capacity.gpus % UNIT
                };
                let all = worker.capacity.gpus.max(1);
                let part = if worker.capacity.gpus == 0 { 1 } else { share };
                (share, worker.capacity.vram * part / all)
            })
            .collect();
        for (g, group) in problem.groups.iter().enumerate() {
            for (place, devices) in solution.placement[g].iter().zip(&solution.devices[g]) {
                if *place != Some(w) {
                    assert!(place.is_some() || devices.is_empty());
                    continue;
                }
                assert!(
                    group.need.fits(&free) && room > 0,
                    "worker {w} is over its capacity"
                );
                free.take(&group.need);
                room -= 1;
                let count = match group.need.gpus {
                    0 => u64::from(group.need.vram > 0),
                    share if share < UNIT => 1,
                    whole => whole / UNIT,
                };
                assert_eq!(devices.len() as u64, count);
                for gpu in devices {
                    let share = group.need.gpus.min(UNIT);
                    let vram = group.need.vram.div_ceil(count);
                    let left = &mut left[*gpu];
                    assert!(
                        share <= left.0 && vram <= left.1,
                        "GPU {gpu} of worker {w} is over"
                    );
                    *left = (left.0 - share, left.1 - vram);
                }
            }
        }
    }
}
