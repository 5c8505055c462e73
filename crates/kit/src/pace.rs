//! How long a peer may take over what is under way between it and us, and the timer for it.
//!
//! It refuses to know what is under way: bytes that a peer sends, or that it takes. Invariant: who moves something in every
//! stretch of time, and [`RATE`] on the whole, is never late; who does not is late in bounded time, however it divides what it
//! moves.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use metrics::{counter, describe_counter};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes a second: a picture of a megabyte takes a quarter of an hour at it, and no line that carries pictures is slower.
pub(crate) const RATE: u64 = 1 << 10;

const STALLED: &str = "mobula_stalled_total";

/// Counts a peer that was let go of, by what it held.
pub(crate) fn count(what: &'static str) {
    counter!(STALLED, "what" => what).increment(1);
    tracing::debug!(what, "a peer that moved nothing was let go of");
}

pub(crate) fn describe() {
    describe_counter!(
        STALLED,
        "Peers that were let go of because they began something and did not go on with it: a message, a body, the taking of an answer."
    );
}

/// One thing under way. Pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    patience: Duration,
    begun: Instant,
    moved: Instant,
    bytes: u64,
}

impl Pace {
    /// It has begun; nothing may last longer than `patience` without a byte.
    pub(crate) fn new(patience: Duration, now: Instant) -> Self {
        Self {
            patience,
            begun: now,
            moved: now,
            bytes: 0,
        }
    }

    /// So many bytes more; none is no progress.
    pub(crate) fn moved(&mut self, bytes: usize, now: Instant) {
        if bytes > 0 {
            self.moved = now;
            self.bytes = self.bytes.saturating_add(bytes as u64);
        }
    }

    /// When the peer is late, unless it moves something before.
    pub(crate) fn due(&self) -> Instant {
        let earned = Duration::from_millis(self.bytes.saturating_mul(1_000) / RATE);
        let whole = self.begun.checked_add(earned).unwrap_or(self.moved);
        self.moved.min(whole) + self.patience
    }
}

/// The timer of things under way, made when the first of them has to wait. It is set again only when it rings too early, so
/// that progress costs no more than noting it.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether it is late; if not, the task is woken when it may be.
    pub(crate) fn is_late(&mut self, pace: &Pace, context: &mut Context<'_>) -> bool {
        let due = pace.due();
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while sleep.as_mut().poll(context) == Poll::Ready(()) {
            if Instant::now() >= due {
                return true;
            }
            sleep.as_mut().reset(due);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn the_timer_rings_when_the_last_byte_is_too_long_ago_and_not_before() {
        let start = Instant::now();
        let mut pace = Pace::new(PATIENCE, start);
        let mut timer = Timer::default();
        assert!(!poll_fn(|context| Poll::Ready(timer.is_late(&pace, context))).await);
        tokio::time::advance(Duration::from_secs(15)).await;
        pace.moved(1 << 20, Instant::now());
        poll_fn(|context| match timer.is_late(&pace, context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        assert_eq!(start.elapsed().as_secs(), 35);
    }

    #[test]
    fn who_drips_is_late_and_bytes_that_are_none_count_for_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(PATIENCE, start);
        for second in 1..=40 {
            pace.moved(1, start + Duration::from_secs(second));
        }
        assert!(pace.due() < start + Duration::from_secs(21), "a byte a second");
        let mut pace = Pace::new(PATIENCE, start);
        pace.moved(0, start + Duration::from_secs(19));
        assert_eq!(pace.due(), start + PATIENCE);
    }

    proptest! {
        #[test]
        fn who_keeps_the_rate_is_never_late_and_nobody_has_more_time_than_bytes_earn(
            steps in prop::collection::vec((0u64..20_000, 0usize..100_000), 0..50),
        ) {
            let start = Instant::now();
            let (mut pace, mut now, mut bytes, mut kept) = (Pace::new(PATIENCE, start), start, 0, true);
            for (millis, more) in steps {
                now += Duration::from_millis(millis);
                if kept {
                    prop_assert!(pace.due() >= now, "it was in time so far");
                }
                pace.moved(more, now);
                bytes += more as u64;
                let spent = (now - start).as_millis() as u64;
                kept = kept && more > 0 && bytes * 1_000 / RATE >= spent;
                prop_assert!(pace.due() <= now + PATIENCE);
                prop_assert!(pace.due() <= start + PATIENCE + Duration::from_millis(bytes * 1_000 / RATE));
            }
        }
    }
}
