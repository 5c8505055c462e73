//! Ctrl-C and SIGTERM as something to await. It only tells; what stopping means is decided by the command.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Error;

/// The two signals by which people and supervisors say stop. From its creation on they no longer kill the process.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub(crate) fn listen() -> Result<Self, Error> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Error::Signals)?,
            terminate: signal(SignalKind::terminate()).map_err(Error::Signals)?,
        })
    }

    /// Waits for the next one. Cancel-safe: a signal is not lost when this is dropped.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
