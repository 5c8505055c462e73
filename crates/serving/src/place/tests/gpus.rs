use proptest::{prelude::*, strategy::Strategy as Random};

use super::{
    super::gpus::{Demand, Gpus, Tenant, arrange},
    *,
};

const GIB: u64 = 1 << 30;

/// Quarters of GPUs, and GiB of their memory.
fn gpu(quarters: u64, gib: u64) -> Amounts {
    Amounts {
        gpus: quarters * UNIT / 4,
        vram: gib * GIB,
        ..Amounts::default()
    }
}

fn gpu_worker(gpus: u64, gib: u64) -> Worker {
    worker(Kind::Inference, gpu(4 * gpus, gib))
}

fn gpu_group(quarters: u64, gib: u64, replicas: usize) -> Group {
    group(Kind::Inference, gpu(quarters, gib), replicas)
}

#[test]
fn a_fraction_goes_to_a_gpu_in_use_and_never_onto_two() {
    let problem = Problem {
        workers: vec![gpu_worker(2, 0)],
        groups: vec![gpu_group(3, 0, 1), gpu_group(1, 0, 2), gpu_group(2, 0, 2)],
    };
    let solution = solve(&problem, &Vec::new());
    // 0.75 and 0.25 fill one GPU; of 0.5, 0.5 and 0.25 only the former fit the other.
    assert_eq!(
        solution.devices,
        [vec![vec![0]], vec![vec![0], vec![]], vec![vec![1], vec![1]]]
    );
}

#[test]
fn whole_gpus_are_taken_alone() {
    let problem = Problem {
        workers: vec![gpu_worker(4, 0)],
        groups: vec![gpu_group(1, 0, 1), gpu_group(8, 0, 2)],
    };
    let solution = solve(&problem, &vec![vec![Some(0)]]);
    assert_eq!(solution.devices, [vec![vec![0]], vec![vec![1, 2], vec![]]]);
}

#[test]
fn memory_of_gpus_is_counted_gpu_by_gpu() {
    let problem = Problem {
        workers: vec![gpu_worker(2, 32)],
        groups: vec![gpu_group(1, 10, 3)],
    };
    let solution = solve(&problem, &Vec::new());
    assert_eq!(
        solution.devices,
        [[vec![0], vec![1], vec![]]],
        "12 GiB are free, six on each"
    );

    // What takes two GPUs has half of its memory on each.
    let pair = Problem {
        workers: vec![gpu_worker(2, 32)],
        groups: vec![gpu_group(8, 32, 1)],
    };
    assert_eq!(solve(&pair, &Vec::new()).devices, [[vec![0, 1]]]);
}

#[test]
fn memory_alone_is_admitted_without_a_share() {
    let problem = Problem {
        workers: vec![gpu_worker(1, 24)],
        groups: vec![gpu_group(0, 10, 3)],
    };
    let solution = solve(&problem, &Vec::new());
    assert_eq!(solution.placement, [[Some(0), Some(0), None]]);
}

#[test]
fn a_replica_stays_on_the_gpus_it_is_known_to_have() {
    let problem = Problem {
        workers: vec![gpu_worker(2, 0)],
        groups: vec![gpu_group(2, 0, 3), gpu_group(4, 0, 1)],
    };
    let (places, devices) = (vec![vec![Some(0), Some(0)]], vec![vec![vec![1], vec![0]]]);
    let known = solve_at(&problem, &places, &devices);
    assert_eq!(known.devices, [vec![vec![1], vec![0], vec![0]], vec![vec![]]]);
    // Nobody knows where they are: they may as well share one, and the other is free.
    let unknown = solve(&problem, &places);
    assert_eq!(unknown.placement[1], [Some(0)]);
}

#[test]
fn gpus_that_cannot_be_as_said_are_taken_for_unknown() {
    let problem = Problem {
        workers: vec![gpu_worker(1, 0)],
        groups: vec![gpu_group(2, 0, 2)],
    };
    let devices = vec![vec![vec![7], vec![0, 0]]];
    let solution = solve_at(&problem, &vec![vec![Some(0), Some(0)]], &devices);
    assert_eq!(solution.devices, [[[0], [0]]]);
}

#[test]
fn what_is_reserved_leaves_whole_gpus_to_others() {
    let mut busy = gpu_worker(3, 0);
    busy.reserved = gpu(6, 0);
    let problem = Problem {
        workers: vec![busy],
        groups: vec![gpu_group(4, 0, 2), gpu_group(2, 0, 2)],
    };
    let solution = solve(&problem, &Vec::new());
    assert_eq!(solution.placement, [[Some(0), None], [Some(0), None]]);
}

#[test]
fn what_is_reserved_on_a_known_gpu_is_taken_off_that_one() {
    for (busy, free) in [(0, 1), (1, 0)] {
        let mut worker = gpu_worker(2, 0);
        // A replica that stops has a GPU, and a failed one whose GPU nobody knows has a half.
        worker.reserved = gpu(6, 0);
        worker.reserved_gpus = vec![(gpu(4, 0), vec![busy])];
        let problem = Problem {
            workers: vec![worker],
            groups: vec![gpu_group(2, 0, 2)],
        };
        assert_eq!(solve(&problem, &Vec::new()).devices, [[vec![free], vec![]]]);
    }
}

#[test]
fn a_gpu_that_is_reserved_where_it_cannot_be_takes_nothing_from_what_stays() {
    let mut worker = gpu_worker(2, 0);
    worker.reserved = gpu(4, 0);
    worker.reserved_gpus = vec![(gpu(4, 0), vec![0])];
    let problem = Problem {
        workers: vec![worker],
        groups: vec![gpu_group(4, 0, 2)],
    };
    let solution = solve_at(&problem, &vec![vec![Some(0)]], &vec![vec![vec![0]]]);
    assert_eq!(solution.devices, [[vec![0], vec![]]]);
}

#[test]
fn a_part_above_one_gpu_is_never_placed() {
    let problem = Problem {
        workers: vec![gpu_worker(4, 0)],
        groups: vec![gpu_group(6, 0, 1)],
    };
    assert_eq!(solve(&problem, &vec![vec![Some(0)]]).placement, [[None]]);
}

#[test]
fn an_accelerator_type_is_a_custom_resource() {
    let typed = |name: &str, units: u64| Amounts {
        custom: [(format!("accelerator_type:{name}"), units)].into(),
        ..gpu(4, 0)
    };
    let problem = Problem {
        workers: vec![
            worker(Kind::Inference, typed("A100", UNIT)),
            worker(Kind::Inference, typed("L4", UNIT)),
        ],
        groups: vec![group(Kind::Inference, typed("L4", UNIT / 1000), 1)],
    };
    assert_eq!(solve(&problem, &Vec::new()).placement, [[Some(1)]]);
}

#[test]
fn a_worker_that_claims_countless_gpus_costs_no_more_than_a_large_one() {
    let all = Amounts {
        gpus: u64::MAX,
        vram: u64::MAX,
        ..Amounts::default()
    };
    let problem = Problem {
        workers: vec![worker(Kind::Inference, all.clone())],
        groups: vec![gpu_group(4, 1, 2), group(Kind::Inference, all, 1)],
    };
    let solution = solve(&problem, &Vec::new());
    assert_eq!(solution.placement[0], [Some(0), Some(0)]);
}

/// True if the demands can be seated, tried in every way.
fn seats(free: &[(u64, u64)], pieces: &[(u64, u64)]) -> bool {
    let Some(((share, vram), rest)) = pieces.split_first() else {
        return true;
    };
    (0..free.len()).any(|gpu| {
        let mut after = free.to_vec();
        let fits = *share <= after[gpu].0 && *vram <= after[gpu].1;
        if fits {
            after[gpu] = (after[gpu].0 - share, after[gpu].1 - vram);
        }
        fits && seats(&after, rest)
    })
}

fn pieces(demands: &[Amounts]) -> Vec<(u64, u64)> {
    let of = |need: &Amounts| {
        let n = need.gpus / UNIT;
        match n {
            0 if need.gpus == 0 && need.vram == 0 => vec![],
            0 => vec![(need.gpus, need.vram)],
            n => (0..n).map(|_| (UNIT, need.vram.div_ceil(n))).collect(),
        }
    };
    demands.iter().flat_map(of).collect()
}

fn demands() -> impl Random<Value = Amounts> {
    prop_oneof![
        (0_u64..4, 0_u64..5).prop_map(|(quarters, gib)| gpu(quarters, gib)),
        (1_u64..3, 0_u64..5).prop_map(|(whole, gib)| gpu(4 * whole, gib)),
    ]
}

proptest! {
    #[test]
    fn an_arrangement_is_found_if_there_is_one(
        n in 1_u64..4, gib in 0_u64..4, demands in prop::collection::vec(demands(), 0..6), pin in any::<bool>()
    ) {
        let whole = Gpus::of(&gpu(4 * n, n * gib));
        let free: Vec<(u64, u64)> = whole.free().iter().map(|gpu| (gpu.share, gpu.vram)).collect();
        let tenant = |need: &Amounts| Tenant { demand: Demand::of(need), pinned: false, gpus: Vec::new() };
        let mut tenants: Vec<Tenant> = demands.iter().map(tenant).collect();
        let found = arrange(&whole, &mut tenants);
        prop_assert_eq!(found.is_some(), seats(&free, &pieces(&demands)));
        if let Some(left) = found {
            // What was found holds: all of it can be pinned.
            tenants.iter_mut().for_each(|tenant| tenant.pinned = pin || tenant.demand.count > 1);
            let again = arrange(&whole, &mut tenants).unwrap();
            let sum = |gpus: &Gpus| gpus.free().iter().map(|gpu| (gpu.share, gpu.vram)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            prop_assert_eq!(sum(&left), sum(&again));
        }
    }

    #[test]
    fn the_count_of_alike_demands_is_exact_and_each_takes_one_off(
        n in 1_u64..4, gib in 0_u64..4, before in prop::collection::vec(demands(), 0..4), need in demands()
    ) {
        let mut gpus = Gpus::of(&gpu(4 * n, n * gib));
        for need in &before {
            gpus.put(&Demand::of(need));
        }
        let free: Vec<(u64, u64)> = gpus.free().iter().map(|gpu| (gpu.share, gpu.vram)).collect();
        let demand = Demand::of(&need);
        prop_assume!(demand.count > 0);
        let count = gpus.count(&demand);
        prop_assert!(seats(&free, &pieces(&vec![need.clone(); count])));
        prop_assert!(!seats(&free, &pieces(&vec![need; count + 1])));
        for left in (0..count).rev() {
            prop_assert!(gpus.put(&demand).is_some());
            prop_assert_eq!(gpus.count(&demand), left);
        }
        prop_assert!(gpus.put(&demand).is_none());
    }
}
