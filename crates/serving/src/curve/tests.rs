//! The curve against hand-computed values, and its properties.

use super::*;
use proptest::prelude::*;

fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

fn curve(points: &[(u32, f64)]) -> Curve {
    Curve::new(points.iter().map(|(rows, took)| (*rows, ms(*took)))).unwrap()
}

/// A device that is full at eight rows.
fn device() -> Curve {
    curve(&[(1, 10.0), (2, 12.0), (4, 20.0), (8, 32.0), (16, 64.0)])
}

fn close(left: Duration, right: Duration) -> bool {
    left.abs_diff(right) <= Duration::from_micros(1)
}

#[test]
fn between_and_beyond_the_points_it_is_a_straight_line() {
    let curve = device();
    assert_eq!(curve.predict(0), Duration::ZERO);
    assert!(close(curve.predict(2), ms(12.0)));
    assert!(close(curve.predict(3), ms(16.0)));
    assert!(close(curve.predict(6), ms(26.0)));
    // The upper half, 8 to 16 rows, takes 4 ms a row.
    assert!(close(curve.predict(20), ms(80.0)));
}

#[test]
fn a_lone_point_is_proportional_above_and_no_faster_below() {
    let curve = curve(&[(4, 20.0)]);
    assert!(close(curve.predict(8), ms(40.0)));
    assert!(close(curve.predict(1), ms(20.0)));
}

#[test]
fn below_the_first_point_it_goes_down_but_not_below_a_rows_part() {
    let gentle = curve(&[(4, 20.0), (8, 24.0)]);
    assert!(close(gentle.predict(1), ms(17.0)));
    let steep = curve(&[(4, 20.0), (8, 100.0)]);
    assert!(close(steep.predict(1), ms(5.0)));
}

#[test]
fn what_falls_with_rows_is_pooled_to_its_mean() {
    let curve = curve(&[(1, 10.0), (2, 14.0), (4, 12.0), (8, 30.0)]);
    assert!(close(curve.predict(2), ms(13.0)));
    assert!(close(curve.predict(4), ms(13.0)));
    assert!(close(curve.predict(8), ms(30.0)));
}

#[test]
fn of_several_times_for_one_size_the_median_counts() {
    let curve = curve(&[(2, 11.0), (2, 900.0), (2, 12.0)]);
    assert!(close(curve.predict(2), ms(12.0)));
}

#[test]
fn the_cap_is_the_smallest_size_that_is_about_as_fast_as_the_best() {
    let curve = device();
    assert_eq!(curve.cap(64, 0.03), 8);
    assert_eq!(curve.cap(16, 0.03), 8);
    assert_eq!(
        curve.cap(7, 0.0),
        7,
        "7 rows lie between measured sizes and are faster than 4"
    );
    assert_eq!(curve.cap(8, 0.5), 2, "2 rows in 12 ms are two thirds of 8 in 32");
    assert_eq!(curve.cap(1, 0.03), 1);
    assert_eq!(curve.cap(0, 0.03), 1);
    // More rows bring nothing: one is enough.
    let flat = self::curve(&[(1, 100.0), (2, 198.0), (4, 396.0), (8, 790.0)]);
    assert_eq!(flat.cap(8, 0.03), 1);
    // Below all that was measured there is only the limit.
    assert_eq!(self::curve(&[(8, 20.0)]).cap(4, 0.03), 4);
}

#[test]
fn a_hiccup_is_forgotten_and_a_slower_device_is_learnt_for_all_sizes() {
    let mut curve = device();
    curve.observe(8, Duration::from_secs(60));
    assert!(curve.predict(8) < ms(32.0 * 1.05));
    for _ in 0..40 {
        curve.observe(8, ms(32.0));
    }
    assert!(curve.predict(8).abs_diff(ms(32.0)) < ms(0.1));
    // Twice as slow, seen at 8 rows only.
    for _ in 0..60 {
        curve.observe(8, ms(64.0));
    }
    assert!(
        curve.predict(8).abs_diff(ms(64.0)) < ms(0.7),
        "{:?}",
        curve.predict(8)
    );
    assert!(curve.predict(1) > ms(12.0) && curve.predict(1) < ms(20.0));
    // Then the others are seen too, and all are right.
    for _ in 0..200 {
        for (rows, took) in [(1, 20.0), (2, 24.0), (4, 40.0), (8, 64.0), (16, 128.0)] {
            curve.observe(rows, ms(took));
        }
    }
    for (rows, took) in [(1, 20.0), (2, 24.0), (4, 40.0), (8, 64.0), (16, 128.0)] {
        assert!(curve.predict(rows).abs_diff(ms(took)) < ms(took * 0.01), "{rows}");
    }
}

#[test]
fn one_call_in_twenty_that_takes_ten_times_as_long_moves_it_by_less_than_two_percent() {
    let mut curve = device();
    for call in 0..2000 {
        curve.observe(8, ms(if call % 20 == 0 { 320.0 } else { 32.0 }));
    }
    assert!(
        curve.predict(8).abs_diff(ms(32.0)) < ms(32.0 * 0.02),
        "{:?}",
        curve.predict(8)
    );
}

#[test]
fn a_scaled_curve_takes_positions_as_rows_and_attention_squared() {
    let curve = device();
    // Four times the positions in two rows: what 8 rows take, and attention four times as long.
    assert!(close(
        curve.scaled(4.0).predict(2),
        ms(32.0 * (0.85 + 0.15 * 4.0))
    ));
    // A quarter: 32 rows fill the device as 8 did.
    let small = curve.scaled(0.25);
    assert!(close(small.predict(32), ms(32.0 * (0.85 + 0.15 * 0.25))));
    assert_eq!(small.cap(64, 0.03), 32);
    assert_eq!(curve.scaled(4.0).cap(64, 0.03), 2);
    assert!(close(curve.scaled(1.0).predict(8), curve.predict(8)));
}

#[test]
fn points_that_make_no_curve_are_refused_by_name() {
    let refused = |points: &[(u32, u64)]| Curve::from_pairs(points.iter().copied()).unwrap_err();
    assert_eq!(refused(&[]), Error::Empty);
    assert_eq!(refused(&[(0, 5)]), Error::Rows { rows: 0 });
    assert_eq!(refused(&[(2, 0)]), Error::Time { rows: 2, micros: 0 });
    assert_eq!(
        refused(&[(2, u64::MAX)]),
        Error::Time {
            rows: 2,
            micros: u64::MAX
        }
    );
    let many: Vec<_> = (1..=33).map(|rows| (rows, 5)).collect();
    assert_eq!(refused(&many), Error::TooMany { points: 33 });
    assert_eq!(
        Error::Rows { rows: 0 }.to_string(),
        "latency curve has a point of 0 rows: rows must be 1 to 65536"
    );
}

fn arbitrary() -> impl Strategy<Value = Curve> {
    prop::collection::vec((1..200_u32, 1..10_000_000_u64), 1..=MAX_POINTS)
        .prop_map(|pairs| Curve::from_pairs(pairs).unwrap())
}

proptest! {
    #[test]
    fn predictions_never_fall_with_rows(
        curve in arbitrary(),
        seen in prop::collection::vec((0..400_usize, 0..20_000_000_u64), 0..60),
        factor in 0.01..100.0_f64,
    ) {
        let mut curve = curve;
        for (rows, micros) in seen {
            curve.observe(rows, Duration::from_micros(micros));
        }
        for curve in [curve.scaled(factor), curve] {
            let times: Vec<_> = (1..300).map(|rows| curve.predict(rows)).collect();
            prop_assert!(times.is_sorted());
            prop_assert!(times[0] > Duration::ZERO);
            prop_assert!(curve.points.len() <= MAX_POINTS);
        }
    }

    #[test]
    fn the_cap_is_within_its_limit_and_its_slack(curve in arbitrary(), most in 0..300_usize, slack in 0.0..0.5_f64) {
        let cap = curve.cap(most, slack);
        prop_assert!((1..=most.max(1)).contains(&cap));
        let measured = curve.pairs().map(|(rows, _)| rows as usize).filter(|rows| *rows <= most);
        for rows in measured {
            prop_assert!(curve.rate(cap) >= curve.rate(rows) * (1.0 - slack) - 1e-6);
        }
    }

    #[test]
    fn pairs_bring_the_curve_back(curve in arbitrary()) {
        let back = Curve::from_pairs(curve.pairs()).unwrap();
        for (rows, _) in curve.pairs() {
            let rows = rows as usize;
            prop_assert!(back.predict(rows).abs_diff(curve.predict(rows)) <= Duration::from_micros(1));
        }
    }

    #[test]
    fn one_observation_moves_every_point_by_little(curve in arbitrary(), rows in 1..400_usize, micros in 1..u64::MAX) {
        let mut seen = curve.clone();
        seen.observe(rows, Duration::from_micros(micros));
        for (before, after) in curve.points.iter().zip(&seen.points) {
            let ratio = after.seen / before.seen;
            prop_assert!((0.95..1.05).contains(&ratio), "{}", ratio);
        }
    }
}
