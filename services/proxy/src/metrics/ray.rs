//! Requests at the doors as Ray Serve's proxy counts them (request_ingress_metrics.py of 2.60): by route, method,
//! application and status.
//!
//! Labels come from the table, from the methods and statuses that there are, and from nowhere else. A request that fits no
//! application has an empty route. Series end with their application's place in the route table and its last request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use mobula_kit::{
    metrics::{Family, Kind, MILLIS, Series},
    status,
};
use mobula_proto::control::v1::WatchRoutesRequest;
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
const WITH_STATUS: &[&str] = &["route", "method", "application", "status_code"];
const WITH_ERROR: &[&str] = &["route", "method", "application", "error_code"];
const OF_DEPLOYMENT: &[&str] = &["route", "method", "application", "error_code", "deployment"];

/// One door's metrics.
struct Families {
    requests: Family,
    errors: Family,
    deployment_errors: Family,
    latency: Family,
    ongoing: Family,
}

impl Families {
    /// By their names, in the order of the fields.
    const fn new(names: [&'static str; 5]) -> Self {
        let [requests, errors, deployment_errors, latency, ongoing] = names;
        Self {
            requests: Family {
                name: requests,
                kind: Kind::Counter,
                labels: WITH_STATUS,
                help: "Requests that ended, by status.",
            },
            errors: Family {
                name: errors,
                kind: Kind::Counter,
                labels: WITH_ERROR,
                help: "Requests that ended with an error.",
            },
            deployment_errors: Family {
                name: deployment_errors,
                kind: Kind::Counter,
                labels: OF_DEPLOYMENT,
                help: "Requests that ended with an error, by the deployment that callers reach.",
            },
            latency: Family {
                name: latency,
                kind: Kind::Histogram(&MILLIS),
                labels: WITH_STATUS,
                help: "Milliseconds from a request's head to the end of its answer.",
            },
            ongoing: Family {
                name: ongoing,
                kind: Kind::Gauge,
                labels: &["node_id", "node_ip_address"],
                help: "Requests under way at this door.",
            },
        }
    }

    #[cfg(test)]
    fn all(&self) -> [&Family; 5] {
        [
            &self.requests,
            &self.errors,
            &self.deployment_errors,
            &self.latency,
            &self.ongoing,
        ]
    }
}

static HTTP: Families = Families::new([
    "serve_num_http_requests_total",
    "serve_num_http_error_requests_total",
    "serve_num_deployment_http_error_requests_total",
    "serve_http_request_latency_ms",
    "serve_num_ongoing_http_requests",
]);
static GRPC: Families = Families::new([
    "serve_num_grpc_requests_total",
    "serve_num_grpc_error_requests_total",
    "serve_num_deployment_grpc_error_requests_total",
    "serve_grpc_request_latency_ms",
    "serve_num_ongoing_grpc_requests",
]);

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

    fn families(self) -> &'static Families {
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
    requests: Series,
    latency: Series,
    errors: Option<(Series, Series)>,
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
        cell.requests.add(1);
        cell.latency.record_ms(begun.elapsed());
        if let Some((errors, deployment_errors)) = &cell.errors {
            errors.add(1);
            deployment_errors.add(1);
        }
    }

    fn cell(&self, method: Method, status: u16) -> Cell {
        let families = method.families();
        // Over gRPC an application is its own route, as in Ray.
        let route: &str = match method {
            Method::Generate => &self.application,
            Method::Http(_) => &self.route,
        };
        let (status, is_error) = match method {
            Method::Generate => {
                let code = Code::from_i32(status.into());
                (status::name(code).to_owned(), code != Code::Ok)
            }
            Method::Http(_) => (status.to_string(), status >= 400),
        };
        let labels = [route, method.label(), &self.application, &status];
        let errors = is_error.then(|| {
            let [route, method, application, status] = labels;
            let of_deployment = [route, method, application, status, &self.deployment];
            let errors = families.errors.series(&labels);
            (errors, families.deployment_errors.series(&of_deployment))
        });
        Cell {
            requests: families.requests.series(&labels),
            latency: families.latency.series(&labels),
            errors,
        }
    }
}

/// Requests under way, by [`super::Door`]. A proxy stands for its node, as in the answers of Ray's REST.
pub(super) fn ongoing(proxy: &WatchRoutesRequest) -> [Series; 2] {
    let host = proxy.http_address.rsplit_once(':').map_or("", |(host, _)| host);
    [&GRPC, &HTTP].map(|families| families.ongoing.series(&[&proxy.proxy_id, host]))
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
        self.metrics.ongoing(super::Door::Http).change(1.0);
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
            self.metrics.ongoing(super::Door::Http).change(-1.0);
        }
        self.ingress.record(self.method, self.status, self.begun);
    }
}

#[cfg(test)]
mod tests {
    use mobula_kit::metrics::{install, render};

    use super::{super::queue, *};

    #[test]
    fn names_types_labels_and_buckets_are_rays() {
        let list = include_str!("../../../../crates/kit/tests/golden/ray_metrics.tsv");
        for family in HTTP.all().into_iter().chain(GRPC.all()).chain(queue::RAYS) {
            assert!(
                list.lines().any(|line| line == family.line()),
                "{}",
                family.line()
            );
        }
    }

    #[test]
    fn methods_that_nobody_knows_share_a_label() {
        assert_eq!(Method::http(&http::Method::GET).label(), "GET");
        let made_up = http::Method::from_bytes(b"BREW").unwrap();
        assert_eq!(Method::http(&made_up).label(), "other");
        assert_eq!(Method::Generate.label(), GENERATE);
    }

    #[test]
    fn requests_are_counted_under_rays_names_and_labels() {
        let handle = install();
        let ingress = Ingress::new("counted", "pipeline", "/counted");
        let begun = Instant::now();
        ingress.record(Method::http(&http::Method::GET), 200, begun);
        ingress.record(Method::http(&http::Method::GET), 503, begun);
        ingress.called(Code::ResourceExhausted, begun);
        let page = render(&handle);
        for line in [
            r#"serve_num_http_requests_total{route="/counted",method="GET",application="counted",status_code="200"} 1"#,
            r#"serve_num_http_error_requests_total{route="/counted",method="GET",application="counted",error_code="503"} 1"#,
            r#"serve_num_grpc_requests_total{route="counted",method="/mobula.image.v1.ImageService/Generate",application="counted",status_code="RESOURCE_EXHAUSTED"} 1"#,
            r#"serve_num_deployment_grpc_error_requests_total{route="counted",method="/mobula.image.v1.ImageService/Generate",application="counted",error_code="RESOURCE_EXHAUSTED",deployment="pipeline"} 1"#,
            r#"serve_http_request_latency_ms_count{route="/counted",method="GET",application="counted",status_code="503"} 1"#,
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        drop(ingress);
        assert!(!render(&handle).contains("\"counted\""), "{}", render(&handle));
    }
}
