//! The planner's part of the loop: what it is told of the pictures on their way, and what it learns of ticks.

use std::sync::Arc;
use std::time::Duration;

use mobula_serving::tick::Candidate;
use tokio::time::Instant;

use super::groups::Key;
use super::thread::Loop;
use super::track::Track;

/// Weight of a new measurement of the decoder.
const NEW: f64 = 0.15;

impl Loop {
    /// Chooses who is in the next tick.
    pub(super) fn choose(&mut self) {
        let now = Instant::now();
        if let Some((planned, at)) = self.planned.take() {
            self.planner.elapsed(planned, now - at);
        }
        self.candidates.clear();
        for track in &self.tracks {
            let rows = track.rows().map_or(1, super::track::Rows::count);
            let after = decode_time(self.decode_ns, track, self.info.scale);
            self.candidates.push(Candidate {
                group: key(track).get(),
                // Requests for the same schedule share it.
                grid: Arc::as_ptr(track.trajectory.sampler()) as usize as u64,
                request: track.order.request,
                rows,
                calls_left: track.calls_left(),
                class: track.job.work.class,
                deadline: track
                    .deadline(self.epoch)
                    .map(|deadline| deadline.saturating_sub(after)),
                arrived: track.arrived(self.epoch),
                order: track.order.picture,
                timestep: track.trajectory.timestep().to_bits(),
            });
        }
        let plan = self.planner.plan(
            now - self.epoch,
            self.groups.active(),
            &self.candidates,
            self.timesteps,
            &mut self.chosen,
        );
        self.planned = plan.map(|plan| (plan.cost, now));
        self.group = plan.map_or(0, |plan| plan.group);
    }

    /// Takes in how long the UNet call of a tick took.
    pub(super) fn measured(&mut self, took: Duration) {
        let rows = self.batch.rows();
        self.groups.observe(self.group, rows, took);
        self.stats
            .measured(self.groups.native_rows(self.batch.shape(), rows), took);
        self.metrics.ticked(rows, took);
    }

    /// Takes in how long the decoder took for so many pixels.
    pub(super) fn decoder_took(&mut self, took: Duration, pixels: usize) {
        let now = took.as_nanos() as f64 / pixels.max(1) as f64;
        self.decode_ns = if self.decode_ns == 0.0 {
            now
        } else {
            self.decode_ns + NEW * (now - self.decode_ns)
        };
    }

    /// Makes the groups those of the pictures that are on their way.
    pub(super) fn regroup(&mut self) {
        let tracks = &self.tracks;
        self.groups
            .retain(|group| tracks.iter().any(|track| key(track).get() == group));
    }
}

/// What fits one call with this picture.
pub(super) fn key(track: &Track) -> Key {
    Key {
        shape: track.job.work.shape,
        tokens: track.tokens(),
        fast: track.job.work.fast,
    }
}

/// What comes after a picture's last tick.
fn decode_time(ns: f64, track: &Track, scale: usize) -> Duration {
    let pixels = track.job.work.shape.positions() * scale * scale;
    Duration::from_nanos((ns * pixels as f64) as u64)
}
