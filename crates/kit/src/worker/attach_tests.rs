use std::{collections::HashMap, net::SocketAddr, pin::Pin, sync::Arc};

use futures::Stream;
use mobula_proto::control::v1::{
    Assign, Drain, ReplicaState, Shutdown, WatchRoutesRequest, WatchRoutesResponse, Welcome, WorkerKind,
    control_service_server::{ControlService, ControlServiceServer},
};
use tokio::sync::Mutex;
use tonic::{Request, Response};

use super::*;
use crate::{
    Drained, Readiness, grpc, listen,
    worker::{
        Resources,
        replicas::tests::{Handle, Shelf, spec},
    },
};

const GRACE: Duration = Duration::from_secs(10);

/// One worker's stream, as the controller has it.
struct Attached {
    hello: Hello,
    heard: Streaming<AttachRequest>,
    say: mpsc::Sender<Result<AttachResponse, Status>>,
}

impl Attached {
    async fn say(&self, message: attach_response::Message) {
        self.say
            .send(Ok(AttachResponse {
                message: Some(message),
            }))
            .await
            .unwrap();
    }

    /// The next heartbeat in which the only replica has this state; none when the stream ends first.
    async fn heartbeat(&mut self, state: ReplicaState) -> Option<Heartbeat> {
        loop {
            let message = self.heard.message().await.ok()??.message?;
            if let attach_request::Message::Heartbeat(beat) = message
                && beat.replicas.iter().any(|report| report.state() == state)
            {
                return Some(beat);
            }
        }
    }
}

/// A controller that hands every stream to the test.
struct Controller(Mutex<mpsc::Sender<Attached>>);

#[tonic::async_trait]
impl ControlService for Controller {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut heard = request.into_inner();
        let Some(attach_request::Message::Hello(hello)) =
            heard.message().await?.and_then(|request| request.message)
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (say, said) = mpsc::channel(8);
        let welcome = Welcome {
            heartbeat_interval_ms: 60_000,
            controller_id: "c".to_owned(),
        };
        let message = Some(attach_response::Message::Welcome(welcome));
        say.send(Ok(AttachResponse { message })).await.unwrap();
        self.0
            .lock()
            .await
            .send(Attached { hello, heard, say })
            .await
            .unwrap();
        Ok(Response::new(ReceiverStream::new(said)))
    }

    type WatchRoutesStream = Pin<Box<dyn Stream<Item = Result<WatchRoutesResponse, Status>> + Send>>;

    async fn watch_routes(
        &self,
        _: Request<WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        Err(Status::unimplemented("no routes here"))
    }

    async fn report_demand(
        &self,
        _: Request<Streaming<mobula_proto::control::v1::ReportDemandRequest>>,
    ) -> Result<Response<mobula_proto::control::v1::ReportDemandResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Serves a controller until its stop; gives where, and the workers that come.
async fn controller(address: &str, stop: &Stop) -> (SocketAddr, mpsc::Receiver<Attached>) {
    let (sender, workers) = mpsc::channel(8);
    let listener = listen::bind("gRPC", address.parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = grpc::Server::new("controller").notice(Duration::ZERO);
    let server = server.add(ControlServiceServer::new(Controller(Mutex::new(sender))));
    stop.spawn(
        "controller",
        server.serve(listener, Readiness::new(), stop.clone()),
    );
    (address, workers)
}

fn identity() -> Identity {
    Identity {
        worker_id: "w1".to_owned(),
        kind: WorkerKind::Inference,
        address: "127.0.0.1:1".to_owned(),
        resources: Resources {
            cpus: 2.0,
            ..Resources::default()
        },
        labels: HashMap::new(),
        version: "1".to_owned(),
    }
}

fn worker(address: SocketAddr, stop: &Stop) -> (Replicas<Shelf>, Readiness) {
    let replicas = Replicas::new(Shelf(Handle::default()), stop.clone());
    let readiness = Readiness::new();
    replicas.ready_with(readiness.latch("attached"));
    attach(
        (&address.to_string(), &Dial::default()),
        identity(),
        replicas.clone(),
        stop,
    )
    .unwrap();
    (replicas, readiness)
}

#[tokio::test]
async fn a_worker_does_what_the_controller_says_and_reports_it_at_once() {
    let (theirs, ours) = (Stop::new(GRACE), Stop::new(GRACE));
    let (address, mut workers) = controller("127.0.0.1:0", &theirs).await;
    let (replicas, readiness) = worker(address, &ours);
    let mut attached = workers.recv().await.unwrap();
    readiness.ready().await;
    assert_eq!(
        (attached.hello.worker_id.as_str(), attached.hello.pid),
        ("w1", std::process::id())
    );

    // The interval is a minute: every heartbeat here is there because something changed.
    attached
        .say(attach_response::Message::Assign(Assign {
            replica: Some(spec("a", "demo")),
        }))
        .await;
    let beat = attached.heartbeat(ReplicaState::Running).await.unwrap();
    assert_eq!(beat.replicas[0].spec, Some(spec("a", "demo")));
    assert!(beat.replicas[0].load.is_some() && beat.replicas[0].model.is_some() && beat.resident_bytes > 0);

    let lease = replicas.lease("a").unwrap();
    attached
        .say(attach_response::Message::Drain(Drain {
            replica_id: "a".to_owned(),
            grace_ms: 60_000,
        }))
        .await;
    attached.heartbeat(ReplicaState::Stopping).await.unwrap();
    drop(lease);

    attached
        .say(attach_response::Message::Shutdown(Shutdown { grace_ms: 5_000 }))
        .await;
    ours.triggered().await;
    assert_eq!(ours.wait().await, Drained::Clean);
}

#[tokio::test]
async fn a_worker_that_stops_says_so_before_its_requests_are_over_and_leaves_after() {
    let (theirs, ours) = (Stop::new(GRACE), Stop::new(GRACE));
    let (address, mut workers) = controller("127.0.0.1:0", &theirs).await;
    let (replicas, _) = worker(address, &ours);
    let mut attached = workers.recv().await.unwrap();
    replicas.assign(spec("a", "demo"));
    attached.heartbeat(ReplicaState::Running).await.unwrap();
    let lease = replicas.lease("a").unwrap();
    ours.trigger();
    attached.heartbeat(ReplicaState::Stopping).await.unwrap();
    drop(lease);
    assert_eq!(ours.wait().await, Drained::Clean);
    assert!(attached.heartbeat(ReplicaState::Running).await.is_none());
}

#[tokio::test]
async fn a_worker_serves_on_without_a_controller_and_tells_the_next_one_what_it_runs() {
    let (first, second, ours) = (Stop::new(Duration::ZERO), Stop::new(GRACE), Stop::new(GRACE));
    let (address, mut workers) = controller("127.0.0.1:0", &first).await;
    let (replicas, _) = worker(address, &ours);
    let mut attached = workers.recv().await.unwrap();
    replicas.assign(spec("a", "demo"));
    attached.heartbeat(ReplicaState::Running).await.unwrap();

    first.trigger();
    first.wait().await;
    assert!(attached.heartbeat(ReplicaState::Failed).await.is_none());
    assert!(replicas.lease("a").is_ok());

    let (_, mut workers) = controller(&address.to_string(), &second).await;
    let attached = workers.recv().await.unwrap();
    assert_eq!(attached.hello.worker_id, "w1");
    assert_eq!(attached.hello.replicas[0].state(), ReplicaState::Running);
    assert_eq!(attached.hello.replicas[0].spec, Some(spec("a", "demo")));
}

#[tokio::test]
async fn a_worker_that_never_found_a_controller_stops_all_the_same() {
    let stop = Stop::new(GRACE);
    let gone = listen::bind("nothing", "127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let (_, readiness) = worker(address, &stop);
    assert_eq!(readiness.waiting_for(), ["attached"]);
    stop.trigger();
    assert_eq!(stop.wait().await, Drained::Clean);
}

#[tokio::test]
async fn an_address_that_cannot_be_dialled_is_refused_at_once() {
    let stop = Stop::new(GRACE);
    let replicas = Replicas::new(Shelf(Handle::default()), stop.clone());
    assert!(
        attach(("controller", &Dial::default()), identity(), replicas, &stop)
            .unwrap_err()
            .is_config()
    );
}

#[test]
fn an_interval_that_makes_no_sense_is_bounded() {
    assert_eq!(interval(0), FIRST_INTERVAL);
    assert_eq!(interval(1), INTERVALS.0);
    assert_eq!(interval(u32::MAX), INTERVALS.1);
}

#[test]
fn a_status_is_described_by_its_message_or_its_code() {
    let status = Arc::new(status::error(
        tonic::Code::AlreadyExists,
        "WORKER_EXISTS",
        "taken",
    ));
    assert_eq!(describe(&status), "taken (WORKER_EXISTS)");
    assert_eq!(describe(&Status::unavailable("")), "Unavailable");
}
