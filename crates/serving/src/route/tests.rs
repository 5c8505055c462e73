use proptest::prelude::*;
use rand::{Rng as _, SeedableRng, rngs::StdRng};

use super::*;

const MS: Duration = Duration::from_millis(1);

fn wait(ns: u64) -> Wait {
    Wait { ns, ongoing: 0 }
}

#[test]
fn cost_is_rows_times_steps_times_pixels_in_native_rows() {
    let native = Work {
        images: 1,
        guided: true,
        steps: 20,
        pixels: 512 * 512,
        native_pixels: 512 * 512,
    };
    assert_eq!(Cost::of(native).get(), 40);
    assert_eq!(
        Cost::of(Work {
            pixels: 1024 * 1024,
            ..native
        })
        .get(),
        160
    );
    assert_eq!(
        Cost::of(Work {
            guided: false,
            images: 3,
            ..native
        })
        .get(),
        60
    );
    assert_eq!(
        Cost::of(Work {
            pixels: 8,
            steps: 1,
            ..native
        })
        .get(),
        1
    );
}

#[test]
fn nobody_is_picked_among_none() {
    let mut rng = StdRng::seed_from_u64(1);
    assert_eq!(pick(0, &mut rng, |_| Some(wait(0))), None);
    assert_eq!(pick(1, &mut rng, |_| None), None);
    assert_eq!(pick(5, &mut rng, |_| None), None);
}

#[test]
fn equal_replicas_share_alike() {
    let mut rng = StdRng::seed_from_u64(2);
    let mut counts = [0u32; 4];
    for _ in 0..40_000 {
        counts[pick(4, &mut rng, |_| Some(wait(7))).unwrap()] += 1;
    }
    assert!(counts.iter().all(|&c| (9_000..11_000).contains(&c)), "{counts:?}");
}

#[test]
fn two_choices_keep_queues_short_where_one_would_not() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut two = vec![0u64; 100];
    let mut one = vec![0u64; 100];
    for _ in 0..10_000 {
        let i = pick(100, &mut rng, |i| Some(wait(two[i]))).unwrap();
        two[i] += 1;
        one[rng.random_range(0..100)] += 1;
    }
    let highest = |v: &[u64]| v.iter().copied().max().unwrap();
    assert!(highest(&two) <= 105, "{}", highest(&two));
    assert!(highest(&one) > 110, "{}", highest(&one));
}

#[test]
fn work_sent_by_this_router_counts_before_any_report() {
    let mut book = Book::new(4);
    book.take(Cost::rows(40));
    assert_eq!(
        book.wait(MS, 1_000),
        Wait {
            ns: 40_000,
            ongoing: 1
        }
    );
    book.progress(30);
    assert_eq!(book.wait(MS, 1_000).ns, 10_000);
    book.give_back(10);
    assert_eq!(book.wait(MS, 1_000), Wait { ns: 0, ongoing: 0 });
}

#[test]
fn own_work_in_a_report_is_not_counted_twice() {
    let mut book = Book::new(4);
    book.take(Cost::rows(40));
    book.report(
        Report {
            queued_rows: 100,
            row_ns: 1_000_000,
        },
        MS,
    );
    assert_eq!(book.wait(MS, 0).ns, 100 * 1_000_000);
    book.give_back(40);
    assert_eq!(book.wait(MS, 0).ns, 60 * 1_000_000);
}

#[test]
fn a_report_that_repeats_itself_is_no_measurement() {
    let mut book = Book::new(4);
    let report = |row_ns| Report {
        queued_rows: 0,
        row_ns,
    };
    book.report(report(0), MS);
    assert_eq!(book.measured_at(), None);
    book.report(report(5), MS * 2);
    book.report(report(5), MS * 3);
    assert_eq!(book.measured_at(), Some(MS * 2));
    book.report(report(4), MS * 4);
    assert_eq!(book.measured_at(), Some(MS * 4));
}

#[test]
fn others_work_wears_down_at_the_measured_rate() {
    let mut book = Book::new(4);
    book.report(
        Report {
            queued_rows: 100,
            row_ns: 1_000_000,
        },
        MS,
    );
    assert_eq!(book.wait(MS * 41, 0).ns, 60 * 1_000_000);
    assert_eq!(book.wait(MS * 1_000, 0).ns, 0);
}

#[test]
fn a_full_replica_rests_longer_each_time_until_it_accepts() {
    let mut book = Book::new(4);
    book.refused(Duration::ZERO);
    assert_eq!(book.free(FULL_FIRST - MS, false), 0);
    assert_eq!(book.free(FULL_FIRST, false), 4);
    book.refused(FULL_FIRST);
    assert_eq!(book.paused_until(FULL_FIRST), Some(FULL_FIRST * 3));
    book.accepted();
    assert_eq!(book.free(FULL_FIRST, false), 4);
    assert_eq!(book.paused_until(FULL_FIRST), None);
}

#[test]
fn many_requests_lost_at_one_moment_are_one_fault() {
    let mut book = Book::new(4);
    for _ in 0..100 {
        book.failed(MS);
    }
    assert!(!book.is_reachable(MS * 100));
    assert!(book.is_reachable(MS + FAULT_FIRST));
}

#[test]
fn a_replica_is_full_at_its_own_limit() {
    let mut book = Book::new(2);
    book.take(Cost::rows(1));
    assert_eq!(book.free(MS, false), 1);
    book.take(Cost::rows(1));
    assert_eq!(book.free(MS, false), 0);
    book.set_max_ongoing(1);
    book.give_back(1);
    assert_eq!(book.free(MS, false), 0);
}

proptest! {
    #[test]
    fn only_replicas_that_may_be_asked_are_picked(open in prop::collection::vec(prop::option::of(0u64..5), 0..12), seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let picked = pick(open.len(), &mut rng, |i| open[i].map(wait));
        match picked {
            Some(i) => prop_assert!(open[i].is_some()),
            None => prop_assert!(open.iter().all(Option::is_none)),
        }
    }

    #[test]
    fn the_worst_of_several_is_never_picked(mut waits in prop::collection::vec(0u64..1000, 2..12), seed: u64) {
        waits[0] = 1000;
        let mut rng = StdRng::seed_from_u64(seed);
        prop_assert_ne!(pick(waits.len(), &mut rng, |i| Some(wait(waits[i]))), Some(0));
    }

    #[test]
    fn what_is_taken_and_given_back_leaves_nothing(costs in prop::collection::vec((1u64..1000, 0u64..1000), 0..20)) {
        let mut book = Book::new(100);
        for &(rows, _) in &costs {
            book.take(Cost::rows(rows));
        }
        for &(rows, done) in &costs {
            let done = done.min(rows);
            book.progress(done);
            book.give_back(rows - done);
        }
        prop_assert_eq!(book.wait(MS, 1), Wait { ns: 0, ongoing: 0 });
        prop_assert_eq!(book.free(MS, false), 100);
    }
}

#[test]
fn a_new_replica_gets_its_share_bit_by_bit_and_is_never_left_idle() {
    let length = Duration::from_secs(10);
    let of = |rows| {
        let mut book = Book::new(100);
        let report = Report {
            queued_rows: rows,
            row_ns: 1_000_000,
        };
        book.report(report, Duration::ZERO);
        book.take(Cost::rows(rows.max(1)));
        book
    };
    let old = of(100);
    let mut new = of(0);
    new.begin(Duration::ZERO, length);
    let ranks = |at| (old.rank(at, 1), new.rank(at, 1));
    let (o, n) = ranks(Duration::ZERO);
    assert!(
        n > o,
        "it has a request, and begins as if it had ten times as many"
    );
    let (o, n) = ranks(length / 2);
    assert!(n < o);
    assert_eq!(new.rank(length, 1), new.wait(length, 1));
    assert_eq!(old.rank(length, 1), old.wait(length, 1));
    let mut rng = StdRng::seed_from_u64(5);
    assert_eq!(pick(1, &mut rng, |_| Some(new.rank(MS, 1))), Some(0));
}

/// Sends requests to replicas of which `bad` fail everything at once; gives what each got.
fn sent(replicas: usize, bad: usize, leaves_out: bool) -> Vec<u32> {
    use super::health::may_leave_out;
    let mut rng = StdRng::seed_from_u64(11);
    let mut books: Vec<_> = (0..replicas).map(|_| Book::new(1_000)).collect();
    let mut got = vec![0; replicas];
    let mut running: Vec<Vec<u64>> = vec![Vec::new(); replicas];
    for request in 0..20_000_u64 {
        let at = request * 32;
        let now = MS * u32::try_from(at).unwrap();
        let all = books.iter().all(|book| book.is_out(now));
        let wait = |i: usize| (books[i].free(now, all) > 0).then(|| books[i].rank(now, 1_000_000));
        let i = pick(replicas, &mut rng, wait).unwrap();
        got[i] += 1;
        if i < bad {
            // A replica that fails at once is never busy, which makes it everybody's choice.
            let out = books.iter().filter(|book| book.is_out(now)).count();
            if books[i].broke() && leaves_out && may_leave_out(out, replicas) {
                books[i].leave_out(now, Duration::from_secs(10));
            }
        } else {
            books[i].take(Cost::rows(40));
            let before = running[i].len() as u64;
            running[i].push(at + 40 * (before + 1));
        }
        for (book, running) in books.iter_mut().zip(&mut running) {
            running.retain(|end| {
                let is_over = *end <= at;
                if is_over {
                    book.give_back(40);
                    book.did();
                }
                !is_over
            });
        }
        let out = books.iter().filter(|book| book.is_out(now)).count();
        assert!(out * 2 <= replicas);
    }
    got
}

#[test]
fn a_replica_that_fails_what_it_takes_does_not_swallow_the_traffic() {
    let lost = |got: &[u32], bad: usize| f64::from(got[..bad].iter().sum::<u32>()) / 20_000.0;
    let swallowed = lost(&sent(8, 1, false), 1);
    let spared = lost(&sent(8, 1, true), 1);
    assert!(swallowed > 0.1, "{swallowed}");
    assert!(spared < 0.02, "{spared}");
    // With most of them broken nobody can be spared everything; the others get all that they can.
    let got = sent(8, 6, true);
    assert!(got[6..].iter().all(|n| *n > 1_000), "{got:?}");
}
