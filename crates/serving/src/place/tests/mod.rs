//! Examples of what stays as it always was; strategies, GPUs, labels and reasons have files of their own.

mod cost;
mod gpus;
mod labels;
mod model;
mod property;
mod reasons;
mod strategies;

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
        node: 0,
        capacity,
        reserved: Amounts::default(),
        reserved_gpus: Vec::new(),
        room: None,
        labels: BTreeMap::new(),
    }
}

fn group(kind: Kind, need: Amounts, replicas: usize) -> Group {
    Group {
        kind,
        need,
        replicas,
        avoid: BTreeSet::new(),
        strategy: Strategy::Default,
        gang: 1,
        per_node: None,
        selector: Selector::default(),
        prefer: Vec::new(),
    }
}

/// Inference workers that have so many CPUs, each on the node given with it.
fn on_nodes(workers: &[(usize, u64)]) -> Vec<Worker> {
    let worker = |(node, n): &(usize, u64)| Worker {
        node: *node,
        ..worker(Kind::Inference, cpus(*n))
    };
    workers.iter().map(worker).collect()
}

/// Inference replicas of one CPU that lie as the strategy says.
fn strategic(strategy: Strategy, replicas: usize, gang: usize) -> Group {
    Group {
        strategy,
        gang,
        ..group(Kind::Inference, cpus(1), replicas)
    }
}

fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn selector(labels: &[(&str, &str)]) -> Selector {
    let parse = |(k, v): &(&str, &str)| ((*k).to_owned(), Match::parse(v).unwrap());
    Selector(labels.iter().map(parse).collect())
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

#[test]
fn the_largest_replicas_are_placed_before_small_ones_take_their_room() {
    let problem = Problem {
        workers: vec![worker(Kind::Inference, cpus(4)), worker(Kind::Inference, cpus(4))],
        groups: vec![
            group(Kind::Inference, cpus(1), 4),
            group(Kind::Inference, cpus(4), 1),
        ],
    };
    let solution = solve(&problem, &Vec::new());
    assert_eq!(solution.placement, [vec![Some(1); 4], vec![Some(0)]]);
}

#[test]
fn among_equals_the_group_with_fewer_workers_to_choose_from_comes_first() {
    let mut workers = vec![worker(Kind::Inference, cpus(1)), worker(Kind::Inference, cpus(1))];
    workers[0].labels = labels(&[("zone", "a")]);
    let mut picky = group(Kind::Inference, cpus(1), 1);
    picky.selector = selector(&[("zone", "a")]);
    let problem = Problem {
        workers,
        groups: vec![group(Kind::Inference, cpus(1), 1), picky],
    };
    assert_eq!(solve(&problem, &Vec::new()).placement, [[Some(1)], [Some(0)]]);
}

#[test]
fn among_equals_scarce_resources_and_large_holes_are_left_alone() {
    let gpu = Amounts {
        gpus: UNIT,
        ..cpus(4)
    };
    let problem = Problem {
        workers: vec![
            worker(Kind::Inference, gpu),
            worker(Kind::Inference, cpus(8)),
            worker(Kind::Inference, cpus(4)),
        ],
        groups: vec![group(Kind::Inference, cpus(1), 1)],
    };
    assert_eq!(solve(&problem, &Vec::new()).placement, [[Some(2)]]);
}

#[test]
fn amounts_that_are_no_amounts_are_zero() {
    assert_eq!(
        [units(f64::NAN), units(-1.0), units(f64::NEG_INFINITY)],
        [0, 0, 0]
    );
}
