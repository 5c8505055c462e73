//! Prometheus metrics: one recorder per process, buckets by the unit in a histogram's name, and what is true of every
//! process. Services describe their own metrics in their own `metrics.rs`.
//!
//! Names are `mobula_<area>_<what>_<unit>`; beside them stand those of Ray Serve that its dashboards read.
//! Histograms must end in `_seconds` or `_rows`: those have buckets here. What tells of a replica, a deployment or an
//! application is a [`Family`], as all of Ray's are, whose series end with it.

mod series;

use std::{borrow::Cow, sync::OnceLock};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use self::series::{Family, Kind, Series};
use crate::{guard, pace, process::Usage, tls};

/// gRPC requests that ended, by service, method and code.
pub const GRPC_REQUESTS: &str = "mobula_grpc_requests_total";
/// gRPC requests that began, by service and method; less those that ended, they are in flight.
pub const GRPC_STARTED: &str = "mobula_grpc_requests_started_total";
/// From a request's headers to the end of its response, by service and method.
pub const GRPC_SECONDS: &str = "mobula_grpc_request_seconds";

/// What came to a gRPC door by other ways than gRPC, by kind: gRPC-Web's calls, browsers' questions before them, and others,
/// which are refused. The calls count as gRPC requests too.
pub const GRPC_WEB_REQUESTS: &str = "mobula_grpc_web_requests_total";

const RESIDENT: &str = "process_resident_memory_bytes";
const CPU: &str = "process_cpu_seconds_total";
const FDS: &str = "process_open_fds";
const STARTED: &str = "process_start_time_seconds";
const BUILD: &str = "mobula_build_info";

/// From an inner hop (100 us) to a long picture on a CPU (a minute); 1-2.5-5 as Prometheus does it.
const SECONDS: [f64; 19] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    25.0, 60.0, 120.0,
];
/// Rows of a UNet call: powers of two, up to more than any device takes at a time.
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Milliseconds, as Ray Serve divides them (DEFAULT_LATENCY_BUCKET_MS of 2.60), so that its dashboards add up.
pub const MILLIS: [f64; 19] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0,
    60_000.0, 120_000.0, 300_000.0, 600_000.0,
];

/// What replicas take to start and to end in milliseconds, as Ray Serve divides it
/// (DEFAULT_REPLICA_STARTUP_SHUTDOWN_LATENCY_BUCKETS_MS of 2.60).
pub const START_MILLIS: [f64; 15] = [
    5.0, 20.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 30_000.0, 60_000.0,
    120_000.0, 240_000.0,
];

/// Whether names of Ray Serve's metrics begin with `ray_`; decided once per process.
static RAY_PREFIX: OnceLock<bool> = OnceLock::new();

/// Decides whether names of Ray Serve's are shown with `ray_` in front. [`crate::main`] calls it with `--ray-metrics-prefix`;
/// later calls change nothing.
pub fn prefix_ray(is_prefixed: bool) {
    RAY_PREFIX.get_or_init(|| is_prefixed);
}

/// How a metric's name is shown. Prometheus sees Ray Serve's as `serve_num_http_requests_total` from Serve's own exporter, and
/// as `ray_serve_num_http_requests_total` from a Ray cluster; counters end in `_total` in both.
fn shown(name: &'static str) -> Cow<'static, str> {
    shown_as(name, *RAY_PREFIX.get_or_init(|| false))
}

fn shown_as(name: &'static str, is_prefixed: bool) -> Cow<'static, str> {
    if is_prefixed && name.starts_with("serve_") {
        format!("ray_{name}").into()
    } else {
        name.into()
    }
}

/// Installs the process's recorder and gives the handle that renders it. Later calls give the same handle. [`crate::main`]
/// and the gRPC server call it first; who makes metric handles before those (a test) must call it too, since a handle made
/// without a recorder counts nothing.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(start).clone()
}

fn start() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), &ROWS))
        .expect("bucket tables are not empty")
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another metrics recorder is installed; this one stays empty");
    }
    describe();
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION"), "profile" => crate::start::PROFILE).set(1.0);
    handle
}

fn describe() {
    pace::describe();
    describe_counter!(GRPC_REQUESTS, "gRPC requests that ended, by code.");
    describe_counter!(GRPC_STARTED, "gRPC requests that began.");
    describe_counter!(
        GRPC_WEB_REQUESTS,
        "Requests at a gRPC door that are not gRPC: browsers' calls, their preflights, others."
    );
    describe_histogram!(
        GRPC_SECONDS,
        Unit::Seconds,
        "Time from a gRPC request to the end of its response."
    );
    describe_counter!(
        guard::REFUSED,
        "Calls refused for want of a token, by scope and why."
    );
    describe_counter!(tls::RELOADS, "Reads of changed certificate files, by result.");
    describe_counter!(
        tls::HANDSHAKES,
        "TLS handshakes at ports of this process, by result."
    );
    describe_gauge!(
        tls::EXPIRY,
        "When the certificate in use ends, seconds since the Unix epoch."
    );
    describe_gauge!(RESIDENT, Unit::Bytes, "Resident memory.");
    describe_gauge!(FDS, "Open file descriptors.");
    describe_gauge!(
        STARTED,
        Unit::Seconds,
        "Start of the process since the Unix epoch."
    );
    describe_gauge!(BUILD, "Always 1; the labels say what was built.");
}

/// The metrics page, with the process's own numbers as of now.
pub fn render(handle: &PrometheusHandle) -> String {
    let usage = Usage::now();
    gauge!(RESIDENT).set(usage.resident_bytes as f64);
    gauge!(FDS).set(usage.open_fds as f64);
    gauge!(STARTED).set(usage.start_time_seconds);
    // A counter here holds whole numbers, and a processor second is too long a unit: written by hand.
    let mut page = handle.render();
    page.push_str(&format!(
        "# HELP {CPU} Processor time, user and system.\n# TYPE {CPU} counter\n{CPU} {}\n",
        usage.cpu_seconds
    ));
    series::render(&mut page);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_on_the_page_has_a_help_and_a_type_line() {
        let handle = install();
        metrics::histogram!(GRPC_SECONDS, "service" => "s", "method" => "m").record(0.0003);
        metrics::counter!(GRPC_REQUESTS, "service" => "s", "method" => "m", "code" => "OK").increment(1);
        let page = render(&handle);
        for name in [GRPC_SECONDS, GRPC_REQUESTS, RESIDENT, CPU, FDS, STARTED, BUILD] {
            assert!(page.contains(&format!("# HELP {name} ")), "{name} in {page}");
            assert_eq!(
                page.matches(&format!("# TYPE {name} ")).count(),
                1,
                "{name} in {page}"
            );
        }
        assert!(
            page.contains("mobula_grpc_request_seconds_bucket{service=\"s\",method=\"m\",le=\"0.0005\"} 1")
        );
    }

    #[test]
    fn rays_names_are_prefixed_only_where_it_is_asked_for_and_ours_never() {
        let (rays, ours) = ("serve_deployment_status", "mobula_proxy_replicas");
        assert_eq!(shown_as(rays, false), rays);
        assert_eq!(shown_as(rays, true), "ray_serve_deployment_status");
        assert_eq!(shown_as(ours, true), ours);
    }

    #[test]
    fn installing_again_gives_the_same_recorder() {
        let (first, second) = (install(), install());
        metrics::counter!("mobula_test_total").increment(3);
        assert!(first.render().contains("mobula_test_total 3"));
        assert!(second.render().contains("mobula_test_total 3"));
    }
}
