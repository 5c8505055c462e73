//! Logs to stderr, and spans to an OpenTelemetry collector when one is named.
//!
//! Must be started inside the runtime (the exporter dials from it) and be flushed before it ends; the flush runs on the
//! blocking pool, because inline on a single-threaded runtime it would wait for itself.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{Common, Error, LogFormat, args::QUIET, trace};

/// How long the last spans may take to leave: a collector that is up needs milliseconds.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What has to be flushed before the process ends.
#[derive(Debug)]
#[must_use = "the last spans are lost unless it is flushed"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Installs logs and traces for the whole process; call it once, inside the runtime.
    ///
    /// # Errors
    /// [`Error::Config`] for a filter, an endpoint or a ratio that cannot be used; [`Error::Telemetry`] when the process
    /// has a subscriber already.
    pub fn start(service: &'static str, common: &Common) -> Result<Self, Error> {
        let filter = log_filter(&common.log).map_err(|error| Error::Config {
            setting: "--log (MOBULA_LOG)",
            value: common.log.clone(),
            why: format!("{error}; write a level, or levels by module such as info,mobula_proxy=debug"),
        })?;
        let provider = match &common.otlp_endpoint {
            Some(endpoint) if !endpoint.is_empty() => Some(provider(service, endpoint, common.trace_ratio)?),
            Some(_) | None => None,
        };
        let spans = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("mobula"))
                .with_filter(exported())
        });
        tracing_subscriber::registry()
            .with(lines(common.log_format).with_filter(filter))
            .with(spans)
            .try_init()
            .map_err(|source| Error::Telemetry {
                what: "logging",
                source: source.into(),
            })?;
        if provider.is_some() {
            global::set_text_map_propagator(TraceContextPropagator::new());
            trace::set_exporting();
        }
        Ok(Self { provider })
    }

    /// Sends what is not sent yet, for at most two seconds.
    pub async fn flush(self) {
        let Some(provider) = self.provider else { return };
        let flushed =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans could not be sent"),
            Err(error) => tracing::warn!(%error, "the last spans could not be sent"),
        }
    }
}

/// Which spans are exported: ours from debug up, others' from info up, and none of those that exporting itself makes.
fn exported() -> Targets {
    let silent = [
        "h2",
        "hyper",
        "hyper_util",
        "opentelemetry",
        "opentelemetry_sdk",
        "tonic",
        "tower",
    ];
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("mobula", LevelFilter::DEBUG)
        .with_targets(silent.map(|target| (target, LevelFilter::OFF)))
}

type Lines<S> = Box<dyn Layer<S> + Send + Sync>;

fn lines<S>(format: LogFormat) -> Lines<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let layer = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            layer.with_ansi(colours).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

fn provider(service: &'static str, endpoint: &str, ratio: f64) -> Result<SdkTracerProvider, Error> {
    let refused = |why: String| Error::Config {
        setting: "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)",
        value: endpoint.to_owned(),
        why,
    };
    if !endpoint.starts_with("http://") {
        return Err(refused(
            "it must be the plain gRPC address of a collector, http://host:4317".to_owned(),
        ));
    }
    if !(0.0..=1.0).contains(&ratio) {
        return Err(Error::Config {
            setting: "--trace-ratio (MOBULA_TRACE_RATIO)",
            value: ratio.to_string(),
            why: "it must be a number from 0 to 1".to_owned(),
        });
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| refused(error.to_string()))?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_resource(Resource::builder().with_service_name(service).build())
        .build())
}
/// The filter of the log: what was asked for, with chatty libraries kept down unless it names them.
fn log_filter(asked: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // Later directives replace earlier ones for the same target.
    EnvFilter::try_new(format!("{QUIET},{asked}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(asked: &str) -> Vec<String> {
        let filter = log_filter(asked).unwrap().to_string();
        filter.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn chatty_libraries_stay_quiet_whatever_the_level() {
        assert!(directives("debug").contains(&"ort=warn".to_owned()));
    }

    #[test]
    fn a_library_that_is_named_is_heard() {
        let directives = directives("info,ort=debug");
        assert!(directives.contains(&"ort=debug".to_owned()), "{directives:?}");
        assert!(!directives.contains(&"ort=warn".to_owned()), "{directives:?}");
    }
}
