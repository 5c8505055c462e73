//! Two targets by turns: the ratio of every round, and its spread. Pure.

use serde::Serialize;

use super::Report;

/// 97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom (NIST/SEMATECH e-Handbook, table 1.3.6.7.2).
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// The same of the normal distribution, for more.
const NORMAL: f64 = 1.960;

/// The mean of ratios and the interval that holds it with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Geometric mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Spread {
    /// Of positive ratios: the interval of the mean of their logarithms, since a ratio of 2 is as far from 1 as one of 1/2. One
    /// ratio alone says nothing of its spread. Nothing where a ratio is no positive number.
    #[must_use]
    pub fn of(ratios: &[f64]) -> Option<Self> {
        if ratios.is_empty() || !ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0) {
            return None;
        }
        let n = ratios.len() as f64;
        let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / n;
        let half = if ratios.len() == 1 {
            f64::INFINITY
        } else {
            let variance = ratios
                .iter()
                .map(|ratio| (ratio.ln() - mean).powi(2))
                .sum::<f64>()
                / (n - 1.0);
            STUDENT.get(ratios.len() - 2).unwrap_or(&NORMAL) * (variance / n).sqrt()
        };
        Some(Self {
            mean: mean.exp(),
            low: (mean - half).exp(),
            high: (mean + half).exp(),
        })
    }
}

/// One figure of both sides.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// What it is, with its unit.
    pub name: &'static str,
    /// Median over the rounds of the first.
    pub a: f64,
    /// Median over the rounds of the second.
    pub b: f64,
    /// a / b round by round.
    pub rounds: Vec<f64>,
    /// Of those; nothing where a round has no figure.
    pub spread: Option<Spread>,
}

/// Two targets by turns.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The first target.
    pub a: String,
    /// The second target.
    pub b: String,
    /// What load, in words.
    pub load: String,
    /// Each figure.
    pub ratios: Vec<Ratio>,
    /// The reports of each round, first and second.
    pub rounds: Vec<(Report, Report)>,
}

impl Comparison {
    /// Compares rounds of two targets.
    #[must_use]
    pub fn new(a: String, b: String, load: String, rounds: Vec<(Report, Report)>) -> Self {
        let figure = |name, value: fn(&Report) -> f64| {
            let side = |report: fn(&(Report, Report)) -> &Report| -> Vec<f64> {
                rounds.iter().map(|round| value(report(round))).collect()
            };
            let (first, second) = (side(|round| &round.0), side(|round| &round.1));
            let ratios: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a / b).collect();
            Ratio {
                name,
                a: median(first),
                b: median(second),
                spread: Spread::of(&ratios),
                // JSON knows no infinity.
                rounds: ratios
                    .into_iter()
                    .map(|ratio| if ratio.is_finite() { ratio } else { 0.0 })
                    .collect(),
            }
        };
        let ratios = vec![
            figure("answered/s", |report| report.rates.answered),
            figure("good/s", |report| report.rates.good),
            figure("p50 ms", |report| report.latency_ms.p50),
            figure("p99 ms", |report| report.latency_ms.p99),
        ];
        Self {
            a,
            b,
            load,
            ratios,
            rounds,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::summary::tests::report;
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_text_book() {
        // Logarithms -1, 0, 1: mean 0, standard deviation 1, half width 4.303 / sqrt(3).
        let spread = Spread::of(&[(-1.0f64).exp(), 1.0, 1.0f64.exp()]).unwrap();
        assert!((spread.mean - 1.0).abs() < 1e-12);
        assert!(
            (spread.high - (4.303 / 3.0f64.sqrt()).exp()).abs() < 1e-9,
            "{spread:?}"
        );
    }

    #[test]
    fn without_a_figure_there_is_no_ratio() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, 0.0]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_comparison_divides_round_by_round() {
        let (mut fast, mut slow) = (report(), report());
        fast.rates.answered = 30.0;
        slow.rates.answered = 10.0;
        slow.latency_ms.p50 = 0.0;
        let comparison = Comparison::new(
            "a".into(),
            "b".into(),
            "l".into(),
            vec![(fast.clone(), slow.clone()), (fast, slow)],
        );
        assert_eq!((comparison.ratios[0].a, comparison.ratios[0].b), (30.0, 10.0));
        assert!((comparison.ratios[0].spread.unwrap().mean - 3.0).abs() < 1e-12);
        assert_eq!(comparison.ratios[2].spread, None);
        serde_json::to_string(&comparison).unwrap();
    }

    proptest! {
        #[test]
        fn swapping_the_sides_turns_the_ratio_over(ratios in proptest::collection::vec(0.01f64..100.0, 2..40)) {
            let there = Spread::of(&ratios).unwrap();
            let back = Spread::of(&ratios.iter().map(|ratio| 1.0 / ratio).collect::<Vec<_>>()).unwrap();
            prop_assert!((there.mean * back.mean - 1.0).abs() < 1e-9);
            prop_assert!((there.low * back.high - 1.0).abs() < 1e-6);
            prop_assert!(there.low <= there.mean && there.mean <= there.high);
        }
    }
}
