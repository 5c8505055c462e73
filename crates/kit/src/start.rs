//! From `main` to exit code, the same for every binary: runtime, telemetry, signals, the service, drain, flush.
//!
//! Exit codes: 0 it ran and stopped; 1 it could not run, with one sentence why; 64 a setting cannot be used; 130 a second
//! signal ended it.

use std::{error::Error as StdError, future::Future, panic, process::ExitCode, time::Duration};

use crate::{Common, Drained, Error, Stop, Telemetry, chain, limit_connections, metrics, signals};

/// It ran, and stopped when it was told to.
pub const EXIT_OK: u8 = 0;
/// It could not start, or it failed while it ran.
pub const EXIT_FAILED: u8 = 1;
/// A setting cannot be used: EX_USAGE of sysexits, as linkerd uses it.
pub const EXIT_CONFIG: u8 = 64;
/// A second signal ended it: 128 + SIGINT, as shells count.
pub const EXIT_KILLED: u8 = 130;

/// What was built.
pub(crate) const PROFILE: &str = if cfg!(debug_assertions) {
    "debug"
} else {
    "release"
};

/// Threads of ours that still compute at the end are not waited for longer than this.
const RUNTIME_END: Duration = Duration::from_millis(100);

/// Parses the command line; prints what is wrong with it and exits with [`EXIT_CONFIG`] (0 for help and version).
pub fn parse<A: clap::Parser>() -> A {
    A::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        let code = if error.use_stderr() { EXIT_CONFIG } else { EXIT_OK };
        std::process::exit(code.into())
    })
}

/// Runs a service to its end.
///
/// `body` gets the stop and returns when the service has drained. When the deadline of the drain passes, body is dropped
/// and the rest is cut.
pub fn main<F, Fut, E>(service: &'static str, common: &Common, body: F) -> ExitCode
where
    F: FnOnce(Stop) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: StdError + Send + Sync + 'static,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(common.io_threads())
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(service, &error),
    };
    let code = runtime.block_on(Box::pin(run(service, common, body)));
    runtime.shutdown_timeout(RUNTIME_END);
    code
}

async fn run<F, Fut, E>(service: &'static str, common: &Common, body: F) -> ExitCode
where
    F: FnOnce(Stop) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: StdError + Send + Sync + 'static,
{
    let telemetry = match Telemetry::start(service, common) {
        Ok(telemetry) => telemetry,
        Err(error) => return failed(service, &error),
    };
    log_panics();
    metrics::prefix_ray(common.ray_metrics_prefix);
    metrics::install();
    limit_connections(common.connections());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        profile = PROFILE,
        pid = std::process::id(),
        "{service} starts"
    );
    let stop = Stop::new(common.grace());
    let code = match signals::watch(&stop) {
        Ok(()) => {
            if let Some(pid) = common.exit_with_pid {
                signals::exit_with(pid, &stop);
            }
            until_stopped(service, &stop, body(stop.clone())).await
        }
        Err(error) => failed(service, &error),
    };
    telemetry.flush().await;
    code
}

async fn until_stopped<E>(
    service: &'static str,
    stop: &Stop,
    body: impl Future<Output = Result<(), E>>,
) -> ExitCode
where
    E: StdError + Send + Sync + 'static,
{
    // The block drops the body when it is cut, and with it what it holds, before the tasks are waited for.
    let ended = {
        let body = std::pin::pin!(body);
        tokio::select! {
            biased;
            ended = body => Some(ended),
            () = stop.expired() => None,
        }
    };
    // A body that ended early, by itself or by an error, takes its tasks along.
    stop.trigger();
    let drained = stop.wait().await;
    match ended {
        Some(Err(error)) => return failed(service, &error),
        Some(Ok(())) if drained == Drained::Clean => tracing::info!("{service} stopped"),
        Some(Ok(())) | None => {
            let late = match drained {
                Drained::Cut(late) => late.join(", "),
                Drained::Clean => "the service itself".to_owned(),
            };
            tracing::warn!(
                late,
                "{service} stopped at the drain deadline with work unfinished"
            );
        }
    }
    ExitCode::from(EXIT_OK)
}

/// Says in one sentence why the service does not run.
fn failed(service: &str, error: &(dyn StdError + 'static)) -> ExitCode {
    let text = chain(error);
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{service} cannot run: {text}");
    } else {
        eprintln!("{service} cannot run: {text}");
    }
    ExitCode::from(if is_config(error) {
        EXIT_CONFIG
    } else {
        EXIT_FAILED
    })
}

fn is_config(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<Error>().is_some_and(Error::is_config) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Panics become log lines, so that they have a time, a format and a way to the log store like everything else.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        // Empty unless RUST_BACKTRACE asks for it.
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(place, thread, %backtrace, "panic: {message}");
        } else {
            tracing::error!(place, thread, "panic: {message}");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Outer(#[source] Error);

    #[test]
    fn a_setting_that_cannot_be_used_is_found_below_a_services_own_error() {
        let address = Outer(Error::Address {
            address: "nowhere".to_owned(),
        });
        assert!(is_config(&address));
        let bind = Error::Bind {
            what: "gRPC",
            address: "127.0.0.1:1".parse().unwrap(),
            hint: "",
            source: std::io::Error::from(std::io::ErrorKind::AddrInUse),
        };
        assert!(!is_config(&Outer(bind)));
    }
}
