//! A worker's service on a real socket, with replicas assigned by the test instead of a controller.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mobula_inference::{Config, Loader, Service};
use mobula_kit::worker::{ModelInfo, ReplicaReport, ReplicaSpec, ReplicaState, Replicas, WorkerKind};
use mobula_kit::{Readiness, Stop, channel, grpc};
use mobula_proto::common::v1::{Prompt, PromptSpan, PromptVariant, PromptWindow};
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::inference_service_client::InferenceServiceClient;
use mobula_proto::inference::v1::inference_service_server::InferenceServiceServer;
use mobula_proto::inference::v1::{GenerateRequest, GenerateResponse};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Longer than any test may take; a hang then is a failure with a name.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct Worker {
    pub(crate) client: InferenceServiceClient<Channel>,
    pub(crate) replicas: Replicas<Loader>,
    stop: Stop,
}

impl Worker {
    /// Serves with this configuration, without replicas.
    pub(crate) async fn start(config: Config) -> Self {
        let stop = Stop::new(Duration::from_secs(5));
        let replicas = Replicas::new(Loader::new(&config).unwrap(), stop.clone());
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let service = InferenceServiceServer::new(Service::new(replicas.clone()));
        let server = grpc::Server::new("test").add(service);
        stop.spawn("server", server.serve(listener, Readiness::new(), stop.clone()));
        let channel = channel::lazy(&address.to_string()).unwrap();
        Self {
            client: InferenceServiceClient::new(channel),
            replicas,
            stop,
        }
    }

    /// Serves one replica of a model folder.
    pub(crate) async fn with_model(folder: PathBuf) -> Self {
        let worker = Self::start(Config::default()).await;
        let report = worker
            .assign(spec("r", &folder.display().to_string(), "onnx", &[]))
            .await;
        assert_eq!(report.state(), ReplicaState::Running, "{}", report.message);
        worker
    }

    /// Serves one replica of the fake engine.
    pub(crate) async fn with_fake(options: &[(&str, &str)]) -> Self {
        let worker = Self::start(Config::default()).await;
        let report = worker.assign(spec("r", "fake", "fake", options)).await;
        assert_eq!(report.state(), ReplicaState::Running, "{}", report.message);
        worker
    }

    /// Assigns a replica and waits until it runs or has failed.
    pub(crate) async fn assign(&self, spec: ReplicaSpec) -> ReplicaReport {
        let id = spec.replica_id.clone();
        self.replicas.assign(spec);
        self.settled(&id, |state| state != ReplicaState::Starting).await
    }

    /// Waits until a replica's state is as wanted.
    pub(crate) async fn settled(&self, id: &str, wanted: impl Fn(ReplicaState) -> bool) -> ReplicaReport {
        let wait = async {
            loop {
                let changed = self.replicas.changed();
                let report = self
                    .replicas
                    .reports()
                    .into_iter()
                    .find(|report| report.replica_id == id);
                if let Some(report) = report.filter(|report| wanted(report.state())) {
                    return report;
                }
                changed.await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap()
    }

    /// Waits until a replica is no longer there.
    pub(crate) async fn gone(&self, id: &str) {
        let wait = async {
            loop {
                let changed = self.replicas.changed();
                if self
                    .replicas
                    .reports()
                    .iter()
                    .all(|report| report.replica_id != id)
                {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap();
    }

    pub(crate) fn model(&self) -> ModelInfo {
        self.replicas.reports().remove(0).model.unwrap()
    }

    pub(crate) async fn open(&self, request: GenerateRequest) -> Result<Streaming<GenerateResponse>, Status> {
        Ok(self.client.clone().generate(request).await?.into_inner())
    }

    /// Runs a request to its end.
    pub(crate) async fn draw(&self, request: GenerateRequest) -> Result<Drawn, Status> {
        tokio::time::timeout(LIMIT, async {
            let mut stream = self.open(request).await?;
            let mut drawn = Drawn::default();
            while let Some(response) = stream.message().await? {
                drawn.events.push(response);
            }
            Ok(drawn)
        })
        .await
        .unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.trigger();
        let _ = self.stop.wait().await;
    }
}

/// What came out of a request.
#[derive(Default)]
pub(crate) struct Drawn {
    pub(crate) events: Vec<GenerateResponse>,
}

impl Drawn {
    /// PNG files by index.
    pub(crate) fn images(&self) -> Vec<(u32, &[u8])> {
        let mut images: Vec<_> = self
            .events
            .iter()
            .filter_map(|response| match &response.event {
                Some(Event::Image(image)) => Some((image.index, &image.data[..])),
                _ => None,
            })
            .collect();
        images.sort_unstable();
        images
    }

    /// The only picture's pixels, `[height, width, 3]`.
    pub(crate) fn pixels(&self) -> Pixels {
        let images = self.images();
        assert_eq!(images.len(), 1);
        pixels(images[0].1)
    }
}

pub(crate) struct Pixels {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) rgb: Vec<u8>,
}

pub(crate) fn pixels(file: &[u8]) -> Pixels {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut rgb).unwrap();
    assert_eq!(frame.color_type, png::ColorType::Rgb);
    Pixels {
        width: frame.width,
        height: frame.height,
        rgb,
    }
}

pub(crate) fn spec(id: &str, model: &str, engine: &str, options: &[(&str, &str)]) -> ReplicaSpec {
    ReplicaSpec {
        replica_id: id.to_owned(),
        application: "test".to_owned(),
        deployment: "pipeline".to_owned(),
        kind: WorkerKind::Inference.into(),
        model: model.to_owned(),
        engine: engine.to_owned(),
        max_ongoing_requests: 64,
        options: options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..ReplicaSpec::default()
    }
}

/// A folder under this crate's tests/models.
pub(crate) fn tiny(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(name)
}

/// A prompt of one window, as the plain syntax gives it.
pub(crate) fn plain(ids: &[u32]) -> Option<Prompt> {
    windows(&[(ids, &[])])
}

/// A prompt of windows with ids for one or two encoders.
pub(crate) fn windows(ids: &[(&[u32], &[u32])]) -> Option<Prompt> {
    let window = |(ids, ids_2): &(&[u32], &[u32])| PromptWindow {
        ids: ids.to_vec(),
        ids_2: ids_2.to_vec(),
        ..PromptWindow::default()
    };
    let variant = PromptVariant {
        weight: 1.0,
        windows: ids.iter().map(window).collect(),
    };
    let span = PromptSpan {
        until_step: 0,
        variants: vec![variant],
    };
    Some(Prompt {
        spans: vec![span],
        ..Prompt::default()
    })
}

/// A valid request for the fake engine.
pub(crate) fn fake_request(seeds: &[u64], steps: u32) -> GenerateRequest {
    GenerateRequest {
        replica_id: "r".to_owned(),
        request_id: format!("test-{seeds:?}"),
        prompt: plain(&[7; 77]),
        negative_prompt: plain(&[0; 77]),
        width: 64,
        height: 64,
        steps,
        guidance_scale: 7.5,
        seeds: seeds.to_vec(),
        ..GenerateRequest::default()
    }
}
