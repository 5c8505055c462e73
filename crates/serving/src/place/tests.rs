use proptest::prelude::*;

use super::*;

fn cpus(n: u64) -> Amounts {
    Amounts {
        cpus: n * UNIT,
        ..Amounts::default()
    }
}

fn worker(kind: Kind, capacity: Amounts) -> Worker {
    Worker {
        kind,
        capacity,
        reserved: Amounts::default(),
        room: None,
    }
}

fn group(kind: Kind, need: Amounts, replicas: usize) -> Group {
    Group {
        kind,
        need,
        replicas,
        avoid: BTreeSet::new(),
    }
}

fn reason(problem: &Problem) -> String {
    let solution = solve(problem, &Vec::new());
    solution.reasons.into_iter().flatten().next().unwrap().to_string()
}

#[test]
fn replicas_of_a_group_are_spread_over_the_workers_with_the_fewest_of_it() {
    let problem = Problem {
        workers: vec![
            worker(Kind::Inference, cpus(8)),
            worker(Kind::Preprocess, cpus(8)),
            worker(Kind::Inference, cpus(8)),
        ],
        groups: vec![
            group(Kind::Inference, cpus(1), 4),
            group(Kind::Preprocess, cpus(1), 1),
        ],
    };
    let solution = solve(&problem, &Vec::new());
    assert_eq!(
        solution.placement,
        [vec![Some(0), Some(2), Some(0), Some(2)], vec![Some(1)]]
    );
    assert_eq!(solution.reasons, [None, None]);
}

#[test]
fn a_group_fills_the_emptier_worker_even_when_another_group_came_first() {
    let problem = Problem {
        workers: vec![worker(Kind::Inference, cpus(8)), worker(Kind::Inference, cpus(8))],
        groups: vec![
            group(Kind::Inference, cpus(1), 1),
            group(Kind::Inference, cpus(1), 1),
        ],
    };
    assert_eq!(
        solve(&problem, &Vec::new()).placement,
        [vec![Some(0)], vec![Some(1)]]
    );
}

#[test]
fn a_worker_with_room_for_one_holds_one() {
    let mut one = worker(Kind::Inference, cpus(8));
    one.room = Some(1);
    let problem = Problem {
        workers: vec![one],
        groups: vec![group(Kind::Inference, cpus(1), 2)],
    };
    assert_eq!(solve(&problem, &Vec::new()).placement, [[Some(0), None]]);
    assert_eq!(
        reason(&problem),
        "the one inference worker holds as many replicas as it may; add a worker"
    );
}

#[test]
fn an_avoided_worker_gets_only_what_no_other_can_hold() {
    let mut problem = Problem {
        workers: vec![worker(Kind::Inference, cpus(4)), worker(Kind::Inference, cpus(2))],
        groups: vec![group(Kind::Inference, cpus(1), 3)],
    };
    problem.groups[0].avoid.insert(0);
    assert_eq!(
        solve(&problem, &Vec::new()).placement,
        [[Some(1), Some(1), Some(0)]]
    );
}

#[test]
fn what_is_reserved_is_not_given_again() {
    let mut busy = worker(Kind::Inference, cpus(2));
    busy.reserved = cpus(1);
    let problem = Problem {
        workers: vec![busy],
        groups: vec![group(Kind::Inference, cpus(2), 1)],
    };
    assert_eq!(
        reason(&problem),
        "no inference worker has 2 free CPUs: the largest has 1 free of 2; add a worker or lower num_cpus",
    );
}

#[test]
fn the_reason_names_what_is_lacking_and_what_to_do() {
    let none = Problem {
        workers: vec![],
        groups: vec![group(Kind::Inference, cpus(1), 1)],
    };
    assert_eq!(reason(&none), "no inference worker is attached");

    let small = Problem {
        workers: vec![worker(Kind::Inference, cpus(2))],
        groups: vec![group(Kind::Inference, cpus(4), 1)],
    };
    assert_eq!(
        reason(&small),
        "no inference worker has 4 CPUs: the largest has 2 (free: 2); start a larger worker or lower num_cpus",
    );

    let half_gpu = Amounts {
        gpus: UNIT / 2,
        ..Amounts::default()
    };
    let gpu = Problem {
        workers: vec![worker(
            Kind::Inference,
            Amounts {
                gpus: UNIT,
                ..cpus(2)
            },
        )],
        groups: vec![group(Kind::Inference, half_gpu, 3)],
    };
    assert_eq!(
        reason(&gpu),
        "no inference worker has 0.5 free GPUs: the largest has 0 free of 1; add a worker or lower num_gpus",
    );

    let apart = Problem {
        workers: vec![
            worker(Kind::Inference, cpus(4)),
            worker(
                Kind::Inference,
                Amounts {
                    gpus: UNIT,
                    ..Amounts::default()
                },
            ),
        ],
        groups: vec![group(
            Kind::Inference,
            Amounts {
                gpus: UNIT,
                ..cpus(1)
            },
            1,
        )],
    };
    assert_eq!(
        reason(&apart),
        "no inference worker has 1 CPU, 1 GPU free together; add a worker or lower the replica's need",
    );
}

#[test]
fn custom_resources_count_and_an_unknown_one_is_lacking() {
    let tpu = |n: u64| Amounts {
        custom: [("tpu".to_owned(), n * UNIT)].into(),
        ..Amounts::default()
    };
    let problem = Problem {
        workers: vec![worker(Kind::Inference, tpu(4))],
        groups: vec![group(Kind::Inference, tpu(3), 2)],
    };
    assert_eq!(solve(&problem, &Vec::new()).placement, [[Some(0), None]]);
    assert_eq!(
        reason(&problem),
        "no inference worker has 3 free tpu: the largest has 1 free of 4; add a worker or lower resources.tpu",
    );
}

#[test]
fn a_previous_place_that_no_longer_holds_the_replica_is_given_up() {
    let problem = Problem {
        workers: vec![worker(Kind::Inference, cpus(1)), worker(Kind::Inference, cpus(2))],
        groups: vec![
            group(Kind::Inference, cpus(2), 1),
            group(Kind::Inference, cpus(1), 2),
        ],
    };
    let previous = vec![vec![Some(0)], vec![Some(7), Some(0)]];
    let solution = solve(&problem, &previous);
    assert_eq!(solution.placement, [vec![Some(1)], vec![None, Some(0)]]);
    assert!(solution.reasons[1].is_some());
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Preprocess), Just(Kind::Inference)]
}

fn amounts(most: u64) -> impl Strategy<Value = Amounts> {
    (0..=most, 0..=most / 2, 0..=most, prop::option::of(0..=most)).prop_map(|(cpus, gpus, memory, custom)| {
        Amounts {
            cpus: cpus * UNIT / 4,
            gpus: gpus * UNIT / 4,
            memory,
            custom: custom.map(|n| ("tpu".to_owned(), n * UNIT)).into_iter().collect(),
        }
    })
}

fn problems() -> impl Strategy<Value = Problem> {
    let workers = (kinds(), amounts(16), amounts(4), prop::option::of(0_usize..4)).prop_map(
        |(kind, capacity, reserved, room)| Worker {
            kind,
            capacity,
            reserved,
            room,
        },
    );
    let avoid = prop::collection::btree_set(0_usize..10, 0..4);
    let groups = (kinds(), amounts(6), 0_usize..6, avoid).prop_map(|(kind, need, replicas, avoid)| Group {
        kind,
        need,
        replicas,
        avoid,
    });
    (
        prop::collection::vec(workers, 0..8),
        prop::collection::vec(groups, 0..5),
    )
        .prop_map(|(workers, groups)| Problem { workers, groups })
}

fn placements() -> impl Strategy<Value = Placement> {
    prop::collection::vec(prop::collection::vec(prop::option::of(0_usize..10), 0..7), 0..6)
}

/// What each worker has left, checking on the way that nothing is given twice.
fn left(problem: &Problem, placement: &Placement) -> Vec<(Amounts, usize)> {
    let mut left: Vec<(Amounts, usize)> = problem
        .workers
        .iter()
        .map(|w| {
            let mut free = w.capacity.clone();
            free.take(&w.reserved);
            (free, w.room.unwrap_or(usize::MAX))
        })
        .collect();
    for (group, places) in problem.groups.iter().zip(placement) {
        assert_eq!(places.len(), group.replicas);
        for worker in places.iter().flatten() {
            assert_eq!(problem.workers[*worker].kind, group.kind);
            let (free, room) = &mut left[*worker];
            assert!(
                group.need.fits(free) && *room > 0,
                "worker {worker} is over its capacity"
            );
            free.take(&group.need);
            *room -= 1;
        }
    }
    left
}

proptest! {
    #[test]
    fn no_worker_is_over_capacity_and_what_fits_is_placed(problem in problems(), previous in placements()) {
        let solution = solve(&problem, &previous);
        let left = left(&problem, &solution.placement);
        for ((group, places), reason) in problem.groups.iter().zip(&solution.placement).zip(&solution.reasons) {
            let unplaced = places.iter().any(Option::is_none);
            prop_assert_eq!(unplaced, reason.is_some());
            if unplaced {
                let fits = problem.workers.iter().zip(&left)
                    .any(|(w, (free, room))| w.kind == group.kind && *room > 0 && group.need.fits(free));
                prop_assert!(!fits, "a replica has no place though one fits");
            }
        }
    }

    #[test]
    fn solving_a_solution_again_changes_nothing(problem in problems(), previous in placements()) {
        let first = solve(&problem, &previous);
        let second = solve(&problem, &first.placement);
        prop_assert_eq!(first.placement, second.placement);
    }

    #[test]
    fn the_loss_of_a_worker_moves_its_replicas_only(problem in problems(), lost in 0_usize..8) {
        let before = solve(&problem, &Vec::new()).placement;
        let mut smaller = problem;
        if let Some(worker) = smaller.workers.get_mut(lost) {
            worker.room = Some(0);
        }
        let after = solve(&smaller, &before).placement;
        for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
            if before.is_some() && *before != Some(lost) {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn a_fraction_survives_the_way_to_units_and_back(hundredths in 0_u32..100_000) {
        let amount = f64::from(hundredths) / 100.0;
        prop_assert!((fraction(units(amount)) - amount).abs() < 1e-9);
    }
}

#[test]
fn amounts_that_are_no_amounts_are_zero() {
    assert_eq!(
        [units(f64::NAN), units(-1.0), units(f64::NEG_INFINITY)],
        [0, 0, 0]
    );
}
