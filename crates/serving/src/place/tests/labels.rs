use proptest::prelude::*;

use super::*;

#[test]
fn a_selector_reads_as_in_ray() {
    let set = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
    assert_eq!(Match::parse("spot"), Ok(Match::In(set(&["spot"]))));
    assert_eq!(Match::parse("!spot"), Ok(Match::NotIn(set(&["spot"]))));
    assert_eq!(
        Match::parse("in(A100, L4,H100)"),
        Ok(Match::In(set(&["A100", "H100", "L4"])))
    );
    assert_eq!(Match::parse("!in(a)"), Ok(Match::NotIn(set(&["a"]))));
    assert_eq!(Match::parse(""), Ok(Match::In(set(&[""]))), "there and empty");
    let long = "x".repeat(64);
    for bad in [
        "!",
        "in()",
        "in(a,)",
        "!!a",
        "-a",
        "a_",
        "a b",
        "in(a",
        "(a, b)",
        "in(a, !b)",
        &long,
    ] {
        let why = Match::parse(bad).unwrap_err();
        assert!(why.contains("write a, !a, in(a, b) or !in(a, b)"), "{bad}: {why}");
    }
}

#[test]
fn a_worker_without_the_label_matches_only_what_excludes_values() {
    let worker = labels(&[("zone", "a")]);
    assert!(selector(&[]).matches(&worker));
    assert!(selector(&[("zone", "in(a, b)"), ("gpu", "!L4")]).matches(&worker));
    assert!(!selector(&[("zone", "a"), ("gpu", "L4")]).matches(&worker));
    assert!(!selector(&[("zone", "!in(a, b)")]).matches(&worker));
}

#[test]
fn a_group_takes_only_workers_that_its_selector_matches() {
    let mut workers = vec![worker(Kind::Inference, cpus(4)), worker(Kind::Inference, cpus(1))];
    workers[1].labels = labels(&[("gpu", "L4")]);
    let mut picky = group(Kind::Inference, cpus(1), 2);
    picky.selector = selector(&[("gpu", "L4")]);
    let problem = Problem {
        workers,
        groups: vec![picky],
    };
    let solution = solve(&problem, &vec![vec![Some(0)]]);
    assert_eq!(
        solution.placement,
        [[Some(1), None]],
        "nor does it stay where it may not be"
    );
}

#[test]
fn soft_selectors_are_tried_in_order_and_an_avoided_worker_comes_last() {
    let mut workers: Vec<Worker> = (0..4).map(|_| worker(Kind::Inference, cpus(1))).collect();
    for (worker, zone) in workers.iter_mut().zip(["c", "b", "a", "a"]) {
        worker.labels = labels(&[("zone", zone)]);
    }
    let mut group = group(Kind::Inference, cpus(1), 4);
    group.prefer = vec![selector(&[("zone", "a")]), selector(&[("zone", "b")])];
    group.avoid.insert(2);
    let problem = Problem {
        workers,
        groups: vec![group],
    };
    assert_eq!(
        solve(&problem, &Vec::new()).placement,
        [[Some(3), Some(1), Some(0), Some(2)]]
    );
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(values in prop::collection::btree_set("[a-z0-9]([a-z._-]{0,5}[A-Z0-9])?", 1..4), not in any::<bool>()) {
        let it = if not { Match::NotIn(values) } else { Match::In(values) };
        prop_assert_eq!(Match::parse(&it.to_string()), Ok(it));
    }
}
