//! What one caller may use: requests a second and at a time, pixels a minute and a day.
//!
//! Rates are token buckets, which refill evenly: a pause saves up at most the bucket's size, and when enough is there again
//! can be told exactly. What costs more than a whole bucket goes when the bucket is full and leaves a debt behind, since
//! nothing would ever pass otherwise; over time no more passes than the rate, the bucket and one such debt.
//!
//! It refuses to know who the caller is and what was drawn. Time is a [`Duration`] since any fixed point of the caller's.

use std::time::Duration;

const MINUTE_SECONDS: f64 = 60.0;
const DAY_SECONDS: f64 = 86_400.0;
const MEGA: f64 = 1e6;
/// Added to a told wait, so that rounding does not make it a moment too short.
const ROUNDING: Duration = Duration::from_micros(1);

/// How much may pass over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// What comes back each second, above 0.
    pub per_second: f64,
    /// What a pause saves up at most, above 0.
    pub burst: f64,
}

impl Rate {
    /// So much in a time; a pause of that time saves all of it up.
    fn within(amount: f64, seconds: f64) -> Self {
        Self {
            per_second: amount / seconds,
            burst: amount,
        }
    }
}

/// What a caller may use; absent is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Requests that begin.
    pub requests: Option<Rate>,
    /// Requests at a time.
    pub running: Option<u32>,
    /// Pixels of pictures per minute, above 0.
    pub minute: Option<f64>,
    /// Pixels of pictures per day, above 0.
    pub day: Option<f64>,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Requests that begin.
    Requests,
    /// Requests at a time.
    Running,
    /// Pixels per minute.
    Minute,
    /// Pixels per day.
    Day,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{}", words(*.bound, *.limit))]
pub struct Refusal {
    /// Which.
    pub bound: Bound,
    /// What it is: requests per second, requests, pixels.
    pub limit: f64,
    /// After how long it would pass, if nothing else does meanwhile; none where that depends on requests that run.
    pub retry_after: Option<Duration>,
}

fn words(bound: Bound, limit: f64) -> String {
    match bound {
        Bound::Requests => format!("{limit} requests per second"),
        Bound::Running => format!("{limit} requests at a time"),
        Bound::Minute => format!("{} megapixels per minute", limit / MEGA),
        Bound::Day => format!("{} megapixels per day", limit / MEGA),
    }
}

/// What is left of the requests that may begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Left {
    /// Requests that may begin at once after a pause.
    pub limit: u64,
    /// Requests that may begin at once now.
    pub remaining: u64,
    /// Until all of them may.
    pub reset: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: Rate,
    /// Below 0 is a debt.
    level: f64,
    at: Duration,
}

impl Bucket {
    fn new(rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            level: rate.burst,
            at: now,
        }
    }

    /// Goes on with another rate, and keeps no more than that saves up.
    fn set(&mut self, rate: Rate, now: Duration) {
        self.refill(now);
        self.rate = rate;
        self.level = self.level.min(rate.burst);
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed * self.rate.per_second).min(self.rate.burst);
    }

    /// How long until `amount` passes; none when it does now.
    fn wait(&mut self, amount: f64, now: Duration) -> Option<Duration> {
        self.refill(now);
        let lacking = amount.min(self.rate.burst) - self.level;
        (lacking > 0.0).then(|| self.time_for(lacking).saturating_add(ROUNDING))
    }

    fn time_for(&self, amount: f64) -> Duration {
        Duration::try_from_secs_f64(amount / self.rate.per_second).unwrap_or(Duration::MAX)
    }

    fn give_back(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.rate.burst);
    }
}

/// What a caller has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    limits: Limits,
    running: u32,
    requests: Option<Bucket>,
    minute: Option<Bucket>,
    day: Option<Bucket>,
}

impl Usage {
    /// Nothing so far.
    pub fn new(limits: Limits, now: Duration) -> Self {
        let mut usage = Self {
            limits,
            running: 0,
            requests: None,
            minute: None,
            day: None,
        };
        usage.set(limits, now);
        usage
    }

    /// Changes the limits; what was used stays used.
    pub fn set(&mut self, limits: Limits, now: Duration) {
        self.limits = limits;
        let minute = limits.minute.map(|pixels| Rate::within(pixels, MINUTE_SECONDS));
        let day = limits.day.map(|pixels| Rate::within(pixels, DAY_SECONDS));
        for (bucket, rate) in [
            (&mut self.requests, limits.requests),
            (&mut self.minute, minute),
            (&mut self.day, day),
        ] {
            match (bucket.as_mut(), rate) {
                (Some(bucket), Some(rate)) => bucket.set(rate, now),
                (None, Some(rate)) => *bucket = Some(Bucket::new(rate, now)),
                (_, None) => *bucket = None,
            }
        }
    }

    /// A request begins; [`Self::end`] must follow.
    ///
    /// # Errors
    /// [`Refusal`] when it must not; then nothing was used.
    pub fn begin(&mut self, now: Duration) -> Result<(), Refusal> {
        if let Some(limit) = self.limits.running
            && self.running >= limit
        {
            return Err(Refusal {
                bound: Bound::Running,
                limit: limit.into(),
                retry_after: None,
            });
        }
        if let Some(bucket) = &mut self.requests {
            if let Some(wait) = bucket.wait(1.0, now) {
                return Err(Refusal {
                    bound: Bound::Requests,
                    limit: bucket.rate.per_second,
                    retry_after: Some(wait),
                });
            }
            bucket.level -= 1.0;
        }
        self.running += 1;
        Ok(())
    }

    /// A request that began has ended.
    pub fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Pictures of so many pixels are about to be drawn.
    ///
    /// # Errors
    /// [`Refusal`] of the limit that takes longest, when they must not; then nothing was used.
    pub fn charge(&mut self, pixels: f64, now: Duration) -> Result<(), Refusal> {
        let mut refusal: Option<Refusal> = None;
        for (bucket, bound) in [(&mut self.minute, Bound::Minute), (&mut self.day, Bound::Day)] {
            let Some(bucket) = bucket else { continue };
            let wait = bucket.wait(pixels, now);
            if wait > refusal.and_then(|refusal| refusal.retry_after) {
                refusal = Some(Refusal {
                    bound,
                    limit: bucket.rate.burst,
                    retry_after: wait,
                });
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        for bucket in [&mut self.minute, &mut self.day].into_iter().flatten() {
            bucket.level -= pixels;
        }
        Ok(())
    }

    /// Pictures that were charged for are not drawn.
    pub fn give_back(&mut self, pixels: f64) {
        for bucket in [&mut self.minute, &mut self.day].into_iter().flatten() {
            bucket.give_back(pixels);
        }
    }

    /// What is left of the requests that may begin, where they have a limit.
    pub fn left(&mut self, now: Duration) -> Option<Left> {
        let bucket = self.requests.as_mut()?;
        bucket.refill(now);
        Some(Left {
            limit: bucket.rate.burst as u64,
            remaining: bucket.level.max(0.0) as u64,
            reset: bucket.time_for(bucket.rate.burst - bucket.level),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(per_second: f64, burst: f64) -> Limits {
        Limits {
            requests: Some(Rate { per_second, burst }),
            ..Limits::default()
        }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut usage = Usage::new(rate(2.0, 3.0), Duration::ZERO);
        for _ in 0..3 {
            usage.begin(Duration::ZERO).unwrap();
        }
        let refusal = usage.begin(Duration::ZERO).unwrap_err();
        assert_eq!(refusal.to_string(), "2 requests per second");
        let wait = refusal.retry_after.unwrap();
        assert_eq!(wait, SECOND / 2 + ROUNDING);
        assert!(usage.begin(wait).is_ok());
        assert!(usage.begin(wait).is_err());
        let left = usage.left(wait + SECOND).unwrap();
        assert_eq!((left.limit, left.remaining), (3, 2));
    }

    #[test]
    fn who_has_its_requests_running_waits_for_one_to_end() {
        let limits = Limits {
            running: Some(1),
            ..rate(1.0, 5.0)
        };
        let mut usage = Usage::new(limits, Duration::ZERO);
        usage.begin(Duration::ZERO).unwrap();
        let refusal = usage.begin(Duration::ZERO).unwrap_err();
        assert_eq!((refusal.bound, refusal.retry_after), (Bound::Running, None));
        assert_eq!(
            usage.left(Duration::ZERO).unwrap().remaining,
            4,
            "it cost nothing"
        );
        usage.end();
        assert!(usage.begin(Duration::ZERO).is_ok());
    }

    #[test]
    fn pixels_count_by_the_minute_and_by_the_day_and_come_back_when_nothing_is_drawn() {
        let limits = Limits {
            minute: Some(6e6),
            day: Some(8e6),
            ..Limits::default()
        };
        let mut usage = Usage::new(limits, Duration::ZERO);
        usage.charge(6e6, Duration::ZERO).unwrap();
        let refusal = usage.charge(1e6, Duration::ZERO).unwrap_err();
        assert_eq!(refusal.to_string(), "6 megapixels per minute");
        assert_eq!(refusal.retry_after, Some(10 * SECOND + ROUNDING));
        let refusal = usage.charge(6e6, 60 * SECOND).unwrap_err();
        assert_eq!(refusal.bound, Bound::Day);
        usage.give_back(6e6);
        assert!(usage.charge(6e6, 60 * SECOND).is_ok());
    }

    #[test]
    fn what_is_larger_than_a_bucket_goes_when_it_is_full_and_leaves_a_debt() {
        let limits = Limits {
            minute: Some(60.0),
            ..Limits::default()
        };
        let mut usage = Usage::new(limits, Duration::ZERO);
        usage.charge(120.0, Duration::ZERO).unwrap();
        let wait = usage.charge(1.0, Duration::ZERO).unwrap_err().retry_after;
        assert_eq!(wait, Some(61 * SECOND + ROUNDING));
    }

    #[test]
    fn other_limits_leave_used_what_was_used() {
        let mut usage = Usage::new(rate(1.0, 10.0), Duration::ZERO);
        for _ in 0..10 {
            usage.begin(Duration::ZERO).unwrap();
        }
        usage.set(rate(1.0, 20.0), Duration::ZERO);
        assert!(usage.begin(Duration::ZERO).is_err());
        usage.set(Limits::default(), Duration::ZERO);
        assert!(usage.begin(Duration::ZERO).is_ok());
    }

    proptest! {
        #[test]
        fn no_more_passes_than_the_rate_the_bucket_and_one_debt(
            per_minute in 1.0..1e4_f64,
            asks in prop::collection::vec((0u64..20_000, 0.1..2e4_f64), 1..60),
        ) {
            let limits = Limits { minute: Some(per_minute), ..Limits::default() };
            let mut usage = Usage::new(limits, Duration::ZERO);
            let (mut now, mut passed, mut largest) = (Duration::ZERO, 0.0, 0.0_f64);
            for (pause, amount) in asks {
                now += Duration::from_millis(pause);
                if usage.charge(amount, now).is_ok() {
                    passed += amount;
                    largest = largest.max(amount);
                }
                let saved = per_minute * (1.0 + now.as_secs_f64() / 60.0);
                prop_assert!(passed <= saved + (largest - per_minute).max(0.0) + 1e-3, "{passed} of {saved}");
            }
        }

        #[test]
        fn who_comes_back_when_told_passes_and_not_much_before(
            per_second in 0.01..1e3_f64, burst in 1.0..100.0_f64, early in 0.0..0.9_f64,
        ) {
            let mut usage = Usage::new(rate(per_second, burst), Duration::ZERO);
            while usage.begin(Duration::ZERO).is_ok() {}
            let wait = usage.begin(Duration::ZERO).unwrap_err().retry_after.unwrap();
            prop_assume!(wait > 10 * ROUNDING);
            prop_assert!(usage.begin(wait.mul_f64(early)).is_err());
            prop_assert!(usage.begin(wait).is_ok());
        }

        #[test]
        fn what_begins_and_ends_is_never_more_at_a_time_than_it_may(
            limit in 1u32..5, begins in prop::collection::vec(any::<bool>(), 1..50),
        ) {
            let limits = Limits { running: Some(limit), ..Limits::default() };
            let mut usage = Usage::new(limits, Duration::ZERO);
            let mut running = 0;
            for begin in begins {
                if begin {
                    let is_free = running < limit;
                    prop_assert_eq!(usage.begin(Duration::ZERO).is_ok(), is_free);
                    running += u32::from(is_free);
                } else if running > 0 {
                    usage.end();
                    running -= 1;
                }
            }
        }
    }
}
