//! What a replica says about itself while it works: how much waits, how fast it is, whether its engine is alive.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mobula_proto::common::v1::Load;

/// Weight of a new measurement in the average: the last dozen ticks count.
const NEW: f64 = 0.15;

/// Written by the engine thread and by jobs, read by everyone.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    requests: AtomicU32,
    pictures: AtomicUsize,
    rows: AtomicU64,
    row_ns: AtomicU64,
    turns: AtomicU64,
    failed: OnceLock<String>,
}

impl Stats {
    pub(crate) fn add(&self, rows: u64, pictures: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.pictures.fetch_add(pictures, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn done(&self, rows: u64) {
        self.rows.fetch_sub(rows, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, rows: u64, pictures: usize) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.pictures.fetch_sub(pictures, Ordering::Relaxed);
        self.rows.fetch_sub(rows, Ordering::Relaxed);
    }

    /// Pictures that wait or run.
    pub(crate) fn pictures(&self) -> usize {
        self.pictures.load(Ordering::Relaxed)
    }

    /// Takes the time of a tick into the average, by rows of the native size; only the engine thread calls it.
    pub(crate) fn measured(&self, rows: f64, took: Duration) {
        let now = took.as_nanos() as f64 / rows.max(f64::MIN_POSITIVE);
        let before = self.row_ns.load(Ordering::Relaxed) as f64;
        let average = if before == 0.0 {
            now
        } else {
            before + NEW * (now - before)
        };
        // Never 0 again: 0 says that nothing was measured.
        self.row_ns.store(average.max(1.0) as u64, Ordering::Relaxed);
    }

    /// Counts a turn of the loop: evidence that it lives.
    pub(crate) fn turned(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Says for good that the engine is dead, and why.
    pub(crate) fn fail(&self, why: String) {
        // The first reason is the one that matters.
        let _ = self.failed.set(why);
    }

    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            ongoing_requests: self.requests.load(Ordering::Relaxed),
            queued_rows: self.rows.load(Ordering::Relaxed),
            row_ns: self.row_ns.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_taken_back() {
        let stats = Stats::default();
        stats.add(40, 2);
        stats.done(10);
        assert_eq!(
            stats.load(),
            Load {
                ongoing_requests: 1,
                queued_rows: 30,
                row_ns: 0
            }
        );
        stats.remove(30, 2);
        assert_eq!((stats.load(), stats.pictures()), (Load::default(), 0));
    }

    #[test]
    fn the_average_starts_with_the_first_tick_and_follows_the_last_ones() {
        let stats = Stats::default();
        stats.measured(4.0, Duration::from_nanos(4000));
        assert_eq!(stats.load().row_ns, 1000);
        for _ in 0..60 {
            stats.measured(4.0, Duration::from_nanos(8000));
        }
        assert!(
            (1990..=2000).contains(&stats.load().row_ns),
            "{}",
            stats.load().row_ns
        );
        stats.measured(4.0, Duration::ZERO);
        assert!(stats.load().row_ns > 0);
    }

    #[test]
    fn the_first_failure_is_kept() {
        let stats = Stats::default();
        assert_eq!(stats.failed(), None);
        stats.fail("a".into());
        stats.fail("b".into());
        assert_eq!(stats.failed(), Some("a"));
    }
}
