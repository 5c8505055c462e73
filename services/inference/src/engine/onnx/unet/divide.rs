//! How the UNet's calls are divided among the cores: lanes are made, measured beside the pool, and kept where they are faster.

use std::time::Duration;

use tokio::time::Instant;

use super::super::super::{Error, Shape};
use super::super::lanes::{self, Choice, Lanes};
use super::super::session::Context;
use super::probe::Probe;
use super::{CHANNELS, PART, Unet};
use crate::model::{Division, Model};

/// Part by which lanes must be faster to be worth their memory.
const WORTH: f64 = 1.05;
/// Calls of each kind that are compared, after one that warms up; the fastest counts, because what others do only adds.
const TRIES: usize = 4;
/// No more calls are compared after this time: small calls, whose times vary most, are done by then.
const TIME: Duration = Duration::from_millis(400);
/// Latent positions of a side in the calls that are compared, at most: larger ones take long and divide alike.
const MAX_SIDE: usize = 32;

impl Unet {
    /// Makes the lanes that were asked for, that the manifest knows to be faster, or that are to be tried.
    pub(super) fn open_lanes(&mut self, model: &Model, context: &Context<'_>) -> Result<(), Error> {
        let (threads, setup) = (context.runtime.threads.max(1), context.setup);
        if !setup.divides() {
            return Ok(());
        }
        let weights = model.part_bytes(PART, self.source.file())?;
        let most = lanes::most(threads, weights, setup.lane_memory);
        let known = model.divisions.get(threads).filter(|known| known.lanes <= most);
        let (count, gain) = match (setup.lanes, known) {
            (Choice::Fixed(count), _) => (count, Some(f64::INFINITY)),
            (Choice::Auto, Some(known)) => (known.lanes, Some(known.gain)),
            (Choice::Auto, None) => (most, None),
        };
        if count < 2 {
            return Ok(());
        }
        let own = Context {
            own: Some((threads / count).max(1)),
            ..Context::new(context.runtime, setup, &context.signal)
        };
        let open = || self.source.open(&own);
        let networks: Result<Vec<_>, Error> = std::thread::scope(|scope| {
            let opened: Vec<_> = (0..count).map(|_| scope.spawn(open)).collect();
            let opened = opened.into_iter();
            opened
                .map(|lane| {
                    lane.join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        self.lanes = match networks {
            Ok(networks) => Some(Lanes::new(networks, gain.unwrap_or(f64::INFINITY))),
            Err(error) if gain.is_none() => {
                tracing::warn!(%error, "lanes cannot be had; calls are divided by operators");
                None
            }
            Err(error) => return Err(error),
        };
        self.unsettled = gain.is_none() && self.lanes.is_some();
        Ok(())
    }

    /// Compares lanes with the pool where that was not done before, and keeps what is faster.
    pub(in super::super) fn settle(&mut self, model: &Model) -> Result<(), Error> {
        if !std::mem::take(&mut self.unsettled) {
            return Ok(());
        }
        let Some(lanes) = self.lanes.as_ref().map(Lanes::count) else {
            return Ok(());
        };
        let side = |side: usize| side.clamp(1, MAX_SIDE).next_multiple_of(self.unit);
        let shape = Shape {
            channels: CHANNELS,
            height: side(model.sample_size.0),
            width: side(model.sample_size.1),
        };
        // Two rows each: one would leave out what a second row costs.
        let probe = Probe::new(shape, &vec![501.0; 2 * lanes]);
        let gain = self.compare(&probe, 2 * lanes)?;
        let keeps = gain >= WORTH;
        tracing::info!(
            lanes,
            gain,
            keeps,
            "calls in lanes were compared with calls in the pool"
        );
        match &mut self.lanes {
            Some(lanes) if keeps => lanes.set_gain(gain),
            _ => self.lanes = None,
        }
        self.settled = Some(Division {
            lanes: if keeps { lanes } else { 1 },
            gain,
        });
        Ok(())
    }

    /// How many times as fast as the pool lanes are; 0 when they do not give the same bytes.
    fn compare(&mut self, probe: &Probe, rows: usize) -> Result<f64, Error> {
        let begun = Instant::now();
        let waves = self.waves(probe, 0..rows);
        let mut best = [Duration::MAX; 2];
        // The calls that warm up are those that compare the bytes.
        self.call(&waves.call(), &mut Vec::new())?;
        let same = |unet: &Self| unet.lanes.as_ref().is_some_and(Lanes::are_exact);
        if !same(self) {
            return Ok(0.0);
        }
        let mut out = Vec::new();
        for _ in 0..TRIES {
            // Turn and turn about, so that a slow moment of the machine meets both.
            for (divided, best) in [false, true].into_iter().zip(&mut best) {
                let lanes = if divided { None } else { self.lanes.take() };
                out.clear();
                let started = Instant::now();
                let ran = self.call(&waves.call(), &mut out);
                *best = started.elapsed().min(*best);
                self.lanes = self.lanes.take().or(lanes);
                ran?;
            }
            if begun.elapsed() > TIME {
                break;
            }
        }
        Ok(best[0].as_secs_f64() / best[1].as_secs_f64().max(1e-9))
    }
}
