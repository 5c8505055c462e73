//! The rate over time: stretches in which it is constant or changes evenly. Pure; it knows no clock and no randomness.
//!
//! Invariant: [`Profile::due`] is the inverse of the area under the rate, so that any stream of points at rate 1 that is sent
//! through it has this rate, whatever its pattern.

use std::time::Duration;

use crate::Error;
use crate::units::parse_duration;

/// Most stages that one profile may have.
const MAX_STAGES: usize = 1000;
/// Requests per second; far above what one process can send.
const MAX_RATE: f64 = 1e7;

/// A stretch of time with a rate that is constant or changes evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// How long it lasts.
    pub length: Duration,
    /// Requests per second at its beginning.
    pub from: f64,
    /// Requests per second at its end.
    pub to: f64,
}

impl Stage {
    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length.as_secs_f64()
    }

    /// When the area since the stage's beginning reaches `area`: the root of a quadratic, in the form that does not cancel.
    fn reach(&self, area: f64) -> f64 {
        let slope = (self.to - self.from) / self.length.as_secs_f64();
        let root = (self.from * self.from + 2.0 * slope * area).max(0.0).sqrt();
        let divisor = self.from + root;
        if divisor > 0.0 { 2.0 * area / divisor } else { 0.0 }
    }
}

/// Stages one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    stages: Vec<Stage>,
}

impl Profile {
    /// The same rate all the time.
    ///
    /// # Errors
    /// [`Error::Stages`] when the rate is no positive number.
    pub fn constant(rate: f64, length: Duration) -> Result<Self, Error> {
        Self::new(vec![Stage {
            length,
            from: rate,
            to: rate,
        }])
    }

    /// These stages.
    ///
    /// # Errors
    /// [`Error::Stages`] when there are none or too many, one has no length, a rate is no number from 0 to 10 million, or all
    /// are 0.
    pub fn new(stages: Vec<Stage>) -> Result<Self, Error> {
        let refused = |why: String| Err(Error::Stages { why });
        if stages.is_empty() || stages.len() > MAX_STAGES {
            return refused(format!("{} stages, 1 to {MAX_STAGES} can be", stages.len()));
        }
        for (index, stage) in stages.iter().enumerate() {
            if stage.length.is_zero() {
                return refused(format!("stage {} has no length", index + 1));
            }
            for rate in [stage.from, stage.to] {
                if !(0.0..=MAX_RATE).contains(&rate) {
                    return refused(format!(
                        "stage {} has a rate of {rate}, 0 to {MAX_RATE} can be",
                        index + 1
                    ));
                }
            }
        }
        let profile = Self { stages };
        if profile.expected() <= 0.0 {
            return refused("the rate is 0 all the time".into());
        }
        Ok(profile)
    }

    /// Reads `10s@100,60s@100-800`: lengths, and rates that are constant or go from one to another.
    ///
    /// # Errors
    /// [`Error::Stages`] naming the stage that cannot be read, and as [`Profile::new`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let stages = text.split(',').map(|part| {
            let refused = || Error::Stages {
                why: format!("`{part}` is no stage: write length@rate or length@from-to, as in 60s@100-800"),
            };
            let (length, rates) = part.trim().split_once('@').ok_or_else(refused)?;
            let (from, to) = rates.split_once('-').unwrap_or((rates, rates));
            Ok(Stage {
                length: parse_duration(length).map_err(|_| refused())?,
                from: from.trim().parse().map_err(|_| refused())?,
                to: to.trim().parse().map_err(|_| refused())?,
            })
        });
        Self::new(stages.collect::<Result<_, _>>()?)
    }

    /// The same with the first rate for so long before it.
    #[must_use]
    pub fn after_warm_up(mut self, length: Duration) -> Self {
        let rate = self.stages[0].from;
        if !length.is_zero() && rate > 0.0 {
            self.stages.insert(
                0,
                Stage {
                    length,
                    from: rate,
                    to: rate,
                },
            );
        }
        self
    }

    /// How long it lasts.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.stages.iter().map(|stage| stage.length).sum()
    }

    /// Requests that it asks for in all, on average.
    #[must_use]
    pub fn expected(&self) -> f64 {
        self.stages.iter().map(Stage::area).sum()
    }

    /// When the area under the rate reaches `area`; nothing once the profile has ended.
    #[must_use]
    pub fn due(&self, mut area: f64) -> Option<Duration> {
        let mut begin = Duration::ZERO;
        for stage in &self.stages {
            let own = stage.area();
            if area < own {
                return Some(begin + Duration::from_secs_f64(stage.reach(area)).min(stage.length));
            }
            area -= own;
            begin += stage.length;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stages_are_read_as_written() {
        let profile = Profile::parse("10s@100, 500ms@100-800").unwrap();
        assert_eq!(
            profile.stages,
            [
                Stage {
                    length: Duration::from_secs(10),
                    from: 100.0,
                    to: 100.0
                },
                Stage {
                    length: Duration::from_millis(500),
                    from: 100.0,
                    to: 800.0
                },
            ]
        );
        assert!((profile.expected() - 1225.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_profile_is_refused_by_its_stage() {
        for (text, names) in [
            ("10s", "`10s`"),
            ("x@5", "`x@5`"),
            ("0s@5", "stage 1"),
            ("1s@5,1s@-3", "`1s@-3`"),
            ("1s@nan", "stage 1"),
            ("1s@inf", "stage 1"),
            ("5s@0", "0 all the time"),
        ] {
            let error = Profile::parse(text).unwrap_err().to_string();
            assert!(error.contains(names), "{text}: {error}");
        }
    }

    #[test]
    fn a_stretch_without_load_is_skipped() {
        let profile = Profile::parse("1s@2,5s@0,1s@2").unwrap();
        assert_eq!(profile.due(1.0), Some(Duration::from_millis(500)));
        assert_eq!(profile.due(3.0), Some(Duration::from_millis(6500)));
        assert_eq!(profile.due(4.0), None);
    }

    fn any_profile() -> impl Strategy<Value = Profile> {
        let stage = (1u64..20_000, 0.0f64..500.0, 0.0f64..500.0).prop_map(|(ms, from, to)| Stage {
            length: Duration::from_millis(ms),
            from,
            to,
        });
        proptest::collection::vec(stage, 1..6)
            .prop_filter_map("some load", |stages| Profile::new(stages).ok())
    }

    proptest! {
        #[test]
        fn due_undoes_the_area_under_the_rate(profile in any_profile(), part in 0.0f64..1.0) {
            let area = profile.expected() * part;
            let due = profile.due(area).unwrap();
            prop_assert!(due <= profile.length());
            // The area up to there, counted again stage by stage.
            let mut left = due.as_secs_f64();
            let mut counted = 0.0;
            for stage in &profile.stages {
                let length = stage.length.as_secs_f64();
                let t = left.clamp(0.0, length);
                counted += stage.from * t + (stage.to - stage.from) / length * t * t / 2.0;
                left -= t;
            }
            // A nanosecond of a Duration, at the highest rate, and the rounding of sums.
            prop_assert!((counted - area).abs() < 1e-5 * (1.0 + area), "{counted} {area}");
        }

        #[test]
        fn due_never_goes_back(profile in any_profile(), a in 0.0f64..1.0, b in 0.0f64..1.0) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(profile.due(profile.expected() * low) <= profile.due(profile.expected() * high));
        }
    }
}
