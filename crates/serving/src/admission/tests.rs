use proptest::prelude::*;

use super::{terms::DOUBTED_AFTER, *};

const SECOND: Duration = Duration::from_secs(1);
const ONE: Cost = Cost::ROW;
const NOW: Duration = Duration::ZERO;
const UNKNOWN: Pace = Pace {
    row_ns: 0,
    replicas: 1,
};

fn queue<T>(requests: usize) -> Queue<T> {
    Queue::new(Bounds {
        requests,
        ..Bounds::default()
    })
}

/// What nobody in particular asks for.
fn of(cost: Cost) -> Ask<'static> {
    static NOBODY: std::sync::LazyLock<Claim> = std::sync::LazyLock::new(Claim::default);
    Ask {
        claim: &NOBODY,
        cost,
        bytes: 0,
    }
}

fn scene(free: usize, pace: Pace) -> Scene {
    Scene { free, pace, now: NOW }
}

fn admit<T>(queue: &mut Queue<T>, cost: Cost, (free, pace): (usize, Pace)) -> Result<Admission, Full> {
    queue.admit(of(cost), scene(free, pace), &Trust::default())
}

fn enter<T>(queue: &mut Queue<T>, ticket: Ticket, cost: Cost, item: T) {
    queue.enter(ticket, (of(cost), false), item, NOW);
}

/// Replicas that take a second per row.
fn slow(replicas: usize) -> Pace {
    Pace {
        row_ns: 1_000_000_000,
        replicas,
    }
}

#[test]
fn free_slots_are_not_the_queue() {
    let mut queue = queue::<()>(0);
    assert_eq!(admit(&mut queue, ONE, (2, UNKNOWN)).unwrap().ahead, 0);
    assert_eq!(admit(&mut queue, ONE, (2, UNKNOWN)).unwrap().ahead, 0);
    assert_eq!(admit(&mut queue, ONE, (2, UNKNOWN)).unwrap_err().waiting, 0);
}

#[test]
fn the_bound_counts_those_on_their_way_and_those_in_line() {
    let mut queue = queue(3);
    let first = admit(&mut queue, ONE, (0, UNKNOWN)).unwrap().ticket;
    queue.arrived(of(ONE));
    enter(&mut queue, first, ONE, "first");
    assert_eq!(admit(&mut queue, ONE, (0, UNKNOWN)).unwrap().ahead, 1);
    assert_eq!(admit(&mut queue, ONE, (0, UNKNOWN)).unwrap().ahead, 2);
    assert_eq!(admit(&mut queue, ONE, (0, UNKNOWN)).unwrap_err().waiting, 3);
    queue.arrived(of(ONE));
    assert!(admit(&mut queue, ONE, (0, UNKNOWN)).is_ok());
}

#[test]
fn one_who_starts_again_goes_back_to_its_place() {
    let mut queue = queue(10);
    let early = queue.ticket();
    let late = queue.ticket();
    enter(&mut queue, late, ONE, "late");
    queue.enter(early, (of(ONE), true), "early", NOW);
    assert_eq!(queue.pop(), Some("early"));
    assert_eq!(queue.pop(), Some("late"));
}

#[test]
fn the_wait_is_the_work_ahead_of_those_who_find_no_slot() {
    let mut queue = queue::<()>(10);
    let wait = |queue: &mut Queue<()>, pace| admit(queue, Cost::rows(6), (2, pace)).unwrap().wait;
    assert_eq!(wait(&mut queue, slow(1)), Some(Duration::ZERO));
    assert_eq!(wait(&mut queue, UNKNOWN), Some(Duration::ZERO));
    assert_eq!(wait(&mut queue, slow(1)), Some(Duration::ZERO));
    // Three are before it, two of them find a slot.
    assert_eq!(wait(&mut queue, slow(1)), Some(SECOND * 6));
    assert_eq!(wait(&mut queue, slow(2)), Some(SECOND * 6));
    assert_eq!(
        wait(&mut queue, UNKNOWN),
        None,
        "nothing measured, nothing predicted"
    );
    assert_eq!(wait(&mut queue, slow(0)), None, "nobody works, nothing predicted");
}

#[test]
fn retry_after_is_the_time_of_the_whole_queue() {
    let mut queue = queue(2);
    for i in 0..2 {
        let ticket = queue.ticket();
        enter(&mut queue, ticket, Cost::rows(4), i);
    }
    let mut told = |pace| {
        admit(&mut queue, Cost::rows(2), (0, pace))
            .unwrap_err()
            .retry_after
    };
    assert_eq!(told(slow(1)), SECOND * 10);
    assert_eq!(told(slow(2)), SECOND * 5);
    assert_eq!(told(UNKNOWN), RETRY_UNKNOWN);
    assert_eq!(
        told(Pace {
            row_ns: 1,
            replicas: 1
        }),
        RETRY_RANGE.0
    );
    assert_eq!(
        told(Pace {
            row_ns: u64::MAX,
            replicas: 1
        }),
        RETRY_RANGE.1
    );
}

#[test]
fn a_deadline_that_the_work_would_miss_is_refused() {
    let basis = Basis {
        age: Duration::ZERO,
        under_way: false,
    };
    assert!(check_deadline(SECOND, SECOND, basis).is_ok());
    assert!(check_deadline(SECOND, SECOND * 2, basis).is_err());
    assert!(check_deadline(Duration::ZERO, Duration::ZERO, basis).is_err());
}

#[test]
fn an_old_prediction_refuses_nobody_who_could_put_it_right() {
    let check = |age, under_way| check_deadline(SECOND, SECOND * 100, Basis { age, under_way });
    assert!(check(DOUBTED_AFTER - Duration::from_millis(1), false).is_err());
    assert!(check(DOUBTED_AFTER, false).is_ok());
    assert!(check(DOUBTED_AFTER, true).is_err(), "who runs measures");
    let old = Basis {
        age: DOUBTED_AFTER,
        under_way: false,
    };
    assert!(check_deadline(Duration::ZERO, SECOND, old).is_err());
}

proptest! {
    #[test]
    fn never_more_than_the_bound_wait_and_they_leave_in_order(max in 0usize..8, free in 0usize..4, tries in 0usize..30) {
        let mut queue = queue(max);
        let mut admitted = Vec::new();
        for _ in 0..tries {
            if let Ok(admission) = admit(&mut queue, ONE, (free, UNKNOWN)) {
                prop_assert!(admission.ahead <= max);
                admitted.push(admission.ticket);
            }
        }
        prop_assert_eq!(admitted.len(), tries.min(max + free));
        for ticket in admitted.iter().rev() {
            queue.arrived(of(ONE));
            enter(&mut queue, *ticket, ONE, *ticket);
        }
        let served: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        prop_assert_eq!(served, admitted);
    }

    #[test]
    fn rows_are_those_of_whoever_is_there(costs in prop::collection::vec((1u64..1000, any::<bool>()), 0..30)) {
        let mut queue = queue(100);
        let mut there = 0;
        for (rows, leaves) in costs {
            let cost = Cost::rows(rows);
            let admission = admit(&mut queue, cost, (0, slow(1))).unwrap();
            let predicted = if admission.ahead == 0 { 0 } else { there };
            prop_assert_eq!(admission.wait, Some(SECOND * u32::try_from(predicted).unwrap()));
            queue.arrived(of(cost));
            enter(&mut queue, admission.ticket, cost, ());
            if leaves {
                queue.leave(admission.ticket);
            } else {
                there += rows;
            }
        }
    }
}

#[test]
fn one_whose_cost_was_not_known_keeps_its_place_and_is_told_the_time() {
    let mut queue = queue::<()>(10);
    let first = admit(&mut queue, Cost::rows(6), (0, slow(0))).unwrap();
    let second = admit(&mut queue, ONE, (0, slow(0))).unwrap();
    admit(&mut queue, Cost::rows(4), (0, slow(0))).unwrap();
    let trust = Trust::default();
    let change = (of(ONE), of(Cost::rows(3)));
    let settled = queue.settle(second, change, scene(0, slow(1)), &trust).unwrap();
    assert_eq!((settled.ticket, settled.ahead), (second.ticket, 1));
    assert_eq!(
        settled.wait,
        Some(SECOND * 5),
        "half of the ten rows of two others"
    );
    let change = (of(Cost::rows(6)), of(ONE));
    let settled = queue.settle(first, change, scene(5, slow(1)), &trust).unwrap();
    assert_eq!(settled.ahead, 0);
    for rows in [1, 3, 4] {
        queue.arrived(of(Cost::rows(rows)));
    }
    assert_eq!(
        admit(&mut queue, ONE, (0, slow(1))).unwrap().wait,
        Some(Duration::ZERO)
    );
}

fn claim(class: Class, tenant: &str) -> Claim {
    Claim {
        class,
        tenant: tenant.into(),
        weight: 1,
    }
}

fn ask(claim: &Claim) -> Ask<'_> {
    Ask {
        claim,
        cost: ONE,
        bytes: 0,
    }
}

#[test]
fn one_who_floods_the_queue_does_not_shut_the_others_out() {
    let (mut queue, trust) = (queue::<()>(8), Trust::default());
    let (flood, quiet) = (claim(Class::Normal, "flood"), claim(Class::Normal, "quiet"));
    let at = |seconds| Scene {
        now: SECOND * seconds,
        ..scene(0, UNKNOWN)
    };
    for _ in 0..8 {
        assert!(
            queue.admit(ask(&flood), at(0), &trust).is_ok(),
            "alone it has all"
        );
    }
    let refused = queue.admit(ask(&quiet), at(0), &trust).unwrap_err();
    assert_eq!(refused.bound, Bound::Requests);
    queue.arrived(ask(&flood));
    let refused = queue.admit(ask(&flood), at(1), &trust).unwrap_err();
    assert_eq!(refused.bound, Bound::Share, "somebody else was refused");
    assert!(queue.admit(ask(&quiet), at(1), &trust).is_ok());
    queue.arrived(ask(&quiet));
    // The other one does not come back.
    assert!(queue.admit(ask(&flood), at(30), &trust).is_ok());
}

#[test]
fn batches_leave_places_for_people() {
    let (mut queue, trust) = (queue::<()>(8), Trust::default());
    let (low, normal) = (claim(Class::Low, ""), claim(Class::Normal, ""));
    let scene = scene(0, UNKNOWN);
    for _ in 0..6 {
        assert!(queue.admit(ask(&low), scene, &trust).is_ok());
    }
    let refused = queue.admit(ask(&low), scene, &trust).unwrap_err();
    assert_eq!(refused.bound, Bound::Low);
    for _ in 0..2 {
        assert!(queue.admit(ask(&normal), scene, &trust).is_ok());
    }
    assert_eq!(queue.admit(ask(&normal), scene, &trust).unwrap_err().waiting, 8);
    assert_eq!(queue.present.of(Class::Low), 6);
}

#[test]
fn bytes_that_wait_are_bounded() {
    let bounds = Bounds {
        bytes: 100,
        ..Bounds::default()
    };
    let (mut queue, trust) = (Queue::new(bounds), Trust::default());
    let heavy = |bytes| Ask { bytes, ..of(ONE) };
    let full = scene(0, UNKNOWN);
    let first = queue.admit(heavy(400), full, &trust).unwrap();
    assert_eq!(
        queue.admit(heavy(1), full, &trust).unwrap_err().bound,
        Bound::Bytes,
        "one alone was let in"
    );
    assert!(queue.admit(heavy(0), full, &trust).is_ok());
    queue.arrived(heavy(400));
    queue.enter(first.ticket, (heavy(60), false), (), NOW);
    assert_eq!(queue.bytes(), 60);
    assert!(queue.admit(heavy(41), full, &trust).is_err());
    assert!(queue.admit(heavy(40), full, &trust).is_ok());
    let early = queue.admit(heavy(0), full, &trust).unwrap();
    let grown = queue.settle(early, (heavy(0), heavy(1)), full, &trust);
    assert_eq!(grown.unwrap_err().bound, Bound::Bytes);
    assert_eq!(queue.serve(first.ticket), Some(()));
    assert_eq!(queue.bytes(), 40);
}

#[test]
fn who_would_wait_for_too_long_is_refused_at_once() {
    let bounds = Bounds {
        age: SECOND * 5,
        ..Bounds::default()
    };
    let (mut queue, trust) = (Queue::<()>::new(bounds), Trust::default());
    let rows = |rows| of(Cost::rows(rows));
    assert!(queue.admit(rows(10), scene(0, slow(1)), &trust).is_ok());
    assert!(
        queue.admit(rows(4), scene(0, slow(1)), &trust).is_ok(),
        "half of 10 s"
    );
    let refused = queue.admit(of(ONE), scene(0, slow(1)), &trust).unwrap_err();
    assert_eq!(refused.bound, Bound::Age);
    assert!(queue.admit(of(ONE), scene(0, slow(3)), &trust).is_ok());
}

#[test]
fn who_is_served_before_others_is_told_less_of_them() {
    let (mut queue, trust) = (queue::<()>(1_000), Trust::default());
    let flood = claim(Class::Normal, "flood");
    for _ in 0..100 {
        assert!(queue.admit(ask(&flood), scene(0, slow(1)), &trust).is_ok());
    }
    let mut ahead = |class, tenant: &str| {
        let claim = claim(class, tenant);
        let admitted = queue.admit(ask(&claim), scene(0, slow(1)), &trust).unwrap();
        queue.arrived(ask(&claim));
        (admitted.ahead, admitted.wait)
    };
    assert_eq!(ahead(Class::High, "flood"), (0, Some(Duration::ZERO)));
    assert_eq!(ahead(Class::Normal, "quiet"), (1, Some(SECOND)));
    assert_eq!(ahead(Class::Normal, "flood"), (100, Some(SECOND * 100)));
    assert_eq!(ahead(Class::Low, "quiet").0, 100);
}
