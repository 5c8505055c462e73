use super::*;

/// Where the one group goes.
fn places(workers: Vec<Worker>, group: Group) -> Vec<Option<usize>> {
    let problem = Problem {
        workers,
        groups: vec![group],
    };
    solve(&problem, &Vec::new()).placement.remove(0)
}

fn again(workers: Vec<Worker>, group: Group, previous: &[Option<usize>]) -> Vec<Option<usize>> {
    let problem = Problem {
        workers,
        groups: vec![group],
    };
    solve(&problem, &vec![previous.to_vec()]).placement.remove(0)
}

#[test]
fn default_counts_replicas_by_worker_and_spread_counts_them_by_node() {
    let workers = on_nodes(&[(1, 4), (2, 4), (2, 4), (2, 4)]);
    let sorted = |strategy| {
        let mut places = places(workers.clone(), strategic(strategy, 4, 1));
        places.sort_unstable();
        places
    };
    assert_eq!(sorted(Strategy::Default), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(sorted(Strategy::Spread), [Some(0), Some(0), Some(1), Some(2)]);
}

#[test]
fn pack_takes_the_fewest_nodes_and_of_these_the_tightest() {
    let workers = on_nodes(&[(0, 4), (1, 2), (1, 1), (2, 8)]);
    let packed = |n| places(workers.clone(), strategic(Strategy::Pack, n, 1));
    assert_eq!(packed(3), [Some(2), Some(1), Some(1)], "node 1 holds just these");
    assert_eq!(packed(4), [Some(0); 4]);
    assert_eq!(packed(8), [Some(3); 8]);
    assert_eq!(
        packed(9)[8],
        Some(2),
        "the largest node, and the rest where it is tightest"
    );
}

#[test]
fn pack_goes_on_where_the_group_is() {
    let workers = on_nodes(&[(0, 4), (1, 9)]);
    let group = strategic(Strategy::Pack, 4, 1);
    assert_eq!(
        again(workers, group, &[Some(1), None, None, None]),
        [Some(1); 4],
        "node 0 would be tighter"
    );
}

#[test]
fn strict_pack_of_a_group_takes_one_node_or_none() {
    let workers = on_nodes(&[(0, 2), (1, 2), (1, 2)]);
    assert_eq!(
        places(workers.clone(), strategic(Strategy::StrictPack, 4, 1)),
        [Some(1), Some(2), Some(1), Some(2)]
    );
    assert_eq!(places(workers, strategic(Strategy::StrictPack, 5, 1)), [None; 5]);
}

#[test]
fn a_strictly_packed_group_that_runs_grows_on_its_node_as_far_as_that_goes() {
    let workers = on_nodes(&[(0, 3), (1, 9)]);
    let group = strategic(Strategy::StrictPack, 4, 1);
    assert_eq!(
        again(workers, group, &[Some(0), None, None, None]),
        [Some(0), Some(0), Some(0), None]
    );
}

#[test]
fn strict_spread_takes_different_nodes_or_leaves_replicas_pending() {
    let workers = on_nodes(&[(0, 4), (1, 4), (1, 4)]);
    let group = strategic(Strategy::StrictSpread, 3, 1);
    assert_eq!(places(workers, group), [Some(0), Some(1), None]);
}

#[test]
fn a_gang_is_placed_whole_or_waits_whole() {
    let workers = on_nodes(&[(0, 2), (1, 3)]);
    for strategy in [Strategy::Default, Strategy::Pack, Strategy::Spread] {
        let places = places(workers.clone(), strategic(strategy, 6, 3));
        assert_eq!(places.iter().flatten().count(), 3, "{strategy}: {places:?}");
        assert_eq!(places[3..], [None; 3], "{strategy}: {places:?}");
    }
}

#[test]
fn replicas_that_are_too_few_for_a_gang_wait() {
    let places = places(on_nodes(&[(0, 9)]), strategic(Strategy::Default, 5, 2));
    assert_eq!(places, [Some(0), Some(0), Some(0), Some(0), None]);
}

#[test]
fn spread_gangs_put_their_members_on_different_nodes_where_they_can() {
    let workers = on_nodes(&[(0, 8), (1, 8), (2, 1)]);
    let places = places(workers, strategic(Strategy::Spread, 9, 3));
    assert_eq!(places[..3], [Some(2), Some(0), Some(1)]);
    for gang in [&places[3..6], &places[6..]] {
        let on = |node| gang.iter().filter(|place| **place == Some(node)).count();
        assert_eq!((on(0).max(on(1)), on(0) + on(1)), (2, 3), "{gang:?}");
    }
}

#[test]
fn strictly_packed_gangs_each_take_a_node_of_their_own_choice() {
    let workers = on_nodes(&[(0, 3), (1, 5), (2, 4)]);
    assert_eq!(
        places(workers, strategic(Strategy::StrictPack, 8, 2)),
        [0, 0, 2, 2, 1, 1, 2, 2].map(Some),
        "the fewest of the group first, then the tightest"
    );
}

#[test]
fn a_lost_member_comes_back_to_the_node_of_its_strictly_packed_gang() {
    let workers = on_nodes(&[(0, 9), (1, 1), (1, 1), (1, 1)]);
    let group = strategic(Strategy::StrictPack, 2, 2);
    assert_eq!(
        again(workers.clone(), group.clone(), &[Some(2), None]),
        [Some(2), Some(1)]
    );
    // Where its node has no room it waits, and the other stays.
    assert_eq!(
        again(workers[..2].to_vec(), group, &[Some(1), None]),
        [Some(1), None]
    );
}

#[test]
fn a_gang_that_lost_members_comes_before_a_new_one() {
    let workers = on_nodes(&[(0, 4)]);
    let group = strategic(Strategy::Default, 4, 2);
    assert_eq!(
        again(workers, group.clone(), &[None, None, Some(0), None]),
        [Some(0); 4]
    );
    let smaller = on_nodes(&[(0, 3)]);
    assert_eq!(
        again(smaller, group, &[None, None, Some(0), None]),
        [None, None, Some(0), Some(0)]
    );
}

#[test]
fn strictly_spread_gangs_are_matched_anew_where_taking_turns_leaves_one_without() {
    // Each gang of two needs two of three nodes. Taking the wanted nodes 0 and 1 first would leave two places on node 2
    // for the other gang.
    let mut workers = on_nodes(&[(0, 1), (1, 1), (2, 2)]);
    for worker in &mut workers[..2] {
        worker.labels = labels(&[("zone", "a")]);
    }
    let mut group = strategic(Strategy::StrictSpread, 4, 2);
    group.prefer = vec![selector(&[("zone", "a")])];
    let places = places(workers, group);
    assert!(places.iter().all(Option::is_some), "{places:?}");
    assert!(places[0] != places[1] && places[2] != places[3], "{places:?}");
}

#[test]
fn lost_members_of_strictly_spread_gangs_make_way_for_each_other() {
    // The first gang may take node 2 or 3, the second (which is on 3) only 2.
    let workers = on_nodes(&[(0, 1), (2, 1), (3, 2)]);
    let group = strategic(Strategy::StrictSpread, 4, 2);
    assert_eq!(
        again(workers, group, &[Some(0), None, Some(2), None]),
        [Some(0), Some(2), Some(2), Some(1)]
    );
}

#[test]
fn a_node_holds_no_more_of_a_group_than_it_may() {
    let workers = on_nodes(&[(0, 4), (0, 4), (1, 4)]);
    for strategy in [Strategy::Default, Strategy::Pack, Strategy::Spread] {
        let mut group = strategic(strategy, 6, 1);
        group.per_node = Some(2);
        let places = places(workers.clone(), group);
        assert_eq!(places.iter().flatten().count(), 4, "{strategy}");
        assert_eq!(
            places.iter().flatten().filter(|w| **w == 2).count(),
            2,
            "{strategy}"
        );
    }
}

#[test]
fn what_breaks_a_hard_limit_does_not_stay() {
    let workers = on_nodes(&[(0, 4), (0, 4), (1, 4)]);
    let previous = [Some(0), Some(1), Some(2)];
    let after = |strategy| again(workers.clone(), strategic(strategy, 3, 1), &previous);
    assert_eq!(after(Strategy::StrictSpread), [Some(0), None, Some(2)]);
    assert_eq!(after(Strategy::StrictPack), [Some(0), Some(1), Some(0)]);
    let mut capped = strategic(Strategy::Default, 3, 1);
    capped.per_node = Some(1);
    assert_eq!(again(workers, capped, &previous), [Some(0), None, Some(2)]);
}

#[test]
fn strategies_respect_soft_labels_before_nodes() {
    let mut workers = on_nodes(&[(0, 4), (1, 1), (2, 1)]);
    workers[1].labels = labels(&[("zone", "a")]);
    workers[2].labels = labels(&[("zone", "b")]);
    for strategy in [Strategy::Default, Strategy::Pack, Strategy::Spread] {
        let mut group = strategic(strategy, 3, 1);
        group.prefer = vec![selector(&[("zone", "b")]), selector(&[("zone", "in(a, b)")])];
        assert_eq!(
            places(workers.clone(), group),
            [Some(2), Some(1), Some(0)],
            "{strategy}"
        );
    }
    // A gang that must be on one node takes the first node that the least wanted of its workers allows.
    let mut packed = strategic(Strategy::StrictPack, 2, 2);
    packed.prefer = vec![selector(&[("zone", "b")])];
    assert_eq!(places(workers, packed), [Some(0), Some(0)]);
}
