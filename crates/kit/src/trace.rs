//! W3C trace context over gRPC metadata and HTTP headers.
//!
//! gRPC servers need nothing of this: the stack takes a caller's context from the request, and the request span is the
//! current span of the handler. A client calls [`inject`] on the metadata of each call. Tasks that a handler spawns
//! must be instrumented with the current span, or what they do belongs to no trace.
//!
//! Without an OTLP endpoint all of this does nothing and costs nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
};
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Set once by telemetry when spans are exported.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// True when spans are sent somewhere.
pub fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

pub(crate) fn set_exporting() {
    EXPORTING.store(true, Ordering::Relaxed);
}

/// Writes the current span's context into the metadata of an outgoing call.
pub fn inject(metadata: &mut MetadataMap) {
    if is_exporting() {
        let context = Span::current().context();
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Metadata(metadata));
        });
    }
}

/// Writes the current span's context into the headers of an outgoing HTTP request or of a response.
pub fn inject_http(headers: &mut HeaderMap) {
    if is_exporting() {
        let context = Span::current().context();
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Headers(headers));
        });
    }
}

/// Makes the caller whose context is in these headers the parent of a new span. Call it before the span is entered.
pub fn set_parent_http(span: &Span, headers: &HeaderMap) {
    if is_exporting() && !span.is_disabled() {
        let context = global::get_text_map_propagator(|propagator| propagator.extract(&Incoming(headers)));
        // Fails only for a span that no trace layer has seen: then there is nothing to give a parent to.
        let _ = span.set_parent(context);
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (
            HeaderName::from_bytes(key.as_bytes()),
            HeaderValue::from_str(&value),
        ) {
            self.0.insert(key, value);
        }
    }
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
