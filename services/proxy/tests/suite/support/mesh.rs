//! A proxy and all that it needs.

use std::{net::SocketAddr, sync::Arc};

use mobula_kit::{Stop, grpc};
use mobula_proto::{
    control::v1::{
        ApplicationRoute, Demand, DeploymentRoute, ModelInfo, ReplicaEndpoint, ReportDemandRequest,
        WatchRoutesResponse, WorkerKind, control_service_server::ControlServiceServer,
    },
    image::v1::{self as image, Task, generate_response::Event, image_service_client::ImageServiceClient},
    preprocess::v1::preprocess_service_server::PreprocessServiceServer,
};
use mobula_proxy::{Config, Listeners};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tonic::{Status, Streaming, transport::Channel};

use super::{
    get,
    preprocess::Preprocess,
    soon,
    workers::{Control, GRACE, Server, Worker, port},
};

pub(crate) struct Mesh {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) client: ImageServiceClient<Channel>,
    pub(crate) stop: Stop,
    pub(crate) routes: watch::Sender<WatchRoutesResponse>,
    pub(crate) control: Server,
    /// What the proxy reported, in order.
    pub(crate) reports: watch::Receiver<Vec<ReportDemandRequest>>,
    /// Ends the stream of reports.
    pub(crate) hang_up: Arc<Notify>,
    pub(crate) preprocess: Server,
    /// What the preprocess worker was asked for.
    pub(crate) prepared: Preprocess,
    pub(crate) proxy: JoinHandle<Result<(), mobula_proxy::Error>>,
}

pub(crate) fn model() -> ModelInfo {
    ModelInfo {
        digest: "ab".repeat(32),
        pipeline_class: "StableDiffusionPipeline".into(),
        default_width: 128,
        default_height: 128,
        default_steps: 20,
        default_guidance_scale: 7.5,
        default_scheduler: "pndm".into(),
        schedulers: ["pndm", "ddim", "euler", "euler_a", "heun"]
            .map(String::from)
            .into(),
        size_multiple: 8,
        max_size: 1024,
        max_steps: 100,
        tasks: [Task::TextToImage, Task::ImageToImage, Task::Inpaint]
            .map(i32::from)
            .into(),
        max_clip_skip: 2,
        execution_provider: "CPUExecutionProvider".into(),
        ..ModelInfo::default()
    }
}

impl Mesh {
    /// A proxy that has heard of nothing yet.
    pub(crate) async fn bare(config: Config) -> Self {
        let (routes, tables) = watch::channel(WatchRoutesResponse::default());
        let (reports, reported) = watch::channel(Vec::new());
        let hang_up = Arc::<Notify>::default();
        let control = ControlServiceServer::new(Control {
            tables,
            reports,
            hang_up: Arc::clone(&hang_up),
        });
        let control = grpc::Server::new("control").add(control);
        let control = Server::start(control, port().await);
        let prepared = Preprocess::default();
        let preprocess = grpc::Server::new("preprocess").add(
            PreprocessServiceServer::new(prepared.clone()).max_decoding_message_size(grpc::MAX_MESSAGE_BYTES),
        );
        let preprocess = Server::start(preprocess, port().await);
        let config = Config {
            controller: control.address.to_string(),
            ..config
        };
        let (http, http_address) = port().await;
        let (grpc, grpc_address) = port().await;
        let (admin, _) = port().await;
        let stop = Stop::new(GRACE);
        let proxy = tokio::spawn(mobula_proxy::run(
            config,
            Listeners {
                http: http.into(),
                grpc: grpc.into(),
                admin: admin.into(),
            },
            stop.clone(),
        ));
        let channel = mobula_kit::channel::lazy(&grpc_address.to_string()).unwrap();
        let client = ImageServiceClient::new(channel);
        Self {
            http: http_address,
            grpc: grpc_address,
            client,
            stop,
            routes,
            control,
            reports: reported,
            hang_up,
            preprocess,
            prepared,
            proxy,
        }
    }

    /// A proxy that serves one application `demo` with these workers.
    pub(crate) async fn start(config: Config, workers: &[&Worker], max_ongoing: u32) -> Self {
        let mesh = Self::bare(config).await;
        mesh.route(workers, max_ongoing, -1).await;
        mesh
    }

    /// Tells the proxy which workers there are, and waits until it serves.
    pub(crate) async fn route(&self, workers: &[&Worker], max_ongoing: u32, max_queued: i32) {
        self.publish(workers, max_ongoing, max_queued);
        soon("the route table", async {
            while get(self.http, "/-/healthz").await.status != 200 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) fn publish(&self, workers: &[&Worker], max_ongoing: u32, max_queued: i32) {
        let application = self.application("demo", model(), workers, (max_ongoing, max_queued));
        self.routes.send_modify(|table| {
            table.version += 1;
            table.controller_id = "controller".into();
            table.applications = vec![application];
        });
    }

    /// Tells the proxy of a second application, `refiner`, and waits until it knows.
    pub(crate) async fn add_refiner(&self, workers: &[&Worker]) {
        let refiner = ModelInfo {
            digest: "cd".repeat(32),
            tasks: vec![Task::Refine.into()],
            ..model()
        };
        let mut application = self.application("refiner", refiner, workers, (4, -1));
        application.route_prefix = "/refiner".into();
        self.routes.send_modify(|table| {
            table.version += 1;
            table.applications.retain(|known| known.name != "refiner");
            table.applications.push(application);
        });
        soon("the refiner's route", async {
            while !get(self.http, "/-/routes").await.text().contains("refiner") {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Changes the table in some way.
    pub(crate) fn change(&self, change: impl FnOnce(&mut WatchRoutesResponse)) {
        self.routes.send_modify(|table| {
            table.version += 1;
            change(table);
        });
    }

    /// Changes the deployments of the first application, `preprocess` and `pipeline`.
    pub(crate) fn reroute(&self, change: impl Fn(&mut DeploymentRoute)) {
        self.change(|table| table.applications[0].deployments.iter_mut().for_each(change));
    }

    /// Waits until the reports are as they should be, and gives them.
    pub(crate) async fn reported(
        &self,
        what: &str,
        are: impl FnMut(&Vec<ReportDemandRequest>) -> bool,
    ) -> Vec<ReportDemandRequest> {
        let mut reports = self.reports.clone();
        let reports = soon(what, reports.wait_for(are)).await.unwrap();
        reports.clone()
    }

    /// Waits until the model that is asked for without a name has so many replicas.
    pub(crate) async fn has_replicas(&self, count: u32) {
        soon("the replicas", async {
            loop {
                let mut client = self.client.clone();
                let models = client.list_models(image::ListModelsRequest {}).await;
                let models = models.unwrap().into_inner().models;
                if models.first().is_some_and(|model| model.ready_replicas == count) {
                    return;
                }
            }
        })
        .await;
    }

    pub(crate) fn application(
        &self,
        name: &str,
        model: ModelInfo,
        workers: &[&Worker],
        (max_ongoing, max_queued): (u32, i32),
    ) -> ApplicationRoute {
        let endpoint = |worker: &str, address: SocketAddr, model| ReplicaEndpoint {
            replica_id: format!("{name}#{worker}"),
            address: address.to_string(),
            load: None,
            model,
            ..Default::default()
        };
        let deployment = |name: &str, kind: WorkerKind, max_ongoing, max_queued, replicas| DeploymentRoute {
            name: name.into(),
            kind: kind.into(),
            max_ongoing_requests: max_ongoing,
            max_queued_requests: max_queued,
            replicas,
            ..Default::default()
        };
        let pipelines = workers
            .iter()
            .map(|w| endpoint(&w.name, w.server.address, Some(model.clone())));
        ApplicationRoute {
            name: name.into(),
            route_prefix: "/".into(),
            deployments: vec![
                deployment(
                    "preprocess",
                    WorkerKind::Preprocess,
                    100,
                    -1,
                    vec![endpoint("preprocess", self.preprocess.address, None)],
                ),
                deployment(
                    "pipeline",
                    WorkerKind::Inference,
                    max_ongoing,
                    max_queued,
                    pipelines.collect(),
                ),
            ],
            ..Default::default()
        }
    }

    /// Sends a request and gives its events.
    pub(crate) async fn generate(&self, request: impl tonic::IntoRequest<image::GenerateRequest>) -> Events {
        let stream = self.client.clone().generate(request).await.unwrap().into_inner();
        Events(stream)
    }

    /// Sends a request and gives everything that comes of it.
    pub(crate) async fn all(&self, request: image::GenerateRequest) -> Result<Vec<Event>, Status> {
        let mut stream = self.client.clone().generate(request).await?.into_inner();
        let mut events = Vec::new();
        while let Some(message) = soon("an event", stream.message()).await? {
            events.extend(message.event);
        }
        Ok(events)
    }
}

pub(crate) struct Events(Streaming<image::GenerateResponse>);

impl Events {
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Status> {
        Ok(soon("an event", self.0.message())
            .await?
            .and_then(|message| message.event))
    }

    /// Reads until the first UNet call is about to run.
    pub(crate) async fn started(&mut self) {
        loop {
            if let Some(Event::Started(_)) = self.next().await.unwrap() {
                return;
            }
        }
    }

    pub(crate) async fn failed(mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it succeeded"),
                Err(status) => return status,
            }
        }
    }
}

/// What a report says of a deployment: queued and running.
pub(crate) fn of(report: &ReportDemandRequest, deployment: &str) -> Option<(u32, u32)> {
    let demand = |demand: &&Demand| demand.deployment == deployment;
    let demand = report.demands.iter().find(demand)?;
    Some((demand.queued, demand.running))
}

pub(crate) fn prompt(change: impl FnOnce(&mut image::GenerateRequest)) -> image::GenerateRequest {
    let mut request = image::GenerateRequest {
        prompt: "a red circle".into(),
        ..Default::default()
    };
    change(&mut request);
    request
}

pub(crate) fn names(events: &[Event]) -> Vec<&'static str> {
    let name = |event: &Event| match event {
        Event::Accepted(_) => "accepted",
        Event::Waiting(_) => "waiting",
        Event::Started(_) => "started",
        Event::Step(_) => "step",
        Event::Preview(_) => "preview",
        Event::Image(_) => "image",
        Event::Restarted(_) => "restarted",
        Event::Done(_) => "done",
    };
    events.iter().map(name).collect()
}

pub(crate) fn images(events: &[Event]) -> Vec<image::Image> {
    let image = |event: &Event| {
        if let Event::Image(image) = event {
            Some(image.clone())
        } else {
            None
        }
    };
    events.iter().filter_map(image).collect()
}
