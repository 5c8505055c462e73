//! When requests are due: points of a renewal process at rate 1, sent through a [`Profile`]. Pure: it knows no clock.
//!
//! Invariant: due times never go back, the same seed gives the same times, and over a long time their rate is the profile's.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::Profile;

/// How requests are spread in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pattern {
    /// Independent users: exponential gaps.
    Poisson,
    /// Bursts: gaps of a gamma distribution with the coefficient of variation of `--cv`; 1 is Poisson, more is burstier.
    Gamma,
    /// A metronome: equal gaps.
    Constant,
}

/// An endless stream of gaps with a mean of 1.
#[derive(Debug)]
struct Gaps {
    pattern: Pattern,
    /// The gamma distribution's shape: 1 / cv².
    shape: f64,
    random: StdRng,
}

impl Gaps {
    fn draw(&mut self) -> f64 {
        match self.pattern {
            Pattern::Constant => 1.0,
            // Inverse of the exponential distribution; 1 - u is never 0.
            Pattern::Poisson => -(1.0 - self.random.random::<f64>()).ln(),
            Pattern::Gamma => self.gamma(self.shape) / self.shape,
        }
    }

    /// A number of the gamma distribution with this shape and scale 1 (Marsaglia and Tsang 2000, "A simple method for
    /// generating gamma variables"); below shape 1 by their section 6.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let power = (1.0 - self.random.random::<f64>()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * power;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.random.random::<f64>();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// A number of the standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.random.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.random.random::<f64>()).cos()
    }
}

/// An iterator over due times, counted from the start of the load, that ends with its profile.
#[derive(Debug)]
pub struct Arrivals {
    gaps: Gaps,
    profile: Profile,
    area: f64,
}

impl Arrivals {
    /// A schedule with this profile; `cv` is the coefficient of variation of gamma gaps, kept within 0.01 and 100.
    #[must_use]
    pub fn new(pattern: Pattern, cv: f64, profile: Profile, seed: u64) -> Self {
        let cv = cv.clamp(0.01, 100.0);
        Self {
            gaps: Gaps {
                pattern,
                shape: 1.0 / (cv * cv),
                random: StdRng::seed_from_u64(seed),
            },
            profile,
            area: 0.0,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.area += self.gaps.draw();
        self.profile.due(self.area)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(1_000_000);

    fn arrivals(pattern: Pattern, cv: f64, rate: f64, seed: u64) -> Arrivals {
        Arrivals::new(pattern, cv, Profile::constant(rate, LONG).unwrap(), seed)
    }

    fn gaps(pattern: Pattern, cv: f64, count: usize, seed: u64) -> Vec<f64> {
        let mut gaps = arrivals(pattern, cv, 1.0, seed).gaps;
        (0..count).map(|_| gaps.draw()).collect()
    }

    fn mean_and_cv(gaps: &[f64]) -> (f64, f64) {
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    /// Largest distance between the empirical distribution and `cdf` (Kolmogorov and Smirnov).
    fn distance(mut gaps: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
        gaps.sort_by(f64::total_cmp);
        let n = gaps.len() as f64;
        let at = |(i, gap): (usize, &f64)| {
            let expected = cdf(*gap);
            (expected - i as f64 / n)
                .abs()
                .max((expected - (i + 1) as f64 / n).abs())
        };
        gaps.iter().enumerate().map(at).fold(0.0, f64::max)
    }

    #[test]
    fn a_metronome_ticks_evenly() {
        let due: Vec<_> = arrivals(Pattern::Constant, 1.0, 100.0, 0).take(3).collect();
        assert_eq!(due, [10, 20, 30].map(Duration::from_millis));
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        let gaps = gaps(Pattern::Poisson, 1.0, 50_000, 7);
        // 1.95 / sqrt(n) is passed by one sample in a thousand.
        assert!(distance(gaps, |x| 1.0 - (-x).exp()) < 1.95 / 50_000f64.sqrt());
    }

    #[test]
    fn gamma_gaps_with_cv_1_are_exponential_too() {
        let gaps = gaps(Pattern::Gamma, 1.0, 50_000, 7);
        assert!(distance(gaps, |x| 1.0 - (-x).exp()) < 1.95 / 50_000f64.sqrt());
    }

    #[test]
    fn gamma_gaps_of_shape_4_are_those_of_erlang() {
        // Shape 4: 1 - exp(-4x) (1 + 4x + (4x)²/2 + (4x)³/6).
        let erlang = |x: f64| 1.0 - (-4.0 * x).exp() * (1.0 + 4.0 * x + 8.0 * x * x + 32.0 / 3.0 * x.powi(3));
        assert!(distance(gaps(Pattern::Gamma, 0.5, 50_000, 3), erlang) < 1.95 / 50_000f64.sqrt());
    }

    #[test]
    fn a_ramp_puts_a_quarter_of_its_requests_into_its_first_half() {
        let profile = Profile::parse("100s@0-2000").unwrap();
        let due: Vec<_> = Arrivals::new(Pattern::Constant, 1.0, profile, 0).collect();
        let early = due.iter().filter(|due| due.as_secs() < 50).count();
        // The one that is due at half-time itself may be rounded to either side.
        assert!((24_999..=25_000).contains(&early), "{early}");
        assert_eq!(due.len(), 99_999);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn due_times_never_go_back(rate in 0.1f64..10_000.0, cv in 0.1f64..5.0, seed: u64) {
            let due: Vec<_> = arrivals(Pattern::Gamma, cv, rate, seed).take(200).collect();
            prop_assert!(due.is_sorted());
        }

        #[test]
        fn the_rate_is_the_one_asked_for(rate in 1.0f64..10_000.0, seed: u64) {
            const COUNT: usize = 20_000;
            let last = arrivals(Pattern::Poisson, 1.0, rate, seed).take(COUNT).last().unwrap();
            let measured = COUNT as f64 / last.as_secs_f64();
            // Five standard deviations of a mean of 20,000 exponential gaps are 3.5 %.
            prop_assert!((measured / rate - 1.0).abs() < 0.036, "asked for {rate}, got {measured}");
        }

        #[test]
        fn gamma_gaps_have_the_mean_and_the_variation_asked_for(cv in 0.2f64..2.5, seed: u64) {
            const COUNT: usize = 200_000;
            let (mean, measured) = mean_and_cv(&gaps(Pattern::Gamma, cv, COUNT, seed));
            // Five standard deviations of the mean; the variation of cv itself grows with the fourth moment, 8 % is above it.
            prop_assert!((mean - 1.0).abs() < 5.0 * cv / (COUNT as f64).sqrt(), "mean {mean}");
            prop_assert!((measured / cv - 1.0).abs() < 0.08, "asked for {cv}, got {measured}");
        }
    }
}
