use proptest::prelude::*;

use super::*;
use crate::admission::Queue;

const NOW: Duration = Duration::ZERO;

fn claim(class: Class, tenant: &str, weight: u32) -> Claim {
    Claim {
        class,
        tenant: tenant.into(),
        weight,
    }
}

/// Tickets in the order in which they are drawn.
fn tickets() -> impl FnMut() -> Ticket {
    let mut queue = Queue::<()>::default();
    move || queue.ticket()
}

/// Serves whoever is first.
fn serve<T>(line: &mut Line<T>) -> Option<T> {
    let (ticket, ..) = line.first()?;
    line.serve(ticket).map(|(_, item)| item)
}

#[test]
fn a_higher_class_goes_first_and_who_came_first_within_one() {
    let (mut line, mut ticket) = (Line::default(), tickets());
    for (class, name) in [
        (Class::Low, "low"),
        (Class::Normal, "first"),
        (Class::High, "high"),
        (Class::Normal, "second"),
    ] {
        line.enter(ticket(), &claim(class, "", 1), (Cost::ROW, name), NOW);
    }
    let order: Vec<_> = line.iter().map(|(_, _, name)| *name).collect();
    assert_eq!(order, ["high", "first", "second", "low"]);
    let served: Vec<_> = std::iter::from_fn(|| serve(&mut line)).collect();
    assert_eq!(served, order);
}

#[test]
fn who_floods_the_line_gets_no_more_than_who_asks_now_and_then() {
    let (mut line, mut ticket) = (Line::default(), tickets());
    for _ in 0..100 {
        let flood = claim(Class::Normal, "flood", 1);
        line.enter(ticket(), &flood, (Cost::rows(40), "flood"), NOW);
    }
    let quiet = claim(Class::Normal, "quiet", 1);
    line.enter(ticket(), &quiet, (Cost::rows(40), "quiet"), NOW);
    assert_eq!(serve(&mut line), Some("flood"), "it came first");
    assert_eq!(serve(&mut line), Some("quiet"));
}

#[test]
fn doing_nothing_earns_nothing() {
    let (mut line, mut ticket) = (Line::default(), tickets());
    let mut ask = |line: &mut Line<_>, tenant| {
        line.enter(
            ticket(),
            &claim(Class::Normal, tenant, 1),
            (Cost::ROW, tenant),
            NOW,
        );
    };
    ask(&mut line, "late");
    assert_eq!(serve(&mut line), Some("late"));
    for _ in 0..100 {
        ask(&mut line, "steady");
    }
    for _ in 0..50 {
        assert_eq!(serve(&mut line), Some("steady"));
    }
    for _ in 0..10 {
        ask(&mut line, "late");
    }
    let next: Vec<_> = (0..8).filter_map(|_| serve(&mut line)).collect();
    assert_eq!(next.iter().filter(|who| **who == "late").count(), 4, "{next:?}");
}

#[test]
fn coming_one_at_a_time_buys_no_more_than_the_share() {
    let (mut line, mut ticket) = (Line::default(), tickets());
    for _ in 0..1_000 {
        line.enter(
            ticket(),
            &claim(Class::Normal, "many", 1),
            (Cost::ROW, "many"),
            NOW,
        );
    }
    let big = claim(Class::Normal, "big", 1);
    line.enter(ticket(), &big, (Cost::rows(10), "big"), NOW);
    let mut rows = [0u64, 0];
    for _ in 0..220 {
        match serve(&mut line) {
            Some("big") => {
                rows[0] += 10;
                // Its next one comes when the one before is served, never before.
                line.enter(ticket(), &big, (Cost::rows(10), "big"), NOW);
            }
            Some(_) => rows[1] += 1,
            None => panic!("nobody waits"),
        }
    }
    assert!(rows[0].abs_diff(rows[1]) <= 20, "{rows:?}");
}

#[test]
fn who_leaves_unserved_costs_its_tenant_nothing() {
    let (mut line, mut ticket) = (Line::default(), tickets());
    let left: Vec<_> = (0..50).map(|_| ticket()).collect();
    for ticket in &left {
        line.enter(
            *ticket,
            &claim(Class::Normal, "a", 1),
            (Cost::rows(100), "a"),
            NOW,
        );
    }
    line.enter(ticket(), &claim(Class::Normal, "b", 1), (Cost::ROW, "b"), NOW);
    for ticket in &left[1..] {
        assert!(line.leave(*ticket).is_some());
    }
    assert_eq!(line.len(), 2);
    assert_eq!(serve(&mut line), Some("a"));
    assert_eq!(serve(&mut line), Some("b"));
    assert!(line.is_empty());
    assert!(line.leave(left[1]).is_none());
}

#[test]
fn who_was_served_and_lost_its_replica_is_next_and_is_not_charged_twice() {
    let (mut line, mut ticket) = (Line::default(), tickets());
    let (early, late) = (ticket(), ticket());
    line.enter(late, &claim(Class::High, "b", 1), (Cost::ROW, "high"), NOW);
    line.come_back(early, (Cost::rows(1_000), "lost"), NOW);
    assert_eq!(serve(&mut line), Some("lost"));
    assert_eq!(serve(&mut line), Some("high"));
}

#[test]
fn age_lifts_class_by_class_until_nothing_is_before_it() {
    let (mut line, mut ticket) = (Line::default(), tickets());
    let low = ticket();
    line.enter(low, &claim(Class::Low, "batch", 1), (Cost::ROW, "low"), NOW);
    let high = claim(Class::High, "people", 1);
    let mut at = NOW;
    let mut served = 0;
    // People never stop to ask, and there is always one more of them in line.
    line.enter(ticket(), &high, (Cost::ROW, "high"), at);
    loop {
        line.enter(ticket(), &high, (Cost::ROW, "high"), at);
        line.lift(at);
        match serve(&mut line) {
            Some("low") => break,
            Some(_) => served += 1,
            None => panic!("nobody waits"),
        }
        at += Duration::from_secs(1);
        assert!(at < LIFT * 3, "it starves");
    }
    assert!(at >= LIFT * 2, "served after {served}, at {at:?}");
}

#[test]
fn accounts_of_those_who_have_gone_are_dropped() {
    let (mut line, mut ticket) = (Line::default(), tickets());
    let steady = claim(Class::Normal, "steady", 1);
    line.enter(ticket(), &steady, (Cost::ROW, ()), NOW);
    for i in 0..10_000 {
        let once = ticket();
        line.enter(
            once,
            &claim(Class::Normal, &i.to_string(), 1),
            (Cost::ROW, ()),
            NOW,
        );
        line.enter(ticket(), &steady, (Cost::ROW, ()), NOW);
        line.serve(once);
        let (first, ..) = line.first().unwrap();
        line.serve(first);
    }
    assert!(line.lanes[1].accounts() <= 40, "{}", line.lanes[1].accounts());
}

/// A tenant's weight, and the costs of its requests.
fn tenants() -> impl Strategy<Value = Vec<(u32, Vec<u64>)>> {
    let tenant = (1u32..5, prop::collection::vec(1u64..200, 1..40));
    prop::collection::vec(tenant, 1..6)
}

proptest! {
    #[test]
    fn while_both_wait_no_tenant_gets_a_request_more_than_its_share(tenants in tenants()) {
        let (mut line, mut ticket) = (Line::default(), tickets());
        let mut left: Vec<usize> = Vec::new();
        for (i, (weight, costs)) in tenants.iter().enumerate() {
            left.push(costs.len());
            let claim = claim(Class::Normal, &i.to_string(), *weight);
            for cost in costs {
                line.enter(ticket(), &claim, (Cost::rows(*cost), i), NOW);
            }
        }
        let per_weight = |rows: u64, i: usize| rows as f64 / f64::from(tenants[i].0);
        let largest = |i: usize| per_weight(*tenants[i].1.iter().max().unwrap(), i);
        let mut got = vec![0u64; tenants.len()];
        while let Some((ticket, cost, i)) = line.first().map(|(ticket, cost, i)| (ticket, cost, *i)) {
            line.serve(ticket);
            got[i] += cost.get();
            left[i] -= 1;
            for a in 0..tenants.len() {
                for b in (0..tenants.len()).filter(|b| left[*b] > 0 && left[a] > 0) {
                    let apart = (per_weight(got[a], a) - per_weight(got[b], b)).abs();
                    prop_assert!(apart <= largest(a) + largest(b) + 1e-3, "{apart}");
                }
            }
        }
        prop_assert!(left.iter().all(|left| *left == 0), "everybody is served: {left:?}");
    }

    #[test]
    fn the_walk_is_the_order_in_which_they_are_served(
        asks in prop::collection::vec((0u8..3, 0u8..4, 1u32..4, 1u64..100, 0u8..10), 0..60),
    ) {
        let (mut line, mut ticket) = (Line::default(), tickets());
        for (i, (class, tenant, weight, cost, what)) in asks.iter().enumerate() {
            let class = [Class::Low, Class::Normal, Class::High][usize::from(*class)];
            let ticket = ticket();
            line.enter(ticket, &claim(class, &tenant.to_string(), *weight), (Cost::rows(*cost), i), NOW);
            match what {
                0 => drop(line.leave(ticket)),
                1 => drop(serve(&mut line)),
                2 => line.come_back(ticket, (Cost::rows(*cost), i), NOW),
                3 => line.lift(LIFT * u32::try_from(i).unwrap()),
                _ => {}
            }
        }
        let walked: Vec<_> = line.iter().map(|(_, _, i)| *i).collect();
        prop_assert_eq!(walked.len(), line.len());
        let served: Vec<_> = std::iter::from_fn(|| serve(&mut line)).collect();
        prop_assert_eq!(served, walked);
        prop_assert!(line.is_empty());
    }
}
