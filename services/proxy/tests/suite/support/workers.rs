//! A controller, a preprocess worker and inference workers that do as they are told.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use mobula_kit::{Readiness, Stop, grpc};
use mobula_proto::{
    common::v1::{Latents, Load, Timings},
    control::v1::{
        AttachRequest, AttachResponse, ModelInfo, ReportDemandRequest, ReportDemandResponse,
        WatchRoutesRequest, WatchRoutesResponse, control_service_server::ControlService,
    },
    inference::v1::{
        self as inference,
        generate_response::Event as Drawn,
        inference_service_server::{InferenceService, InferenceServiceServer},
    },
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const GRACE: Duration = Duration::from_secs(5);

pub(crate) async fn port() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that can be cut off in the middle of everything.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Stop,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(server: grpc::Server, (listener, address): (TcpListener, SocketAddr)) -> Self {
        let stop = Stop::new(GRACE);
        let serving = server
            .notice(Duration::ZERO)
            .serve(listener, Readiness::new(), stop.clone());
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, stop, task }
    }

    /// Cuts every connection and closes the port, as a kill does.
    pub(crate) async fn kill(self) {
        self.stop.trigger_within(Duration::ZERO);
        self.task.await.unwrap();
    }
}

// Controller

#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) tables: watch::Receiver<WatchRoutesResponse>,
    /// What was reported, in order.
    pub(crate) reports: watch::Sender<Vec<ReportDemandRequest>>,
    /// Ends the streams of reports that are open.
    pub(crate) hang_up: Arc<Notify>,
}

#[tonic::async_trait]
impl ControlService for Control {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;
    type WatchRoutesStream = Pin<Box<dyn Stream<Item = Result<WatchRoutesResponse, Status>> + Send>>;

    async fn attach(
        &self,
        _: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("no workers here"))
    }

    async fn watch_routes(
        &self,
        _: Request<WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        let tables = stream::unfold((self.tables.clone(), true), |(mut tables, first)| async move {
            if !first {
                tables.changed().await.ok()?;
            }
            let table = tables.borrow_and_update().clone();
            Some((Ok(table), (tables, false)))
        });
        Ok(Response::new(Box::pin(tables.filter(
            |table: &Result<WatchRoutesResponse, Status>| {
                std::future::ready(table.as_ref().is_ok_and(|table| table.version > 0))
            },
        ))))
    }

    async fn report_demand(
        &self,
        request: Request<Streaming<ReportDemandRequest>>,
    ) -> Result<Response<ReportDemandResponse>, Status> {
        let mut reports = request.into_inner();
        loop {
            tokio::select! {
                report = reports.message() => match report? {
                    Some(report) => self.reports.send_modify(|reports| reports.push(report)),
                    None => return Ok(Response::new(ReportDemandResponse {})),
                },
                () = self.hang_up.notified() => return Err(Status::unavailable("hung up")),
            }
        }
    }
}

// Inference

/// What a worker does with its next request.
pub(crate) enum Act {
    /// Draws everything.
    Draw,
    /// Says no at once.
    Refuse(Status),
    /// Draws so many pictures, then breaks off with this status.
    Break(usize, Status),
    /// Draws so many pictures, then ends the stream as if that were all.
    EndEarly(usize),
    /// Says started and then nothing any more.
    Hang,
    /// Sends previews of so many bytes without end, and counts them.
    Pour(usize, Arc<AtomicUsize>),
    /// Draws everything, the pictures when it is told to.
    Gate(Arc<Notify>),
}

pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) requests: Arc<Mutex<Vec<inference::GenerateRequest>>>,
    pub(crate) acts: Arc<Mutex<VecDeque<Act>>>,
    /// Models that it serves on demand.
    pub(crate) models: Models,
    /// Which of them it was asked to load.
    pub(crate) loads: Arc<Mutex<Vec<String>>>,
    /// Why the next load fails.
    pub(crate) broken: Arc<Mutex<Option<Status>>>,
    /// One message per stream that was dropped before its end.
    pub(crate) dropped: mpsc::UnboundedReceiver<()>,
    /// One message per request.
    pub(crate) called: mpsc::UnboundedReceiver<()>,
    pub(crate) server: Server,
}

pub(crate) type Models = Arc<Mutex<BTreeMap<String, ModelInfo>>>;

#[derive(Clone)]
struct Inference {
    requests: Arc<Mutex<Vec<inference::GenerateRequest>>>,
    acts: Arc<Mutex<VecDeque<Act>>>,
    models: Models,
    loads: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<Option<Status>>>,
    dropped: mpsc::UnboundedSender<()>,
    called: mpsc::UnboundedSender<()>,
}

struct Dropped(mpsc::UnboundedSender<()>, bool);

impl Drop for Dropped {
    fn drop(&mut self) {
        if !self.1 {
            let _ = self.0.send(());
        }
    }
}

type Answer = Result<inference::GenerateResponse, Status>;

fn event(event: Drawn) -> Answer {
    Ok(inference::GenerateResponse {
        load: Some(Load::default()),
        event: Some(event),
    })
}

pub(crate) fn picture(seed: u64) -> Vec<u8> {
    format!("picture of seed {seed}").into_bytes()
}

/// What the fake hands over of a picture.
pub(crate) fn latents(seed: u64) -> Latents {
    Latents {
        channels: 1,
        height: 1,
        width: 2,
        data: seed.to_le_bytes().to_vec().into(),
    }
}

/// Steps that a fake takes of those that are asked for.
fn steps(request: &inference::GenerateRequest) -> u32 {
    let (start, end) = (
        request.denoising_start.unwrap_or(0.0),
        request.denoising_end.unwrap_or(1.0),
    );
    (request.steps as f32 * (end - start)).round() as u32
}

fn drawn(request: &inference::GenerateRequest, pictures: usize) -> Vec<Answer> {
    let mut events = vec![
        event(Drawn::Accepted(inference::Accepted {})),
        event(Drawn::Started(inference::Started {})),
        event(Drawn::Step(inference::Step {
            index: 1,
            of: steps(request),
        })),
    ];
    if request.preview_interval > 0 {
        let preview = inference::Preview {
            image_index: 0,
            step: 1,
            png: vec![1].into(),
        };
        events.push(event(Drawn::Preview(preview)));
    }
    let wanted = (0u32..)
        .zip(&request.seeds)
        .filter(|(index, _)| !request.skip_images.contains(index));
    for (index, seed) in wanted.take(pictures) {
        if request.denoising_end.is_some() {
            let latents = Some(latents(*seed));
            events.push(event(Drawn::Latents(inference::LatentsDone { index, latents })));
            continue;
        }
        let timings = Timings {
            denoise_us: 7,
            ticks: 2,
            ..Timings::default()
        };
        events.push(event(Drawn::Image(inference::Image {
            index,
            data: picture(*seed).into(),
            digest: format!("digest {seed}"),
            timings: Some(timings),
            notes: vec![format!("note on {seed}")],
        })));
    }
    events
}

#[tonic::async_trait]
impl InferenceService for Inference {
    type DenoiseStream = futures::stream::Pending<Result<inference::DenoiseResponse, Status>>;
    type DecodeStream = futures::stream::Pending<Result<inference::DecodeResponse, Status>>;

    async fn denoise(
        &self,
        _: Request<inference::DenoiseRequest>,
    ) -> Result<Response<Self::DenoiseStream>, Status> {
        Err(Status::unimplemented("this worker draws whole pictures"))
    }

    async fn decode(
        &self,
        _: Request<inference::DecodeRequest>,
    ) -> Result<Response<Self::DecodeStream>, Status> {
        Err(Status::unimplemented("this worker draws whole pictures"))
    }

    async fn encode_text(
        &self,
        _: Request<inference::EncodeTextRequest>,
    ) -> Result<Response<inference::EncodeTextResponse>, Status> {
        let act = self.acts.lock().unwrap().pop_front();
        if let Some(Act::Hang) = act {
            let _dropped = Dropped(self.dropped.clone(), false);
            let _ = self.called.send(());
            return std::future::pending().await;
        }
        if let Some(Act::Break(_, status)) = act {
            return Err(status);
        }
        Err(Status::unimplemented("this worker draws whole pictures"))
    }

    async fn encode(
        &self,
        _: Request<inference::EncodeRequest>,
    ) -> Result<Response<inference::EncodeResponse>, Status> {
        Err(Status::unimplemented("this worker draws whole pictures"))
    }

    type GenerateStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn generate(
        &self,
        request: Request<inference::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = request.into_inner();
        self.requests.lock().unwrap().push(request.clone());
        self.model(&request.model_id)?;
        let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Draw);
        let _ = self.called.send(());
        let done = || {
            let timings = Timings {
                denoise_us: 7,
                ticks: 2,
                ..Timings::default()
            };
            event(Drawn::Done(inference::Done {
                timings: Some(timings),
            }))
        };
        if let Act::Pour(bytes, sent) = act {
            let first = stream::iter(drawn(&request, 0));
            let preview = move |_| {
                sent.fetch_add(1, Ordering::Relaxed);
                let preview = inference::Preview {
                    image_index: 0,
                    step: 1,
                    png: vec![7; bytes].into(),
                };
                event(Drawn::Preview(preview))
            };
            let poured = stream::repeat(()).map(preview);
            return Ok(Response::new(Box::pin(first.chain(poured))));
        }
        let mut gate = None;
        let (events, hangs): (Vec<_>, bool) = match act {
            Act::Refuse(status) => return Err(status),
            Act::Pour(..) => (Vec::new(), true),
            Act::Draw => (
                drawn(&request, usize::MAX).into_iter().chain([done()]).collect(),
                false,
            ),
            Act::Break(pictures, status) => (
                drawn(&request, pictures)
                    .into_iter()
                    .chain([Err(status)])
                    .collect(),
                false,
            ),
            Act::EndEarly(pictures) => (drawn(&request, pictures), false),
            Act::Hang => (drawn(&request, 0), true),
            Act::Gate(opens) => {
                gate = Some(opens);
                (
                    drawn(&request, usize::MAX).into_iter().chain([done()]).collect(),
                    false,
                )
            }
        };
        let events = VecDeque::from(events);
        let length = events.len();
        let guard = Dropped(self.dropped.clone(), false);
        let stream = stream::unfold(
            (events, guard),
            move |(mut events, mut guard)| -> BoxFuture<'static, _> {
                // Accepted, started and step come at once.
                let gate = gate.take_if(|_| events.len() < length - 2);
                Box::pin(async move {
                    if let Some(gate) = gate {
                        gate.notified().await;
                    }
                    match events.pop_front() {
                        Some(event) => {
                            guard.1 = events.is_empty() && !hangs;
                            Some((event, (events, guard)))
                        }
                        None if hangs => std::future::pending().await,
                        None => None,
                    }
                })
            },
        );
        Ok(Response::new(Box::pin(stream)))
    }

    async fn load_model(
        &self,
        request: Request<inference::LoadModelRequest>,
    ) -> Result<Response<inference::LoadModelResponse>, Status> {
        let model_id = request.into_inner().model_id;
        let model = self.model(&model_id)?;
        if let Some(why) = self.broken.lock().unwrap().take() {
            return Err(why);
        }
        self.loads.lock().unwrap().push(model_id);
        Ok(Response::new(inference::LoadModelResponse {
            model,
            was_loaded: true,
        }))
    }
}

impl Inference {
    /// What a model on demand is; empty is the replica's own.
    fn model(&self, model_id: &str) -> Result<Option<ModelInfo>, Status> {
        let known = self.models.lock().unwrap().get(model_id).cloned();
        if known.is_none() && !model_id.is_empty() {
            return Err(mobula_kit::status::invalid("model_id", "there is no such model"));
        }
        Ok(known)
    }
}

impl Worker {
    pub(crate) async fn start(name: &str) -> Self {
        let (requests, acts) = (Arc::default(), Arc::default());
        let (models, loads) = (Models::default(), Arc::<Mutex<Vec<String>>>::default());
        let broken = Arc::<Mutex<Option<Status>>>::default();
        let (dropped_tx, dropped) = mpsc::unbounded_channel();
        let (called_tx, called) = mpsc::unbounded_channel();
        let service = Inference {
            requests: Arc::clone(&requests),
            acts: Arc::clone(&acts),
            models: Arc::clone(&models),
            loads: Arc::clone(&loads),
            broken: Arc::clone(&broken),
            dropped: dropped_tx,
            called: called_tx,
        };
        let server = grpc::Server::new("worker").add(InferenceServiceServer::new(service));
        let server = Server::start(server, port().await);
        Self {
            name: name.to_owned(),
            requests,
            acts,
            models,
            loads,
            broken,
            dropped,
            called,
            server,
        }
    }

    pub(crate) fn will(&self, act: Act) {
        self.acts.lock().unwrap().push_back(act);
    }

    pub(crate) fn requests(&self) -> Vec<inference::GenerateRequest> {
        self.requests.lock().unwrap().clone()
    }
}
