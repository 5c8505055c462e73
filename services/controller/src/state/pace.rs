//! How often workers send heartbeats: as it is set in a small mesh, less often in a large one, so that a thousand idle workers
//! cost the controller no more than a hundred do.
//!
//! A process that dies ends its stream and is missed at once. Heartbeats are for machines and networks that vanish without
//! a word, which a large mesh notices later: after three heartbeats, as always.

use tracing::info;

use super::{Action, State, Time};
use mobula_serving::lease;

/// Heartbeats of all workers together, in a second.
const BEATS_PER_SECOND: u32 = 125;
/// A lease of 48 s with the default of a heartbeat a second, as Kubernetes has 40 s for its nodes.
const SLOWEST: u32 = 16;

/// How many times slower than set so many workers send heartbeats, with those that do so `now` times slower: a power of two.
/// Half of the workers must go before it is taken back, so that one that comes and goes changes nothing.
fn slowdown(workers: usize, set: Time, now: u32) -> u32 {
    let needed = |workers: usize| {
        let beats = workers as f64 / set.as_secs_f64().max(f64::MIN_POSITIVE) / f64::from(BEATS_PER_SECOND);
        // The cast saturates.
        (beats.ceil() as u32).clamp(1, SLOWEST).next_power_of_two()
    };
    let wanted = needed(workers);
    if wanted >= now {
        wanted
    } else {
        needed(workers.saturating_mul(2)).min(now)
    }
}

impl State {
    /// The time between a worker's heartbeats.
    pub(super) fn heartbeat_interval(&self) -> Time {
        self.settings.heartbeat * self.slowdown
    }

    /// How long a worker may be silent.
    pub(super) fn lease_term(&self) -> Time {
        lease::term(self.heartbeat_interval())
    }

    /// Tells all workers of another pace when so many are there now that it changes; `new` is told in any case where the pace
    /// is not what a welcome says.
    pub(super) fn keep_pace(&mut self, new: Option<u64>, actions: &mut Vec<Action>) {
        let slowdown = slowdown(self.workers.len(), self.settings.heartbeat, self.slowdown);
        let changed = slowdown != self.slowdown;
        if changed {
            self.slowdown = slowdown;
            self.leases.set_term(self.lease_term());
            info!(workers = self.workers.len(), heartbeat = ?self.heartbeat_interval(), "heartbeats have another pace");
        }
        let heartbeat = self.heartbeat_interval();
        let mut tell = |session: u64| actions.push(Action::Pace { session, heartbeat });
        if changed {
            self.sessions.keys().copied().for_each(tell);
        } else if let Some(session) = new.filter(|_| slowdown > 1) {
            tell(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Time = Time::from_secs(1);

    #[test]
    fn the_beats_of_all_workers_are_bounded_until_leases_are_long_enough() {
        for (workers, expected) in [
            (0, 1),
            (125, 1),
            (126, 2),
            (250, 2),
            (251, 4),
            (1000, 8),
            (1_000_000, 16),
        ] {
            assert_eq!(slowdown(workers, SECOND, 1), expected, "{workers} workers");
        }
        assert_eq!(slowdown(1000, SECOND * 10, 1), 1);
        assert_eq!(slowdown(13, SECOND / 10, 1), 2);
    }

    #[test]
    fn a_pace_is_taken_back_when_half_of_its_workers_are_gone() {
        assert_eq!(slowdown(126, SECOND, 2), 2);
        assert_eq!(slowdown(63, SECOND, 2), 2);
        assert_eq!(slowdown(62, SECOND, 2), 1);
        assert_eq!(slowdown(300, SECOND, 8), 8);
        assert_eq!(slowdown(250, SECOND, 8), 4);
        assert_eq!(slowdown(0, SECOND, 16), 1);
    }
}
