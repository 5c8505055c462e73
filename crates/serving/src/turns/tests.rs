//! Turns of loops that ask, run and come back.

use super::*;
use proptest::prelude::*;

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Loops that always have work, run for a time; gives what each had of the device, in milliseconds.
fn run(loops: &[(u64, u32, u64)], gap: Duration, time: Duration) -> (Vec<u64>, Duration) {
    let mut turns = Turns::new();
    for (id, weight, _) in loops {
        turns.join(*id, *weight);
        assert!(turns.ask(*id));
    }
    let (mut now, mut idle) = (Duration::ZERO, Duration::ZERO);
    let mut spent = vec![0; loops.len()];
    // Who comes back, and when.
    let mut back: Option<(u64, Duration)> = None;
    while now < time {
        match turns.next(now) {
            Next::Run(id) => {
                assert_eq!(turns.next(now), Next::Busy);
                let index = loops.iter().position(|one| one.0 == id).unwrap();
                spent[index] += loops[index].2;
                now += ms(loops[index].2);
                if let Some((id, _)) = back.take() {
                    assert!(turns.ask(id));
                }
                turns.done(id, ms(loops[index].2), now, true);
                back = Some((id, now + gap));
            }
            Next::Wait(until) => {
                let (id, at) = back.take().expect("it waits for somebody");
                let to = if at < until {
                    assert!(turns.ask(id));
                    at
                } else {
                    back = Some((id, at));
                    until
                };
                idle += to - now;
                now = to;
            }
            Next::Idle => {
                let (id, at) = back.take().expect("somebody has work");
                idle += at - now;
                now = at;
                assert!(turns.ask(id));
            }
            Next::Busy => unreachable!("the call is over"),
        }
    }
    (spent, idle)
}

#[test]
fn a_model_with_long_calls_gets_no_more_time_than_one_with_short_ones() {
    let (spent, idle) = run(&[(1, 1, 100), (2, 1, 2)], Duration::from_micros(200), ms(20_000));
    assert!(spent[0].abs_diff(spent[1]) <= 200, "{spent:?}");
    assert!(idle < ms(20_000) / 10, "{idle:?}");
}

#[test]
fn a_weight_is_a_part_of_the_time() {
    let (spent, _) = run(&[(1, 3, 10), (2, 1, 10)], Duration::ZERO, ms(20_000));
    assert!(spent[0].abs_diff(3 * spent[1]) <= 100, "{spent:?}");
}

#[test]
fn who_does_not_come_back_in_time_is_not_waited_for() {
    let mut turns = Turns::new();
    for id in [1, 2] {
        turns.join(id, 1);
        assert!(turns.ask(id));
    }
    assert_eq!(turns.next(ms(0)), Next::Run(1));
    turns.done(1, ms(50), ms(50), true);
    assert_eq!(turns.next(ms(50)), Next::Run(2));
    turns.done(2, ms(1), ms(51), true);
    assert!(turns.ask(1));
    // It is 2's turn for 49 ms more, but 2 stays away.
    assert_eq!(turns.next(ms(51)), Next::Wait(ms(51) + GRACE));
    assert_eq!(turns.next(ms(51) + GRACE), Next::Run(1));
}

#[test]
fn strangers_are_refused_and_leaving_frees_the_device() {
    let mut turns = Turns::new();
    assert!(!turns.ask(7));
    assert_eq!(turns.next(ms(0)), Next::Idle);
    turns.join(7, 1);
    turns.join(8, 1);
    assert!(turns.ask(7) && turns.ask(8));
    assert_eq!(turns.next(ms(0)), Next::Run(7));
    turns.done(8, ms(5), ms(5), false);
    assert_eq!(turns.next(ms(5)), Next::Busy, "8 did not have it");
    turns.leave(7);
    assert_eq!(turns.next(ms(5)), Next::Run(8));
    turns.done(8, ms(5), ms(10), false);
    assert!(turns.ask(8));
    turns.withdraw(8);
    assert_eq!(turns.next(ms(10)), Next::Idle);
}

proptest! {
    #[test]
    fn busy_members_share_by_weight_within_the_bound(
        loops in prop::collection::vec((1..4_u32, 1..60_u64), 2..6),
        gap in 0..2000_u64,
    ) {
        let loops: Vec<_> = loops.iter().enumerate().map(|(id, (weight, cost))| (id as u64, *weight, *cost)).collect();
        let (spent, _) = run(&loops, Duration::from_micros(gap), ms(10_000));
        let quantum = loops.iter().map(|one| one.2).max().unwrap() as f64;
        for (left, one) in spent.iter().zip(&loops) {
            for (right, other) in spent.iter().zip(&loops) {
                let (part, whole) = (f64::from(one.1), f64::from(other.1));
                let ahead = *left as f64 / part - *right as f64 / whole;
                let bound = 2.0 * quantum + one.2 as f64 / part + other.2 as f64 / whole;
                prop_assert!(ahead <= bound, "{:?} {:?}", loops, spent);
            }
        }
    }
}
