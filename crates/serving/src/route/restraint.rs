//! What a router says of a replica that gets less than its share, to people who ask why.

use std::time::Duration;

use super::Book;

/// Why a replica gets less than its share, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restraint {
    /// For so long nothing is sent there, because it failed what it took; zero when it is asked.
    pub ejected: Duration,
    /// How often it was left out, one time after the other; zero when it is asked.
    pub times: u32,
    /// For so long it gets only a part of its share, the time of `ejected` included: it is new, or comes back.
    pub slow: Duration,
}

impl Book {
    /// Why the replica gets less than its share now; `None` when it gets all of it.
    pub fn restraint(&self, now: Duration) -> Option<Restraint> {
        let ejected = self.health.until().saturating_sub(now);
        let full = self.new.map_or(Duration::ZERO, |(since, length)| since + length);
        // One that comes back at once has its share then.
        let slow = full.saturating_sub(now).max(ejected);
        (!slow.is_zero()).then(|| Restraint {
            ejected,
            times: if ejected.is_zero() { 0 } else { self.health.times() },
            slow,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn one_that_is_left_out_and_one_that_is_new_say_until_when() {
        let mut book = Book::new(1);
        assert_eq!(book.restraint(S), None);
        book.begin(S, S * 10);
        let new = Restraint {
            ejected: Duration::ZERO,
            times: 0,
            slow: S * 7,
        };
        assert_eq!(book.restraint(S * 4), Some(new));
        assert_eq!(book.restraint(S * 11), None);
        book.leave_out(S * 20, S * 10);
        let out = Restraint {
            ejected: S * 4,
            times: 1,
            slow: S * 14,
        };
        assert_eq!(book.restraint(S * 21), Some(out));
        let back = Restraint {
            ejected: Duration::ZERO,
            times: 0,
            slow: S * 9,
        };
        assert_eq!(book.restraint(S * 26), Some(back));
        book.leave_out(S * 36, Duration::ZERO);
        let again = Restraint {
            ejected: S * 10,
            times: 2,
            slow: S * 10,
        };
        assert_eq!(book.restraint(S * 36), Some(again));
        assert_eq!(book.restraint(S * 46), None);
    }

    proptest! {
        #[test]
        fn whoever_is_left_out_says_so_and_whoever_says_nothing_ranks_by_its_wait(
            steps in proptest::collection::vec((0u64..40, any::<bool>(), 0u64..20), 1..40)
        ) {
            let (mut book, mut now) = (Book::new(1), Duration::ZERO);
            for (passed, is_ejected, slow) in steps {
                now += S * u32::try_from(passed).unwrap();
                let slow = Duration::from_secs(slow);
                if is_ejected {
                    book.leave_out(now, slow);
                } else {
                    book.begin(now, slow);
                }
                let told = book.restraint(now);
                prop_assert_eq!(book.is_out(now), told.is_some_and(|told| !told.ejected.is_zero()));
                if told.is_none() {
                    prop_assert_eq!(book.rank(now, 1_000), book.wait(now, 1_000));
                }
            }
        }
    }
}
