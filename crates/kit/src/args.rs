//! The flags that all services share, each with its environment variable. Nothing here reads or decides anything.

use std::{num::NonZeroUsize, thread::available_parallelism, time::Duration};

use crate::Connections;

/// What is logged when nothing is said.
pub(crate) const DEFAULT_LOG: &str = "info";
/// Libraries that talk too much unless a filter names them: ONNX Runtime alone writes 60 lines per session at info.
pub(crate) const QUIET: &str = "ort=warn,h2=warn,hyper=warn,tower=warn";

/// Flags of every service; a binary takes them in by `#[command(flatten)]`.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// How log lines look
    #[arg(long, env = "MOBULA_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: a level, or levels by module, such as info,mobula_proxy=debug
    #[arg(long, env = "MOBULA_LOG", default_value = DEFAULT_LOG)]
    pub log: String,
    /// Where traces are sent: gRPC address of an OpenTelemetry collector, such as http://127.0.0.1:4317; none by default
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Share of new traces that are recorded, 0 to 1; a caller's decision is followed
    #[arg(long, env = "MOBULA_TRACE_RATIO", default_value_t = 1.0)]
    pub trace_ratio: f64,
    /// Seconds that requests have to finish once the service is told to stop
    #[arg(long, env = "MOBULA_DRAIN_TIMEOUT_S", default_value_t = 20)]
    pub drain_timeout_s: u64,
    /// Give metrics that Ray Serve has too its full names, such as ray_serve_num_http_requests_total; without it they are
    /// named as Serve's own exporter names them, serve_num_http_requests_total
    #[arg(long, env = "MOBULA_RAY_METRICS_PREFIX", value_parser = clap::builder::FalseyValueParser::new())]
    pub ray_metrics_prefix: bool,
    /// Threads that read and write the network; what computes has others. Half of the cores by default
    #[arg(long, env = "MOBULA_IO_THREADS")]
    pub io_threads: Option<NonZeroUsize>,
    /// Connections that this process takes at all its ports but the admin pages'; one too many is let go of at once. By default
    /// three quarters of the descriptors that the system gives a process
    #[arg(long, env = "MOBULA_MAX_CONNECTIONS", value_name = "N", value_parser = positive)]
    pub max_connections: Option<usize>,
    /// Connections of those from one address (of IPv6: from one /64); by default as many as there are, since behind a balancer
    /// all come from one
    #[arg(long, env = "MOBULA_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", value_parser = positive)]
    pub max_connections_per_address: Option<usize>,
    /// Stop when the process with this id is gone
    #[arg(long, env = "MOBULA_EXIT_WITH_PID")]
    pub exit_with_pid: Option<u32>,
}

/// How log lines look.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

impl Common {
    /// How many connections there may be.
    pub(crate) fn connections(&self) -> Connections {
        let defaults = Connections::default();
        Connections {
            all: self.max_connections.unwrap_or(defaults.all),
            each: self.max_connections_per_address,
        }
    }

    /// How long a drain may take.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_s)
    }

    /// Threads of the async runtime. On a machine that several services share, more of them than cores wake each other
    /// for every message: with one thread a service on two cores a request costs the mesh a tenth less.
    pub(crate) fn io_threads(&self) -> usize {
        let half = || available_parallelism().map_or(1, |cores| cores.get() / 2).max(1);
        self.io_threads.map_or_else(half, NonZeroUsize::get)
    }
}

fn positive(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or("must be a whole number above 0")
}

impl Default for Common {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log: DEFAULT_LOG.to_owned(),
            otlp_endpoint: None,
            trace_ratio: 1.0,
            drain_timeout_s: 20,
            ray_metrics_prefix: false,
            io_threads: None,
            max_connections: None,
            max_connections_per_address: None,
            exit_with_pid: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        common: Common,
    }

    #[test]
    fn the_defaults_of_the_flags_are_the_defaults_of_the_struct() {
        let parsed = Line::parse_from(["service"]).common;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Common::default()));
    }

    #[test]
    fn rays_full_names_are_a_flag_without_a_value() {
        let parsed = Line::parse_from(["service", "--ray-metrics-prefix", "--log", "warn"]).common;
        assert!(parsed.ray_metrics_prefix);
        assert_eq!(parsed.log, "warn");
    }
}
