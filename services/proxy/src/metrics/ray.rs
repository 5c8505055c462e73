//! Requests at the doors as Ray Serve's proxy counts them (request_ingress_metrics.py of 2.60): by route, method,
//! application and status.
//!
//! Labels come from the table, from the methods and statuses that there are, and from nowhere else. A request that fits no
//! application has an empty route.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{
    Counter, Gauge, Histogram, SharedString, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use mobula_kit::metrics::ray;
use tokio::time::Instant;
use tonic::Code;

use super::Metrics;

/// A status that a caller sees who is told nothing any more: nginx's, and Ray Serve's.
const CALLER_LEFT: u16 = 499;
/// The one method of the gRPC door that draws.
const GENERATE: &str = "/mobula.image.v1.ImageService/Generate";
/// HTTP methods that have a label of their own.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
/// The codes as Ray's label names them, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Names of one door's metrics.
struct Names {
    requests: &'static str,
    errors: &'static str,
    deployment_errors: &'static str,
    latency: &'static str,
    ongoing: &'static str,
}

const HTTP: Names = Names {
    requests: "serve_num_http_requests_total",
    errors: "serve_num_http_error_requests_total",
    deployment_errors: "serve_num_deployment_http_error_requests_total",
    latency: "serve_http_request_latency_ms",
    ongoing: "serve_num_ongoing_http_requests",
};
const GRPC: Names = Names {
    requests: "serve_num_grpc_requests_total",
    errors: "serve_num_grpc_error_requests_total",
    deployment_errors: "serve_num_deployment_grpc_error_requests_total",
    latency: "serve_grpc_request_latency_ms",
    ongoing: "serve_num_ongoing_grpc_requests",
};

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    /// By gRPC.
    Generate,
    /// By HTTP, with the method of this number; those beyond are others.
    Http(usize),
}

impl Method {
    /// A method of HTTP.
    pub(crate) fn http(method: &http::Method) -> Self {
        let known = METHODS.iter().position(|known| *known == method.as_str());
        Self::Http(known.unwrap_or(METHODS.len()))
    }

    fn names(self) -> &'static Names {
        match self {
            Self::Generate => &GRPC,
            Self::Http(_) => &HTTP,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Generate => GENERATE,
            Self::Http(number) => METHODS.get(number).copied().unwrap_or("other"),
        }
    }
}

/// The requests of one application.
#[derive(Debug)]
pub(crate) struct Ingress {
    application: String,
    /// The deployment that callers reach.
    deployment: String,
    route: String,
    cells: Mutex<HashMap<(Method, u16), Arc<Cell>>>,
}

/// Requests that ended alike.
#[derive(Debug)]
struct Cell {
    requests: Counter,
    latency: Histogram,
    errors: Option<(Counter, Counter)>,
}

impl Ingress {
    /// Nothing counted yet.
    pub(crate) fn new(application: &str, deployment: &str, route: &str) -> Self {
        Self {
            application: application.to_owned(),
            deployment: deployment.to_owned(),
            route: route.to_owned(),
            cells: Mutex::default(),
        }
    }

    /// True when it counts under these names.
    pub(crate) fn is(&self, application: &str, deployment: &str, route: &str) -> bool {
        self.application == application && self.deployment == deployment && self.route == route
    }

    /// Counts a request over gRPC that came at `begun` and ended with this code.
    pub(crate) fn called(&self, code: Code, begun: Instant) {
        let code = u16::try_from(i32::from(code)).unwrap_or_default();
        self.record(Method::Generate, code, begun);
    }

    fn record(&self, method: Method, status: u16, begun: Instant) {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            let cell = cells.entry((method, status));
            Arc::clone(cell.or_insert_with(|| Arc::new(self.cell(method, status))))
        };
        cell.requests.increment(1);
        cell.latency.record(begun.elapsed().as_secs_f64() * 1e3);
        if let Some((errors, deployment_errors)) = &cell.errors {
            errors.increment(1);
            deployment_errors.increment(1);
        }
    }

    fn cell(&self, method: Method, status: u16) -> Cell {
        let names = method.names();
        // Over gRPC an application is its own route, as in Ray.
        let route = match method {
            Method::Generate => &self.application,
            Method::Http(_) => &self.route,
        };
        let (status, is_error): (SharedString, bool) = match method {
            Method::Generate => {
                let code = CODES.get(usize::from(status)).copied();
                (code.unwrap_or("UNKNOWN").into(), status != 0)
            }
            Method::Http(_) => (status.to_string().into(), status >= 400),
        };
        let labels = |status_label: &'static str| -> Vec<(&'static str, SharedString)> {
            vec![
                ("route", route.clone().into()),
                ("method", method.label().into()),
                ("application", self.application.clone().into()),
                (status_label, status.clone()),
            ]
        };
        let errors = is_error.then(|| {
            let of_deployment = [
                labels("error_code"),
                vec![("deployment", self.deployment.clone().into())],
            ]
            .concat();
            (
                counter!(ray(names.errors), &labels("error_code")),
                counter!(ray(names.deployment_errors), &of_deployment),
            )
        });
        Cell {
            requests: counter!(ray(names.requests), &labels("status_code")),
            latency: histogram!(ray(names.latency), &labels("status_code")),
            errors,
        }
    }
}

/// Requests under way, by [`super::Door`].
pub(super) fn ongoing() -> [Gauge; 2] {
    [GRPC, HTTP].map(|names| gauge!(ray(names.ongoing)))
}

/// A request over HTTP from its head to its answer; one that is dropped before was given up by its caller.
#[derive(Debug)]
pub(crate) struct Seen {
    metrics: Arc<Metrics>,
    ingress: Arc<Ingress>,
    method: Method,
    status: u16,
    begun: Instant,
    /// It is one for an application.
    is_ongoing: bool,
}

impl Seen {
    /// A request that has just come.
    pub(crate) fn new(metrics: &Arc<Metrics>, method: Method) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            ingress: Arc::clone(&metrics.nowhere),
            method,
            status: CALLER_LEFT,
            begun: Instant::now(),
            is_ongoing: false,
        }
    }

    /// It is for one of the proxy's own pages.
    pub(crate) fn page(&mut self, ingress: &Arc<Ingress>) {
        self.ingress = Arc::clone(ingress);
    }

    /// It is for an application.
    pub(crate) fn application(&mut self, ingress: &Arc<Ingress>) {
        self.ingress = Arc::clone(ingress);
        self.is_ongoing = true;
        self.metrics.ongoing(super::Door::Http).increment(1.0);
    }

    /// It is being answered.
    pub(crate) fn answering(&mut self, status: http::StatusCode) {
        self.status = status.as_u16();
    }

    /// It was answered.
    pub(crate) fn answered(mut self, status: http::StatusCode) {
        self.answering(status);
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if self.is_ongoing {
            self.metrics.ongoing(super::Door::Http).decrement(1.0);
        }
        self.ingress.record(self.method, self.status, self.begun);
    }
}

pub(super) fn describe() {
    for names in [HTTP, GRPC] {
        describe_counter!(ray(names.requests), "Requests that ended, by status.");
        describe_counter!(ray(names.errors), "Requests that ended with an error.");
        describe_counter!(
            ray(names.deployment_errors),
            "Requests that ended with an error, by the deployment that callers reach."
        );
        describe_histogram!(
            ray(names.latency),
            "Milliseconds from a request's head to the end of its answer."
        );
        describe_gauge!(ray(names.ongoing), "Requests under way at this door.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_nobody_knows_share_a_label() {
        assert_eq!(Method::http(&http::Method::GET).label(), "GET");
        let made_up = http::Method::from_bytes(b"BREW").unwrap();
        assert_eq!(Method::http(&made_up).label(), "other");
        assert_eq!(Method::Generate.label(), GENERATE);
    }

    #[test]
    fn requests_are_counted_under_rays_names_and_labels() {
        let handle = mobula_kit::metrics::install();
        let ingress = Ingress::new("counted", "pipeline", "/counted");
        let begun = Instant::now();
        ingress.record(Method::http(&http::Method::GET), 200, begun);
        ingress.record(Method::http(&http::Method::GET), 503, begun);
        ingress.called(Code::ResourceExhausted, begun);
        let page = handle.render();
        for line in [
            r#"serve_num_http_requests_total{route="/counted",method="GET",application="counted",status_code="200"} 1"#,
            r#"serve_num_http_error_requests_total{route="/counted",method="GET",application="counted",error_code="503"} 1"#,
            r#"serve_num_grpc_requests_total{route="counted",method="/mobula.image.v1.ImageService/Generate",application="counted",status_code="RESOURCE_EXHAUSTED"} 1"#,
            r#"serve_num_deployment_grpc_error_requests_total{route="counted",method="/mobula.image.v1.ImageService/Generate",application="counted",error_code="RESOURCE_EXHAUSTED",deployment="pipeline"} 1"#,
            r#"serve_http_request_latency_ms_count{route="/counted",method="GET",application="counted",status_code="503"} 1"#,
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }
}
