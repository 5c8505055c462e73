//! How the UNet's calls are divided among the cores: lanes are made, measured beside the pool, and kept where they are faster.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::super::super::{Error, Shape};
use super::super::common::{Common, Scratch};
use super::super::lanes::{self, Choice, Lanes, joined};
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

/// Lanes that are to be made.
pub(super) struct Plan {
    count: usize,
    /// How many times as fast as the pool they are; none when it is to be found out.
    gain: Option<f64>,
    /// Where the network is written in the form that their sessions have in common.
    written: Option<Scratch>,
}

impl Plan {
    /// The lanes that were asked for, that the manifest knows to be faster, or that are to be tried; none for the pool alone.
    pub(super) fn of(model: &Model, context: &Context<'_>) -> Result<Option<Self>, Error> {
        let (threads, setup) = (context.runtime.threads.max(1), context.setup);
        if !setup.divides() {
            return Ok(None);
        }
        let weights = model.part_bytes(PART, &model.part(PART))?;
        let most = lanes::most(threads, weights, setup.lane_memory);
        let known = model.divisions.get(threads).filter(|known| known.lanes <= most);
        let (count, gain) = match (setup.lanes, known) {
            (Choice::Fixed(count), _) => (count, Some(f64::INFINITY)),
            (Choice::Auto, Some(known)) => (known.lanes, Some(known.gain)),
            (Choice::Auto, None) => (most, None),
        };
        if count < 2 {
            return Ok(None);
        }
        let written = Scratch::new()
            .inspect_err(
                |why| tracing::warn!(%why, "no temporary file: lanes have a copy of the weights each"),
            )
            .ok();
        Ok(Some(Self { count, gain, written }))
    }

    /// Where sessions write the network.
    pub(super) fn written(&self) -> Option<&Path> {
        self.written.as_ref().map(Scratch::path)
    }
}

impl Unet {
    /// Makes lanes, and the pool's session again where it can have its weights in common with them.
    pub(super) fn with_lanes(mut self, plan: &Plan, context: &Context<'_>) -> Result<Self, Error> {
        let context = &self.source.with_operators(context);
        let own = Context {
            own: Some((context.runtime.threads.max(1) / plan.count).max(1)),
            ..context.clone()
        };
        let common = plan.written().map(|file| Common::read(PART, file)).transpose();
        let common = common.map(Option::flatten).unwrap_or_else(|why| {
            tracing::warn!(%why, "lanes have a copy of the weights each");
            None
        });
        let opened = match common {
            None => opened(plan.count, || self.source.open(&own)),
            Some(common) => {
                // First, so that the new ones take its place: they are many small pieces, and holes between them stay.
                drop(self.network);
                let (pool, lanes) = std::thread::scope(|scope| {
                    let lanes = scope.spawn(|| opened(plan.count, || common.open(&own)));
                    (common.open(context), joined(lanes))
                });
                self.shares = pool.is_ok();
                self.network = pool.or_else(|why| {
                    tracing::warn!(%why, "the pool has a copy of the weights");
                    self.source.open(context)
                })?;
                lanes.or_else(|why| {
                    tracing::warn!(%why, "lanes have a copy of the weights each");
                    opened(plan.count, || self.source.open(&own))
                })
            }
        };
        match opened {
            Ok(lanes) => self.lanes = Some(Lanes::new(lanes, plan.gain.unwrap_or(f64::INFINITY))),
            Err(error) if plan.gain.is_none() => {
                tracing::warn!(%error, "lanes cannot be had; calls are divided by operators");
                self.shares_nothing(context);
            }
            Err(error) => return Err(error),
        }
        self.unsettled = plan.gain.is_none() && self.lanes.is_some();
        Ok(self)
    }

    /// Compares lanes with the pool where that was not done before, and keeps what is faster.
    pub(in super::super) fn settle(&mut self, model: &Model, context: &Context<'_>) -> Result<(), Error> {
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
        let probe = Probe::of_pictures(shape, &vec![501.0; 2 * lanes]);
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
            _ => {
                self.lanes = None;
                self.shares_nothing(context);
            }
        }
        self.settled = Some(Division {
            lanes: if keeps { lanes } else { 1 },
            gain,
        });
        Ok(())
    }

    /// Gives the pool weights of its own, of which one session alone takes less memory.
    fn shares_nothing(&mut self, context: &Context<'_>) {
        if !self.shares {
            return;
        }
        match self.source.open(context) {
            Ok(network) => {
                self.network = network;
                self.shares = false;
            }
            Err(why) => tracing::warn!(%why, "the pool keeps what it had in common with lanes"),
        }
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

/// Opens so many at once.
fn opened<T: Send, E: Send>(count: usize, open: impl Fn() -> Result<T, E> + Sync) -> Result<Vec<T>, E> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&open)).collect();
        threads.into_iter().map(joined).collect()
    })
}
