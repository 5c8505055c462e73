//! The tick loop on the calling thread, for measurements of what a tick costs beside the engine. No part of the public API.

use std::fmt;
use std::time::Duration;

use mobula_diffusion::Config as Scheduler;
use mobula_diffusion::preview::LatentRgb;
use mobula_kit::worker::ModelInfo;
use mobula_proto::inference::v1::GenerateRequest;
use mobula_serving::tick::Policy;

use crate::engine::fake::{Costs, SCHEDULER};
use crate::engine::{Engine, Error};
use crate::metrics::Place;
use crate::replica::Loaded;
use crate::runner::{Device, Hand, Inbox, Measured, Options};

/// Room for some windows of text.
const CACHE_BYTES: usize = 1 << 20;
/// What the loop believes of its engine.
const COSTS: Costs = Costs {
    base: Duration::from_millis(1),
    row: Duration::from_nanos(10),
    decode: Duration::ZERO,
};

/// The loop.
pub struct Bench {
    loaded: Loaded,
    hand: Hand,
    /// Kept, because a reader that goes away cancels its request; nobody reads them.
    inboxes: Vec<Inbox>,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("loaded", &self.loaded)
            .field("requests", &self.inboxes.len())
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// A loop around an engine, whose calls have so many rows at most.
    ///
    /// # Errors
    /// [`Error::Thread`] when threads cannot be started.
    pub fn new(engine: Box<dyn Engine>, max_rows: usize) -> Result<Self, Error> {
        // Larger calls are better, so that ticks are as large as they may be.
        let measured = COSTS.curve(max_rows).map(|curve| Measured {
            height: 8,
            width: 8,
            tokens: 77,
            curve,
        });
        let options = Options {
            max_rows,
            native: usize::MAX,
            cache_bytes: CACHE_BYTES,
            latent_rgb: LatentRgb::default(),
            zeros_for_empty: false,
            policy: Policy::default(),
            device: Device::new(),
            place: Place::default(),
        };
        let (runner, hand) = Hand::new(options, engine, measured.into_iter().collect())?;
        let info = ModelInfo {
            max_size: 1024,
            max_prompt_windows: 1,
            ..ModelInfo::default()
        };
        let scheduler = Scheduler::from_json(SCHEDULER)?;
        Ok(Self {
            loaded: Loaded::new(runner, scheduler, info, None),
            hand,
            inboxes: Vec::new(),
        })
    }

    /// Gives it a request.
    ///
    /// # Errors
    /// What a worker says to such a request.
    pub fn submit(&mut self, request: GenerateRequest) -> Result<(), Error> {
        self.inboxes.push(self.loaded.generate(request, None)?);
        Ok(())
    }

    /// One tick and what comes before it; gives the tick's rows. Without work it waits for ever.
    ///
    /// # Errors
    /// The engine's.
    pub fn turn(&mut self) -> Result<usize, Error> {
        self.hand.turn()
    }
}
