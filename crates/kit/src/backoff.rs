//! How long to wait before trying again: doubling, bounded, with jitter so that those who lost the same peer do not come
//! back in one wave. Does not sleep.

use std::time::Duration;

/// Waits that double from the first to the longest.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Makes a backoff that begins at `first` and stays at `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The next wait: between half of it and all of it, at random.
    pub fn next_wait(&mut self) -> Duration {
        // 32 random bits of a version 4 UUID; jitter needs no more.
        let random = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        self.wait_with(random)
    }

    /// The next wait by a random number from 0 to 1.
    pub fn wait_with(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_the_longest(randoms in prop::collection::vec(0.0..=1.0f64, 1..20)) {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
            for random in randoms {
                let wait = backoff.wait_with(random);
                prop_assert!((Duration::from_millis(25)..=Duration::from_secs(1)).contains(&wait));
            }
        }
    }

    #[test]
    fn waits_double_until_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(150));
        let waits: Vec<_> = (0..4).map(|_| backoff.wait_with(1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 150, 150]);
        backoff.reset();
        assert_eq!(backoff.wait_with(1.0).as_millis(), 50);
    }
}
