//! Sums of series that can be worked out by hand. Many more are compared with Ray's in tests/autoscaling.rs.

use super::{Manner, Steps};
use crate::scale::{
    Aggregation, Sample, nanos,
    series::{MAX_POINTS, Point, Series},
    tests::{ms, s},
};

#[test]
fn the_sum_of_series_is_that_of_rays_own_example() {
    let tenths = |list: &[(u64, f64)]| -> Vec<(u64, f64)> {
        let list = list.iter();
        list.map(|(at, value)| (nanos(ms(at * 100)), *value)).collect()
    };
    let series = [
        tenths(&[(2, 5.0), (8, 7.0), (15, 6.0)]),
        tenths(&[(1, 3.0), (9, 4.0), (14, 8.0)]),
        tenths(&[(3, 2.0), (10, 3.0)]),
    ];
    let steps = Steps::sum(series.iter().map(|of| of.iter().copied()), Manner::default());
    let now = nanos(s(2));
    assert!((steps.aggregate(now, Aggregation::Mean) - 23.4 / 1.7).abs() < 1e-12);
    assert_eq!(steps.aggregate(now, Aggregation::Max), 18.0);
    assert_eq!(steps.aggregate(now, Aggregation::Min), 10.0);
    assert_eq!(steps.value(), 17.0);
}

#[test]
fn memory_is_bounded_however_often_a_source_samples() {
    let (look_back, mean) = (s(3_600), Aggregation::Mean);
    let mut series = Series::default();
    let mut area = 0.0;
    for i in 0..100_000_u64 {
        let sample = Sample {
            queued: (i % 7) as f64,
            ..Sample::default()
        };
        area += sample.queued;
        series.wait(
            Point {
                at: ms(10 * i),
                sample,
            },
            look_back,
            mean,
        );
        assert!(series.points().len() <= MAX_POINTS);
    }
    series.take(s(1_000), look_back, mean);
    let points = series
        .points()
        .iter()
        .map(|point| (nanos(point.at), point.sample.queued));
    let steps = Steps::sum([points], Manner::default());
    let mean = steps.mean(nanos(s(1_000)));
    assert!(
        (mean - area / 100_000.0).abs() < 1e-3,
        "the mean is still that of all: {mean}"
    );
}
