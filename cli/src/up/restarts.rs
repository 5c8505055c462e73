//! When a service that died is started again. Pure: how long it lived goes in, how long to wait comes out.

use std::time::Duration;

use mobula_kit::Backoff;

/// The wait after a second death in a row; doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Long enough to cost nothing, short enough to be back soon after somebody repaired the cause.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A service that lived so long was well; its next death is a new story.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// The deaths of one service.
#[derive(Debug)]
pub(crate) struct Restarts {
    backoff: Backoff,
    /// Deaths in a row without a healthy life in between.
    in_a_row: u32,
}

impl Restarts {
    pub(crate) fn new() -> Self {
        Self {
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            in_a_row: 0,
        }
    }

    /// The wait before the next start of a service that died after `lived`. A first death costs no wait: most of them are
    /// somebody's `kill`, and callers are waiting.
    pub(crate) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= WELL_AFTER {
            self.backoff.reset();
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row == 1 {
            Duration::ZERO
        } else {
            self.backoff.next_wait()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_first_death_is_made_good_at_once_and_a_healthy_life_forgets_it() {
        let mut restarts = Restarts::new();
        assert_eq!(restarts.after(Duration::from_secs(1)), Duration::ZERO);
        assert!(restarts.after(Duration::ZERO) > Duration::ZERO);
        assert_eq!(restarts.after(WELL_AFTER), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest(lives in prop::collection::vec(0u64..20_000, 1..50)) {
            let mut restarts = Restarts::new();
            for ms in lives {
                prop_assert!(restarts.after(Duration::from_millis(ms)) <= LONGEST_WAIT);
            }
        }
    }
}
