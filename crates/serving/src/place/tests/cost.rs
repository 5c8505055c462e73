//! A mesh of the size that the module is made for: that it is solved, and what that costs.

use super::{super::Strategy, *};

const WORKERS: usize = 1_000;
const GROUPS: usize = 50;
const REPLICAS: usize = 5_000;

/// A thousand workers of four kinds of machine, and fifty groups of all strategies that fill them to nine tenths.
fn mesh() -> Problem {
    let workers = (0..WORKERS).map(|i| {
        let capacity = Amounts {
            cpus: 8 * UNIT,
            gpus: 4 * UNIT,
            memory: 64 << 30,
            vram: 96 << 30,
            custom: [(format!("accelerator_type:{}", ["L4", "A10"][i % 2]), UNIT)].into(),
        };
        Worker {
            // Two workers on a machine.
            node: i / 2,
            labels: labels(&[("zone", ["a", "b", "c"][i % 3]), ("disk", "fast")]),
            ..worker(Kind::Inference, capacity)
        }
    });
    let groups = (0..GROUPS).map(|i| {
        let need = Amounts {
            cpus: UNIT,
            gpus: [UNIT / 2, UNIT, UNIT / 4, 0, UNIT / 2][i % 5],
            memory: 4 << 30,
            vram: [8, 16, 4, 6, 8][i % 5] << 30,
            custom: if i % 4 == 0 {
                [("accelerator_type:L4".to_owned(), UNIT / 1000)].into()
            } else {
                BTreeMap::new()
            },
        };
        let strategy = [
            Strategy::Default,
            Strategy::Pack,
            Strategy::Spread,
            Strategy::StrictPack,
            Strategy::StrictSpread,
        ][i / 5 % 5];
        Group {
            strategy,
            // Half of them in gangs; the strict ones always, or a node would have to hold all.
            gang: if i % 2 == 0 || i / 5 % 5 > 2 { 4 } else { 1 },
            per_node: (i % 7 == 0).then_some(8),
            selector: if i % 3 == 0 {
                selector(&[("zone", "!c")])
            } else {
                Selector::default()
            },
            prefer: vec![selector(&[("zone", "a")]), selector(&[("zone", "b")])],
            ..group(Kind::Inference, need, REPLICAS / GROUPS)
        }
    });
    Problem {
        workers: workers.collect(),
        groups: groups.collect(),
    }
}

fn without(mesh: &Problem, worker: usize) -> Problem {
    let mut smaller = mesh.clone();
    smaller.workers[worker].room = Some(0);
    smaller
}

#[test]
fn a_large_mesh_is_placed_and_a_lost_worker_moves_its_replicas_only() {
    let mesh = mesh();
    let before = solve(&mesh, &Vec::new());
    model::check(&mesh, &Vec::new(), &before);
    assert!(before.placement.iter().flatten().all(Option::is_some));
    let lost = before.placement[0][0].unwrap();
    let smaller = without(&mesh, lost);
    let after = solve_at(&smaller, &before.placement, &before.devices);
    model::check(&smaller, &before.placement, &after);
    for (group, places) in smaller.groups.iter().zip(&after.placement) {
        // What must join its gang has nowhere else to go.
        assert!(group.strategy == Strategy::StrictPack || places.iter().all(Option::is_some));
    }
    for (before, after) in before
        .placement
        .iter()
        .flatten()
        .zip(after.placement.iter().flatten())
    {
        assert!(before == after || *before == Some(lost));
    }
}

/// Prints medians; run it with `--release --run-ignored only --no-capture`.
#[test]
#[ignore = "measures; says nothing in a debug build"]
#[allow(clippy::disallowed_types)] // Nothing here waits: the clock is the point.
fn what_a_large_mesh_costs() {
    let time = |name: &str, run: &dyn Fn() -> Solution| {
        let mut times: Vec<f64> = (0..25)
            .map(|_| {
                let start = std::time::Instant::now();
                let solution = std::hint::black_box(run());
                let ms = start.elapsed().as_secs_f64() * 1e3;
                drop(solution);
                ms
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{name}: median {:.2} ms, slowest {:.2} ms", times[12], times[24]);
    };
    let mesh = mesh();
    let before = solve(&mesh, &Vec::new());
    let pending = before
        .placement
        .iter()
        .flatten()
        .filter(|place| place.is_none())
        .count();
    println!("{WORKERS} workers, {REPLICAS} replicas in {GROUPS} groups, {pending} without a place");
    time("from nothing", &|| solve(&mesh, &Vec::new()));
    let smaller = without(&mesh, before.placement[0][0].unwrap());
    time("one worker lost", &|| {
        solve_at(&smaller, &before.placement, &before.devices)
    });
    time("one worker lost, GPUs unknown", &|| {
        solve(&smaller, &before.placement)
    });
    time("nothing to do", &|| {
        solve_at(&mesh, &before.placement, &before.devices)
    });
    for strategy in [
        Strategy::Default,
        Strategy::Pack,
        Strategy::Spread,
        Strategy::StrictPack,
        Strategy::StrictSpread,
    ] {
        for gang in [1, 4] {
            let mut mesh = mesh.clone();
            for group in &mut mesh.groups {
                (group.strategy, group.gang) = (strategy, gang);
            }
            time(&format!("all {strategy}, gangs of {gang}"), &|| {
                solve(&mesh, &Vec::new())
            });
        }
    }
    // Gangs that cannot all be placed, and then lose members: the matching at its largest.
    let mut apart = mesh.clone();
    apart.groups.truncate(1);
    for group in &mut apart.groups {
        (group.strategy, group.gang, group.replicas) = (Strategy::StrictSpread, 4, 2 * REPLICAS);
        group.need = cpus(3);
        (group.per_node, group.selector) = (None, Selector::default());
    }
    let placed = solve(&apart, &Vec::new());
    time(
        "one group of 2,500 strictly spread gangs, half of which fit",
        &|| solve(&apart, &Vec::new()),
    );
    for worker in apart.workers.iter_mut().step_by(10) {
        worker.room = Some(0);
    }
    time("the same, a tenth of the workers lost", &|| {
        solve_at(&apart, &placed.placement, &placed.devices)
    });
    // Short of everything: a tenth of the workers, and everything is explained.
    let mut short = mesh;
    short.workers.truncate(WORKERS / 10);
    time("a tenth of the workers", &|| solve(&short, &Vec::new()));
    let half = solve(&short, &Vec::new());
    time("a tenth of the workers, again", &|| {
        solve_at(&short, &half.placement, &half.devices)
    });
}
