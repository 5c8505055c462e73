//! A loop without a thread: whoever made it turns it, for measurements of what a tick costs beside the engine.
//!
//! It is the loop itself, with the same handle. It measures nothing.

use super::thread::Loop;
use super::{Ends, Measured, Options, Runner};
use crate::engine::{Engine, Error};

/// A loop that is turned by hand.
pub(crate) struct Hand(Loop);

impl Hand {
    /// Makes a loop around an engine, and its handle.
    ///
    /// # Errors
    /// [`Error::Thread`] when the threads that encode pictures cannot be started.
    pub(crate) fn new(
        options: Options,
        engine: Box<dyn Engine>,
        measured: Vec<Measured>,
    ) -> Result<(Runner, Self), Error> {
        let (ends, parts) = Ends::new(options);
        let info = engine.info().clone();
        let work = Loop::new(parts, engine, measured)?;
        Ok((ends.runner(info, None), Self(work)))
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
