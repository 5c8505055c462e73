use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const ONE: Cost = Cost::ROW;
const UNKNOWN: Pace = Pace {
    row_ns: 0,
    replicas: 1,
};

/// Replicas that take a second per row.
fn slow(replicas: usize) -> Pace {
    Pace {
        row_ns: 1_000_000_000,
        replicas,
    }
}

#[test]
fn free_slots_are_not_the_queue() {
    let mut queue = Queue::<()>::new(0);
    assert_eq!(queue.admit(ONE, 2, UNKNOWN).unwrap().ahead, 0);
    assert_eq!(queue.admit(ONE, 2, UNKNOWN).unwrap().ahead, 0);
    assert_eq!(queue.admit(ONE, 2, UNKNOWN).unwrap_err().waiting, 0);
}

#[test]
fn the_bound_counts_those_on_their_way_and_those_in_line() {
    let mut queue = Queue::new(3);
    let first = queue.admit(ONE, 0, UNKNOWN).unwrap().ticket;
    queue.arrived(ONE);
    queue.enter(first, ONE, "first");
    assert_eq!(queue.admit(ONE, 0, UNKNOWN).unwrap().ahead, 1);
    assert_eq!(queue.admit(ONE, 0, UNKNOWN).unwrap().ahead, 2);
    assert_eq!(queue.admit(ONE, 0, UNKNOWN).unwrap_err().waiting, 3);
    queue.arrived(ONE);
    assert!(queue.admit(ONE, 0, UNKNOWN).is_ok());
}

#[test]
fn one_who_starts_again_goes_back_to_its_place() {
    let mut queue = Queue::new(10);
    let early = queue.ticket();
    let late = queue.ticket();
    queue.enter(late, ONE, "late");
    assert!(queue.is_first(early));
    assert!(queue.is_first(late));
    queue.enter(early, ONE, "early");
    assert!(!queue.is_first(late));
    assert_eq!(queue.pop(), Some("early"));
    assert_eq!(queue.pop(), Some("late"));
}

#[test]
fn the_wait_is_the_work_ahead_of_those_who_find_no_slot() {
    let mut queue = Queue::<()>::new(10);
    let wait = |queue: &mut Queue<()>, pace| queue.admit(Cost::rows(6), 2, pace).unwrap().wait;
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
    let mut queue = Queue::new(2);
    for i in 0..2 {
        let ticket = queue.ticket();
        queue.enter(ticket, Cost::rows(4), i);
    }
    let mut told = |pace| queue.admit(Cost::rows(2), 0, pace).unwrap_err().retry_after;
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
fn a_deadline_that_even_half_the_work_would_miss_is_refused() {
    let basis = Basis {
        age: Duration::ZERO,
        under_way: false,
    };
    assert!(check_deadline(SECOND, SECOND * 2, basis).is_ok());
    assert!(check_deadline(SECOND, SECOND * 3, basis).is_err());
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
        let mut queue = Queue::new(max);
        let mut admitted = Vec::new();
        for _ in 0..tries {
            if let Ok(admission) = queue.admit(ONE, free, UNKNOWN) {
                prop_assert!(admission.ahead <= max);
                admitted.push(admission.ticket);
            }
        }
        prop_assert_eq!(admitted.len(), tries.min(max + free));
        for ticket in admitted.iter().rev() {
            queue.arrived(ONE);
            queue.enter(*ticket, ONE, *ticket);
        }
        let served: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        prop_assert_eq!(served, admitted);
    }

    #[test]
    fn rows_are_those_of_whoever_is_there(costs in prop::collection::vec((1u64..1000, any::<bool>()), 0..30)) {
        let mut queue = Queue::new(100);
        let mut there = 0;
        for (rows, leaves) in costs {
            let cost = Cost::rows(rows);
            let admission = queue.admit(cost, 0, slow(1)).unwrap();
            let predicted = if admission.ahead == 0 { 0 } else { there };
            prop_assert_eq!(admission.wait, Some(SECOND * u32::try_from(predicted).unwrap()));
            queue.arrived(cost);
            queue.enter(admission.ticket, cost, ());
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
    let mut queue = Queue::<()>::new(10);
    let first = queue.admit(Cost::rows(6), 0, slow(0)).unwrap();
    let second = queue.admit(ONE, 0, slow(0)).unwrap();
    queue.admit(Cost::rows(4), 0, slow(0)).unwrap();
    let settled = queue.settle(second, (ONE, Cost::rows(3)), 0, slow(1));
    assert_eq!((settled.ticket, settled.ahead), (second.ticket, 1));
    assert_eq!(
        settled.wait,
        Some(SECOND * 5),
        "half of the ten rows of two others"
    );
    assert_eq!(queue.settle(first, (Cost::rows(6), ONE), 5, slow(1)).ahead, 0);
    for rows in [1, 3, 4] {
        queue.arrived(Cost::rows(rows));
    }
    assert_eq!(queue.admit(ONE, 0, slow(1)).unwrap().wait, Some(Duration::ZERO));
}
