//! A loop without a thread: whoever made it turns it, for measurements of what a tick costs beside the engine.
//!
//! It is the loop itself, with the same handle. It measures nothing.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use super::running::Running;
use super::stats::Stats;
use super::thread::{Loop, Parts};
use super::{MAX_PICTURES, Options, Runner, Thread};
use crate::engine::{Engine, Error};
use crate::metrics::Metrics;

/// A loop that is turned by hand.
pub(crate) struct Hand(Loop);

impl Hand {
    /// Makes a loop around an engine, and its handle.
    ///
    /// # Errors
    /// [`Error::Thread`] when the threads that encode pictures cannot be started.
    pub(crate) fn new(options: Options, engine: Box<dyn Engine>) -> Result<(Runner, Self), Error> {
        let (sender, commands) = sync_channel(MAX_PICTURES);
        let (stats, metrics) = (Arc::new(Stats::default()), Metrics::new());
        let (running, info) = (Arc::new(Running::default()), Arc::new(engine.info().clone()));
        let parts = Parts {
            options,
            commands,
            stats: Arc::clone(&stats),
            metrics: metrics.clone(),
            running: Arc::clone(&running),
        };
        let work = Loop::new(parts, engine, Vec::new())?;
        let thread = Thread {
            sender: Some(sender),
            handle: None,
        };
        let runner = Runner {
            info,
            stats,
            metrics,
            running,
            thread: Arc::new(Mutex::new(thread)),
        };
        Ok((runner, Self(work)))
    }

    /// One tick and what comes before it; gives the tick's rows. Without work it waits for a request.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) fn turn(&mut self) -> Result<usize, Error> {
        self.0.turn()?;
        Ok(self.0.batch.rows())
    }
}
