//! The service side: a worker in this process with replicas, asked over gRPC on a socket.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mobula_inference::{Config, Loader, Service};
use mobula_kit::worker::{ReplicaSpec, ReplicaState, Replicas, WorkerKind};
use mobula_kit::{Readiness, Stop, channel, grpc};
use mobula_proto::common::v1::{Prompt, PromptSpan, PromptVariant, PromptWindow};
use mobula_proto::inference::v1::GenerateRequest;
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::inference_service_client::InferenceServiceClient;
use mobula_proto::inference::v1::inference_service_server::InferenceServiceServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::Args;
use crate::random::{Random, splitmix};
use crate::subject::Subject;

/// Pictures that must be done before a closed loop is measured: by then requests stand at different steps.
const RAMP: u64 = 4;
/// More than any part sends: a full replica must not be what is measured.
const MAX_ONGOING: u32 = 1024;
/// Longer than any measurement may wait for its first pictures.
const PATIENCE: Duration = Duration::from_secs(300);

/// A worker.
pub(crate) struct Worker {
    client: InferenceServiceClient<Channel>,
    replicas: Replicas<Loader>,
    stop: Stop,
}

/// What a closed loop did in a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) rows: f64,
    pub(crate) pictures: f64,
    pub(crate) seconds: f64,
    /// Seconds of processors that this process took.
    pub(crate) cpu: f64,
}

/// Counted by all callers.
#[derive(Debug)]
struct Counts {
    /// Rows, and when the last of them was told of.
    rows: Mutex<(u64, Instant)>,
    pictures: AtomicU64,
}

/// What was counted at a moment.
#[derive(Debug, Clone, Copy)]
struct Counted {
    rows: u64,
    at: Instant,
    pictures: u64,
    cpu: f64,
}

impl Worker {
    pub(crate) async fn start(args: &Args) -> Result<Self> {
        let config = Config {
            onnxruntime: Some(args.onnxruntime.clone()),
            threads: args.threads,
            spin: args.spin,
            ..Config::default()
        };
        let stop = Stop::new(Duration::from_secs(5));
        let replicas = Replicas::new(Loader::new(&config)?, stop.clone());
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let service = InferenceServiceServer::new(Service::new(replicas.clone()));
        let server = grpc::Server::new("bench").add(service);
        stop.spawn("server", server.serve(listener, Readiness::new(), stop.clone()));
        Ok(Self {
            client: InferenceServiceClient::new(channel::lazy(&address.to_string())?),
            replicas,
            stop,
        })
    }

    pub(crate) async fn stop(&self) {
        self.stop.trigger();
        self.stop.wait().await;
    }

    /// Loads a replica of a model and waits until it runs.
    pub(crate) async fn load(
        &self,
        id: &str,
        model: Option<Subject>,
        options: &[(&str, &str)],
    ) -> Result<()> {
        let (folder, engine) = match model {
            Some(model) => (model.folder()?.display().to_string(), "onnx"),
            None => ("fake".to_owned(), "fake"),
        };
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.replicas.assign(ReplicaSpec {
            replica_id: id.to_owned(),
            kind: WorkerKind::Inference.into(),
            model: folder,
            engine: engine.to_owned(),
            max_ongoing_requests: MAX_ONGOING,
            options: options.collect(),
            ..ReplicaSpec::default()
        });
        loop {
            let changed = self.replicas.changed();
            let reports = self.replicas.reports();
            let report = reports.into_iter().find(|report| report.replica_id == id);
            let report = report.context("the replica is gone")?;
            match report.state() {
                ReplicaState::Failed => bail!("{id}: {}", report.message),
                ReplicaState::Running => return Ok(()),
                ReplicaState::Unspecified
                | ReplicaState::Pending
                | ReplicaState::Starting
                | ReplicaState::Stopping => changed.await,
            }
        }
    }

    /// Draws a picture; `on_step` hears of how many steps were taken since it heard last.
    pub(crate) async fn draw(
        &self,
        request: Request<GenerateRequest>,
        on_step: impl Fn(u32),
    ) -> Result<(), Status> {
        let mut stream = self.client.clone().generate(request).await?.into_inner();
        let mut steps = 0;
        while let Some(response) = stream.message().await? {
            if let Some(Event::Step(step)) = &response.event {
                on_step(step.index - steps);
                steps = step.index;
            } else if let Some(Event::Done(_)) = &response.event {
                return Ok(());
            }
        }
        Err(Status::internal("the stream ended without an end"))
    }

    /// Keeps so many requests in flight for a while, each of steps chosen at random from `steps`.
    pub(crate) async fn closed(
        self: &Arc<Self>,
        template: &GenerateRequest,
        steps: &'static [u32],
        (callers, seconds): (usize, f64),
    ) -> Result<Done> {
        let counts = Arc::new(Counts::new());
        let mut tasks = JoinSet::new();
        for caller in 0..callers as u64 {
            let (worker, counts, template) = (Arc::clone(self), Arc::clone(&counts), template.clone());
            tasks.spawn(async move {
                let mut random = Random::new(caller);
                for picture in 0.. {
                    let seed = (caller << 32) + picture;
                    let asked = GenerateRequest {
                        steps: steps[random.below(steps.len())],
                        ..with_seed(&template, seed)
                    };
                    worker
                        .draw(Request::new(asked), |steps| counts.took(steps))
                        .await?;
                    counts.pictures.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Status>(())
            });
        }
        let ramp = async {
            while counts.pictures.load(Ordering::Relaxed) < RAMP {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = tasks.join_next() => bail!("a caller ended: {ended:?}"),
            ramped = tokio::time::timeout(PATIENCE, ramp) => ramped.context("no picture came")?,
        }
        let before = counts.now();
        tokio::select! {
            ended = tasks.join_next() => bail!("a caller ended: {ended:?}"),
            () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => {}
        }
        let after = counts.now();
        tasks.shutdown().await;
        Ok(Done {
            rows: (after.rows - before.rows) as f64,
            pictures: (after.pictures - before.pictures) as f64,
            seconds: (after.at - before.at).as_secs_f64(),
            cpu: after.cpu - before.cpu,
        })
    }
}

impl Counts {
    fn new() -> Self {
        Self {
            rows: Mutex::new((0, Instant::now())),
            pictures: AtomicU64::new(0),
        }
    }

    /// A panic cannot leave the two half changed, so a poisoned lock is as good as any.
    fn rows(&self) -> MutexGuard<'_, (u64, Instant)> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self, steps: u32) {
        let mut rows = self.rows();
        *rows = (rows.0 + 2 * u64::from(steps), Instant::now());
    }

    /// Rows come all at once at the end of a call: time is counted from one such end to another.
    fn now(&self) -> Counted {
        let (rows, at) = *self.rows();
        Counted {
            rows,
            at,
            pictures: self.pictures.load(Ordering::Relaxed),
            cpu: cpu_seconds(),
        }
    }
}

/// Seconds of processors that this process has taken; 0 where the system does not say.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: the state is the first, user and system time the twelfth and thirteenth.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let times = behind.split_whitespace().skip(11).take(2);
    // Hundredths of a second on all Linux systems of today.
    times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A request to a replica, guided by two rows a step.
pub(crate) fn request(replica: &str, size: u32, steps: u32) -> GenerateRequest {
    GenerateRequest {
        replica_id: replica.to_owned(),
        negative_prompt: prompt(0),
        width: size,
        height: size,
        steps,
        guidance_scale: 3.0,
        // One call a step, whatever the model's own scheduler is.
        scheduler: "ddim".to_owned(),
        ..GenerateRequest::default()
    }
}

/// The same request for another picture, of another text.
pub(crate) fn with_seed(template: &GenerateRequest, seed: u64) -> GenerateRequest {
    GenerateRequest {
        seeds: vec![seed],
        prompt: prompt(splitmix(seed) | 1),
        ..template.clone()
    }
}

/// A text of one window; every number is another one.
pub(crate) fn prompt(number: u64) -> Option<Prompt> {
    // Small ids, which every vocabulary has.
    let ids = (0..77).map(|place| {
        if number == 0 {
            3
        } else {
            5 + (number >> (place % 56)) as u32 % 200
        }
    });
    let window = PromptWindow {
        ids: ids.collect(),
        ..PromptWindow::default()
    };
    let variant = PromptVariant {
        weight: 1.0,
        windows: vec![window],
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
