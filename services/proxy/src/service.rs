//! Assembles a proxy from its parts and runs it until it has drained.

use std::sync::Arc;

use mobula_kit::{Readiness, Stop, admin, grpc, listen};
use mobula_proto::{
    control::v1::WatchRoutesRequest, image::v1::image_service_server::ImageServiceServer,
    oip::grpc_inference_service_server::GrpcInferenceServiceServer,
    ray::serve::ray_serve_api_service_server::RayServeApiServiceServer,
};

use tonic::codec::CompressionEncoding::Gzip;

use crate::{
    Config, Error, Listeners,
    clock::Clock,
    follow::Follower,
    gate::Gated,
    generate::Generator,
    grpc::Images,
    http::{self, OpenAi},
    keys::{self, Keys},
    malformed::Checked,
    metrics::Metrics,
    plain::Plain,
    pool::Settings,
    ray::RayApi,
    report::{Records, Reporter, Signal},
    table::Fleet,
    v2::{Inference, Oip},
};

/// The method whose answers are pictures.
const GENERATE: &str = "/mobula.image.v1.ImageService/Generate";

/// Runs a proxy on ports that the caller has bound; returns when it has drained after the stop.
///
/// # Errors
/// [`Error::Kit`] when the controller's address or a server cannot be used.
pub async fn run(config: Config, listeners: Listeners, stop: Stop) -> Result<(), Error> {
    mobula_kit::metrics::install();
    let introduction = introduction(&config, &listeners);
    let metrics = Arc::new(Metrics::new(&introduction));
    let clock = Clock::start();
    let readiness = Readiness::new();
    let signal = Arc::<Signal>::default();
    let records = Records::new(Arc::clone(&signal));
    let settings = Settings {
        proxy_id: introduction.proxy_id.as_str().into(),
        no_replica_timeout: config.no_replica_timeout(),
        bounds: config.bounds(),
        slow_start: config.slow_start(),
        node: config.node.clone().unwrap_or_else(mobula_kit::host).into(),
        zone: config.zone.clone().unwrap_or_default().into(),
        clock,
        stop: stop.clone(),
        signal,
    };
    let (keys, watch) = keys::Watch::start(&config, clock)?;
    warn_if_open(&keys, &listeners);
    let fleet = Arc::new(Fleet::new(settings).dialling(config.dial.clone()));
    let told = (Arc::clone(&metrics), records.clone());
    let generator = Generator::new(&config, fleet.subscribe(), told, (keys.clone(), clock));
    let reporter = Reporter::new(
        (&config.controller, &config.dial),
        introduction.proxy_id.clone(),
        (Arc::clone(&fleet), records),
        Arc::clone(&metrics),
        clock,
    )?;
    let follower = Follower::new(
        (&config.controller, &config.dial),
        introduction,
        fleet,
        Arc::clone(&metrics),
        readiness.latch("route table"),
    )?;
    let images = ImageServiceServer::new(Images {
        generator: generator.clone(),
    })
    .max_decoding_message_size(config.max_request_bytes())
    .max_encoding_message_size(grpc::MAX_MESSAGE_BYTES)
    .accept_compressed(Gzip)
    .send_compressed(Gzip);
    let images = Plain {
        inner: images,
        path: GENERATE,
    };
    let ray = RayServeApiServiceServer::new(RayApi {
        generator: generator.clone(),
        stop: stop.clone(),
    })
    .accept_compressed(Gzip);
    let oip = Oip::new(&config, generator.clone());
    let inference = GrpcInferenceServiceServer::new(Inference {
        oip: oip.clone(),
        stop: stop.clone(),
    })
    .accept_compressed(Gzip)
    .max_decoding_message_size(config.max_request_bytes())
    .max_encoding_message_size(oip.max_answer_bytes());
    let server = grpc::Server::new("mobula-proxy")
        .add(Gated::new(&keys, Checked(images)))
        .add(Gated::new(&keys, Checked(inference)))
        .add(Gated::new(&keys, ray))
        .web(config.allowed_origins.clone());
    let grpc = server.serve(listeners.grpc, readiness.clone(), stop.clone());
    let openai = OpenAi::new(&config, &metrics, clock);
    let http = http::serve(
        listeners.http,
        (metrics, openai.clone(), oip),
        config.allowed_origins.cors(),
        stop.clone(),
    );
    let admin = admin::serve(listeners.admin, readiness, stop);
    let doors = async { tokio::join!(grpc, http, admin) };
    let (grpc, (), admin) = tokio::select! {
        ended = doors => ended,
        never = follower.run() => match never {},
        never = reporter.run() => match never {},
        never = generator.give_up_unread() => match never {},
        never = openai.sweep() => match never {},
        never = watch.run() => match never {},
    };
    grpc?;
    admin?;
    Ok(())
}

/// Says so when strangers can reach a door that everybody may use.
fn warn_if_open(keys: &Keys, listeners: &Listeners) {
    let doors = [&listeners.http, &listeners.grpc];
    let reachable = doors
        .into_iter()
        .filter_map(|door| door.local_addr().ok())
        .find(|bound| !bound.ip().is_loopback());
    if let Some(bound) = reachable.filter(|_| keys.is_open()) {
        tracing::warn!(
            %bound,
            "everybody who reaches this port may draw: --api-keys-file closes the doors to all without a key"
        );
    }
}

/// Who this proxy is, for the controller.
fn introduction(config: &Config, listeners: &Listeners) -> WatchRoutesRequest {
    let address = |listener: &listen::Listener| {
        let bound = listener.local_addr();
        bound.map_or_else(
            |_| String::new(),
            |bound| listen::advertise(None, bound, Some(&config.controller)),
        )
    };
    let random = || {
        format!(
            "proxy-{}",
            uuid::Builder::from_random_bytes(rand::random())
                .into_uuid()
                .simple()
        )
    };
    WatchRoutesRequest {
        proxy_id: config.proxy_id.clone().unwrap_or_else(random),
        http_address: address(&listeners.http),
        grpc_address: address(&listeners.grpc),
    }
}
