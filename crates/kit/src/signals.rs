//! What from outside begins the stop: SIGTERM, SIGINT, and the end of a process that this one must not outlive.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::{Error, Stop, process::Stat, start::EXIT_KILLED};

/// How soon the end of the other process is noticed.
const CHECK: Duration = Duration::from_secs(1);

/// The first SIGTERM or SIGINT triggers the stop; the second ends the process at once.
pub(crate) fn watch(stop: &Stop) -> Result<(), Error> {
    let failed = |source: std::io::Error| Error::Telemetry {
        what: "signals",
        source: source.into(),
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = stop.clone();
    // Not tracked: it has to outlive the drain to see the second signal, and ends with the runtime.
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if stop.is_triggered() {
                tracing::warn!("{name} while stopping: leaving at once");
                std::process::exit(EXIT_KILLED.into());
            }
            tracing::info!("{name}: stopping");
            stop.trigger();
        }
    });
    Ok(())
}

/// Triggers the stop when the process with this id is gone, or is another one by now.
pub(crate) fn exit_with(pid: u32, stop: &Stop) {
    let stop = stop.clone();
    // Read before the service begins, so that whoever sees it run may rely on it.
    let first = Stat::of(pid);
    tokio::spawn(async move {
        let Some(first) = first else {
            tracing::warn!(pid, "the process to exit with is gone already: stopping");
            return stop.trigger();
        };
        loop {
            tokio::select! {
                () = stop.triggered() => return,
                () = tokio::time::sleep(CHECK) => {}
            }
            if Stat::of(pid).is_none_or(|now| now.start_ticks != first.start_ticks) {
                tracing::info!(pid, "the process to exit with is gone: stopping");
                return stop.trigger();
            }
        }
    });
}
