use super::*;

const GIB: u64 = 1 << 30;

/// Why the one group is not placed, with everything else at its place.
fn why(workers: Vec<Worker>, groups: Vec<Group>, previous: &Placement) -> String {
    let solution = solve(&Problem { workers, groups }, previous);
    let mut reasons = solution.reasons.into_iter().flatten();
    let reason = reasons.next().unwrap().to_string();
    assert!(reasons.next().is_none(), "only one group has a reason");
    reason
}

fn of_gpus(quarters: u64, gib: u64) -> Amounts {
    Amounts {
        gpus: quarters * UNIT / 4,
        vram: gib * GIB,
        ..Amounts::default()
    }
}

#[test]
fn labels_that_no_worker_has_are_named_with_those_there_are() {
    let mut workers: Vec<Worker> = (0..3).map(|_| worker(Kind::Inference, cpus(1))).collect();
    workers[0].labels = labels(&[("zone", "eu"), ("gpu", "L4")]);
    workers[1].labels = labels(&[("zone", "us")]);
    workers[2].labels = labels(&[("zone", "us")]);
    let mut picky = group(Kind::Inference, cpus(1), 1);
    picky.selector = selector(&[("zone", "in(eu, asia)"), ("gpu", "!L4")]);
    assert_eq!(
        why(workers, vec![picky], &Vec::new()),
        "no inference worker has labels that match gpu: !L4, zone: in(asia, eu); they have no gpu and \
         zone=us (2 workers), gpu=L4 and zone=eu (1 worker); start a worker with such labels or change label_selector"
    );
}

#[test]
fn a_full_node_names_the_limit_that_it_reached() {
    let mut capped = strategic(Strategy::Default, 5, 1);
    capped.per_node = Some(2);
    assert_eq!(
        why(
            on_nodes(&[(0, 4), (1, 4), (2, 0)]),
            vec![capped.clone()],
            &Vec::new()
        ),
        "the 2 nodes with room hold 2 each, as many as max_replicas_per_node allows; add a node or raise \
         max_replicas_per_node"
    );
    assert_eq!(
        why(on_nodes(&[(0, 4)]), vec![capped], &Vec::new()),
        "the one node with room holds 2, as many as max_replicas_per_node allows; add a node or raise \
         max_replicas_per_node"
    );
}

#[test]
fn what_must_be_on_one_node_says_how_much_the_best_holds() {
    let workers = on_nodes(&[(0, 2), (1, 3)]);
    assert_eq!(
        why(
            workers.clone(),
            vec![strategic(Strategy::StrictPack, 4, 1)],
            &Vec::new()
        ),
        "4 must be on one node (STRICT_PACK), and the best of 2 nodes has room for 3; free or add a larger node, or \
         choose PACK"
    );
    let mut capped = strategic(Strategy::StrictPack, 3, 3);
    capped.per_node = Some(2);
    assert_eq!(
        why(workers.clone(), vec![capped], &Vec::new()),
        "3 must be on one node (STRICT_PACK), and the best of 2 nodes has room for 2; max_replicas_per_node is 2: \
         raise it or choose PACK"
    );
    assert_eq!(
        why(
            workers,
            vec![strategic(Strategy::StrictPack, 4, 4)],
            &vec![vec![Some(0), Some(0), None, None]]
        ),
        "2 more must join the others on their node (STRICT_PACK), which has room for 0; free or add a larger node, or \
         choose PACK"
    );
}

#[test]
fn what_must_be_apart_says_how_many_nodes_there_are() {
    let workers = on_nodes(&[(0, 2), (0, 2), (1, 3)]);
    for gang in [1, 5] {
        assert_eq!(
            why(
                workers.clone(),
                vec![strategic(Strategy::StrictSpread, 5, gang)],
                &Vec::new()
            ),
            "5 nodes are needed (STRICT_SPREAD), and 2 have one of them or room for one; add 3 nodes or choose SPREAD"
        );
    }
}

#[test]
fn a_gang_says_how_much_of_it_would_fit() {
    let workers = on_nodes(&[(0, 2), (1, 1)]);
    let gang = || strategic(Strategy::Pack, 4, 4);
    assert_eq!(
        why(workers.clone(), vec![gang()], &Vec::new()),
        "a gang of 4 is placed whole, and 3 of 4 would fit; add workers for 1 more"
    );
    assert_eq!(
        why(workers, vec![gang()], &vec![vec![Some(0), Some(0), None, None]]),
        "a gang of 4 lacks 2, and 1 of 2 would fit; add workers for 1 more"
    );
    assert_eq!(
        why(
            on_nodes(&[(0, 9)]),
            vec![strategic(Strategy::Default, 5, 4)],
            &Vec::new()
        ),
        "the last 1 make no gang of 4; make num_replicas a multiple of gang_size"
    );
}

#[test]
fn memory_of_gpus_is_named_for_one_gpu() {
    let worker = || worker(Kind::Inference, of_gpus(8, 48));
    assert_eq!(
        why(
            vec![worker()],
            vec![group(Kind::Inference, of_gpus(1, 30), 1)],
            &Vec::new()
        ),
        "no GPU of the inference workers has 30720 MiB of GPU memory: the largest has 24576 MiB (free: 24576 MiB); \
         start a worker with larger GPUs or lower vram_bytes"
    );
    assert_eq!(
        why(
            vec![worker()],
            vec![group(Kind::Inference, of_gpus(1, 20), 3)],
            &Vec::new()
        ),
        "no GPU of the inference workers has 20480 MiB of free GPU memory: the largest has 4096 MiB free of 24576 \
         MiB; add a worker or lower vram_bytes"
    );
}

#[test]
fn gpus_that_are_free_in_pieces_are_named_as_such() {
    let worker = || worker(Kind::Inference, of_gpus(8, 0));
    let three = || group(Kind::Inference, of_gpus(3, 0), 2);
    assert_eq!(
        why(
            vec![worker()],
            vec![three(), group(Kind::Inference, of_gpus(2, 0), 1)],
            &Vec::new()
        ),
        "no GPU of the inference workers has 0.5 free: 0.5 are free on one worker, but at most 0.25 on one GPU; add a \
         worker or lower num_gpus"
    );
    assert_eq!(
        why(
            vec![super::worker(Kind::Inference, of_gpus(16, 0))],
            vec![
                group(Kind::Inference, of_gpus(3, 0), 4),
                group(Kind::Inference, of_gpus(4, 0), 1)
            ],
            &vec![vec![Some(0); 4]]
        ),
        "no inference worker has 1 GPU wholly free: the best has 0, and 1 of GPUs in use; add a worker or let replicas \
         that share GPUs end"
    );
}

#[test]
fn a_part_above_one_gpu_says_that_it_must_be_whole() {
    assert_eq!(
        why(
            vec![worker(Kind::Inference, of_gpus(8, 0))],
            vec![group(Kind::Inference, of_gpus(6, 0), 1)],
            &Vec::new()
        ),
        "1.5 GPUs cannot be given: over 1 num_gpus must be whole"
    );
}
