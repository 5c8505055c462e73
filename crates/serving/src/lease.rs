//! Who is still believed to be alive: a table of leases that heartbeats renew.
//!
//! Refuses to know what a holder is, or to have a clock: time is a [`Duration`] since an origin that the caller keeps.
//! Invariant: a holder is in the table exactly once, and [`Leases::expire`] returns every holder whose term is over and
//! no other. Renewing costs O(log n), expiring costs O(expired · log n), so thousands of holders need no scan.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Heartbeats that may be missed before a lease is over: one may be lost and one may be late, three are no accident.
pub const HEARTBEATS_PER_LEASE: u32 = 3;

/// The length of a lease whose holder sends a heartbeat every `heartbeat`.
#[must_use]
pub fn term(heartbeat: Duration) -> Duration {
    heartbeat * HEARTBEATS_PER_LEASE
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    renewed: Duration,
    expires: Duration,
}

/// Leases by holder.
#[derive(Clone, Debug)]
pub struct Leases<K> {
    term: Duration,
    by_holder: BTreeMap<K, Lease>,
    by_expiry: BTreeSet<(Duration, K)>,
}

impl<K: Ord + Clone> Leases<K> {
    /// An empty table whose leases last `term` from each renewal.
    #[must_use]
    pub fn new(term: Duration) -> Self {
        Self {
            term,
            by_holder: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
        }
    }

    /// Changes how long leases last from their next renewal. Those that run are prolonged where leases become longer, because
    /// their holders may have been told to be slower already; they are never cut.
    pub fn set_term(&mut self, term: Duration) {
        let more = term.saturating_sub(self.term);
        self.term = term;
        if !more.is_zero() {
            self.forgive(more);
        }
    }

    /// Grants a lease, or prolongs the one that the holder has.
    pub fn renew(&mut self, holder: &K, now: Duration) {
        self.set(
            holder,
            Lease {
                renewed: now,
                expires: now + self.term,
            },
        );
    }

    /// Lets a lease end at `at` at the latest; a lease that ends earlier is left as it is.
    pub fn shorten(&mut self, holder: &K, at: Duration) {
        if let Some(lease) = self.by_holder.get(holder).copied()
            && at < lease.expires
        {
            self.set(holder, Lease { expires: at, ..lease });
        }
    }

    /// Forgets a holder.
    pub fn release(&mut self, holder: &K) {
        if let Some(lease) = self.by_holder.remove(holder) {
            self.by_expiry.remove(&(lease.expires, holder.clone()));
        }
    }

    /// Removes and returns the holders whose lease is over at `now`, the longest over first.
    pub fn expire(&mut self, now: Duration) -> Vec<K> {
        let mut over = Vec::new();
        while let Some((expires, holder)) = self.by_expiry.first().cloned()
            && expires <= now
        {
            self.release(&holder);
            over.push(holder);
        }
        over
    }

    /// Prolongs every lease by the time in which the table's owner itself did not run, and so could not hear anybody.
    pub fn forgive(&mut self, stall: Duration) {
        for lease in self.by_holder.values_mut() {
            lease.expires += stall;
        }
        self.by_expiry = self
            .by_holder
            .iter()
            .map(|(k, lease)| (lease.expires, k.clone()))
            .collect();
    }

    /// When the next lease is over, if nothing is renewed until then.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.by_expiry.first().map(|(expires, _)| *expires)
    }

    /// Time since the holder was last heard; none if it holds no lease.
    #[must_use]
    pub fn age(&self, holder: &K, now: Duration) -> Option<Duration> {
        self.by_holder
            .get(holder)
            .map(|lease| now.saturating_sub(lease.renewed))
    }

    fn set(&mut self, holder: &K, lease: Lease) {
        if let Some(old) = self.by_holder.insert(holder.clone(), lease) {
            self.by_expiry.remove(&(old.expires, holder.clone()));
        }
        self.by_expiry.insert((lease.expires, holder.clone()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_lease_lasts_three_heartbeats_from_the_last_one() {
        let mut leases = Leases::new(term(SECOND));
        leases.renew(&"a", ms(0));
        leases.renew(&"a", ms(500));
        assert!(leases.expire(ms(3_499)).is_empty());
        assert_eq!(leases.age(&"a", ms(3_499)), Some(ms(2_999)));
        assert_eq!(leases.expire(ms(3_500)), ["a"]);
        assert!(leases.expire(ms(9_000)).is_empty(), "it ends once");
    }

    #[test]
    fn a_longer_term_prolongs_what_runs_and_a_shorter_one_cuts_nothing() {
        let mut leases = Leases::new(term(SECOND));
        leases.renew(&"a", ms(0));
        leases.set_term(term(SECOND * 4));
        assert_eq!(leases.next(), Some(ms(12_000)));
        leases.set_term(term(SECOND));
        assert_eq!(leases.next(), Some(ms(12_000)));
        leases.renew(&"a", ms(2_000));
        assert_eq!(leases.next(), Some(ms(5_000)));
    }

    #[test]
    fn shortening_never_prolongs_and_a_heartbeat_undoes_it() {
        let mut leases = Leases::new(term(SECOND));
        leases.renew(&"a", ms(0));
        leases.shorten(&"a", ms(9_000));
        assert_eq!(leases.next(), Some(ms(3_000)));
        leases.shorten(&"a", ms(1_000));
        assert_eq!(leases.next(), Some(ms(1_000)));
        leases.renew(&"a", ms(900));
        assert_eq!(leases.next(), Some(ms(3_900)));
    }

    #[test]
    fn an_owner_that_was_stopped_blames_nobody() {
        let mut leases = Leases::new(term(SECOND));
        leases.renew(&"a", ms(0));
        leases.forgive(ms(60_000));
        assert!(leases.expire(ms(60_500)).is_empty());
        assert_eq!(leases.expire(ms(63_000)), ["a"]);
    }

    proptest! {
        #[test]
        fn exactly_those_unheard_for_a_term_expire(
            beats in prop::collection::vec((0_u8..20, 0_u64..10_000), 0..200), end in 0_u64..20_000,
        ) {
            let mut beats = beats;
            beats.sort_by_key(|(_, at)| *at);
            let mut leases = Leases::new(ms(3_000));
            let mut last = BTreeMap::new();
            for (holder, at) in &beats {
                leases.renew(holder, ms(*at));
                last.insert(*holder, *at);
            }
            let over: BTreeSet<u8> = leases.expire(ms(end)).into_iter().collect();
            let expected: BTreeSet<u8> =
                last.iter().filter(|(_, at)| **at + 3_000 <= end).map(|(holder, _)| *holder).collect();
            prop_assert_eq!(over, expected);
        }
    }
}
