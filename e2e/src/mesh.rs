//! A whole mesh in this process: a controller that starts no workers itself, workers, and a proxy, each a [`Part`] that can
//! be killed and started again. They talk over real sockets, as they do everywhere else.

mod config;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mobula_kit::worker::WorkerArgs;
use mobula_kit::{channel, listen};
use mobula_proto::control::v1::serve_service_client::ServeServiceClient;
use mobula_proto::control::v1::{GetStatusRequest, GetStatusResponse, ReplicaState};
use mobula_proto::image::v1::ListModelsRequest;
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::part::Part;
use crate::wait::until;

/// Any free port.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// Milliseconds. Short, so that a lease that is lost does not make a test slow; long enough for two busy cores.
const HEARTBEAT_MS: u32 = 200;
/// The largest message of the public API that a test asks for, bytes.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// The one application of a mesh under test.
pub(crate) const APPLICATION: &str = "e2e";

/// What a mesh is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    model: String,
    refiner: Option<String>,
    options: Vec<(&'static str, u64)>,
    on_demand: Vec<(String, String)>,
    max_models: usize,
    inference: usize,
    preprocess: usize,
    max_ongoing_requests: u32,
    split: bool,
}

/// Deployments of the model's parts in a split application.
const PARTS: usize = 3;

impl Builder {
    /// Splits the application: text encoder, denoiser and VAE are deployments of their own, each with as many replicas, and
    /// workers, as a whole one would have.
    #[must_use]
    pub fn split(mut self) -> Self {
        self.split = true;
        self
    }

    /// Makes decoding a picture with the fake engine take so many microseconds.
    #[must_use]
    pub fn decode_us(mut self, micros: u64) -> Self {
        self.options.push(("decode_us", micros));
        self
    }

    /// One more model that every replica serves on demand, by this id.
    #[must_use]
    pub fn on_demand(mut self, id: &str, folder: &Path) -> Self {
        self.on_demand.push((id.to_owned(), folder.display().to_string()));
        self
    }

    /// How many models on demand a replica holds at a time, beside its own.
    #[must_use]
    pub fn max_models(mut self, models: usize) -> Self {
        self.max_models = models;
        self
    }

    /// How many preprocess workers and replicas.
    #[must_use]
    pub fn preprocess(mut self, workers: usize) -> Self {
        self.preprocess = workers;
        self
    }

    /// How many inference workers and replicas.
    #[must_use]
    pub fn inference(mut self, workers: usize) -> Self {
        self.inference = workers;
        self
    }

    /// Requests that a replica takes at a time.
    #[must_use]
    pub fn max_ongoing_requests(mut self, requests: u32) -> Self {
        self.max_ongoing_requests = requests;
        self
    }

    /// Makes every step of the fake engine take so many microseconds, whatever the number of rows.
    #[must_use]
    pub fn step_us(mut self, micros: u64) -> Self {
        self.options.push(("base_us", micros));
        self
    }

    /// Draws with a model folder instead of the fake engine.
    #[must_use]
    pub fn model(mut self, folder: &Path) -> Self {
        self.model = folder.display().to_string();
        self
    }

    /// Adds an application `refiner` with this model folder, one replica of each kind; its workers come beside the others.
    #[must_use]
    pub fn refiner(mut self, folder: &Path) -> Self {
        self.refiner = Some(folder.display().to_string());
        self
    }

    /// Starts everything and waits until every replica can be reached through the proxy.
    ///
    /// # Errors
    /// When a part does not start, or does not become ready.
    pub async fn start(self) -> anyhow::Result<Mesh> {
        let folder = TempDir::new()?;
        let config = folder.path().join("mesh.yaml");
        std::fs::write(&config, self.config())?;
        let (controller, controller_address) = start_controller(config.clone(), ANY).await?;
        let mut mesh = Mesh {
            controller: Some(controller),
            controller_address,
            proxy: None,
            http: ANY,
            grpc: ANY,
            preprocess: Vec::new(),
            inference: Vec::new(),
            config,
            client: image_client(controller_address)?,
            _folder: folder,
        };
        let (proxy, (http, grpc)) = start_proxy(controller_address).await?;
        (mesh.proxy, mesh.http, mesh.grpc, mesh.client) = (Some(proxy), http, grpc, image_client(grpc)?);
        let beside = usize::from(self.refiner.is_some());
        for _ in 0..self.preprocess + beside {
            mesh.add_preprocess().await?;
        }
        let parts = if self.split { PARTS } else { 1 };
        for _ in 0..self.inference * parts + beside {
            mesh.add_inference().await?;
        }
        mesh.ready(self.inference + beside).await?;
        Ok(mesh)
    }
}

/// A mesh in this process. Dropping it kills every part.
#[derive(Debug)]
pub struct Mesh {
    controller: Option<Part>,
    controller_address: SocketAddr,
    proxy: Option<Part>,
    http: SocketAddr,
    grpc: SocketAddr,
    preprocess: Vec<Part>,
    inference: Vec<Part>,
    config: PathBuf,
    client: ImageServiceClient<Channel>,
    _folder: TempDir,
}

impl Mesh {
    /// A mesh with the fake engine, one worker of each kind.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            model: "fake".into(),
            refiner: None,
            options: Vec::new(),
            on_demand: Vec::new(),
            max_models: 3,
            inference: 1,
            preprocess: 1,
            max_ongoing_requests: 32,
            split: false,
        }
    }

    /// A client of the proxy.
    #[must_use]
    pub fn client(&self) -> ImageServiceClient<Channel> {
        self.client.clone()
    }

    /// Where the controller speaks gRPC.
    #[must_use]
    pub fn controller(&self) -> SocketAddr {
        self.controller_address
    }

    /// Where the proxy speaks HTTP.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where the proxy speaks gRPC.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// What the controller says of everything.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        let mut client = ServeServiceClient::new(channel::lazy(&self.controller_address.to_string())?);
        Ok(client.get_status(GetStatusRequest {}).await?.into_inner())
    }

    /// Ids of all replicas that run, sorted.
    ///
    /// # Errors
    /// When the controller cannot be reached.
    pub async fn running(&self) -> anyhow::Result<Vec<String>> {
        let status = self.status().await?;
        let deployments = status
            .applications
            .into_iter()
            .flat_map(|application| application.deployments);
        let replicas = deployments.flat_map(|deployment| deployment.replicas);
        let running = replicas.filter(|replica| replica.state() == ReplicaState::Running);
        let mut ids: Vec<_> = running.map(|replica| replica.replica_id).collect();
        ids.sort();
        Ok(ids)
    }

    /// Waits until the proxy knows exactly so many replicas that draw.
    ///
    /// # Errors
    /// When that does not happen; the text holds the controller's view.
    pub async fn ready(&self, replicas: usize) -> anyhow::Result<()> {
        let what = format!("{replicas} replicas at the proxy");
        let ready = until(&what, || async {
            let models = self
                .client()
                .list_models(ListModelsRequest {})
                .await
                .ok()?
                .into_inner()
                .models;
            let ready: u32 = models.iter().map(|model| model.ready_replicas).sum();
            (ready as usize == replicas).then_some(())
        });
        match ready.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let status = self.status().await;
                Err(error.context(format!("{status:?}")))
            }
        }
    }

    /// Starts one more inference worker.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_inference(&mut self) -> anyhow::Result<()> {
        let worker = self.worker();
        let (part, ()) = Part::start("inference", async move |stop, started| {
            let config = mobula_inference::Config {
                worker,
                ..Default::default()
            };
            let listeners = mobula_inference::Listeners {
                grpc: listen::bind("gRPC", ANY).await?,
                admin: listen::bind("admin", ANY).await?,
            };
            let _ = started.send(());
            Ok(mobula_inference::run(config, listeners, stop).await?)
        })
        .await?;
        self.inference.push(part);
        Ok(())
    }

    /// Starts one more preprocess worker.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_preprocess(&mut self) -> anyhow::Result<()> {
        let worker = self.worker();
        let (part, ()) = Part::start("preprocess", async move |stop, started| {
            let config = mobula_preprocess::Config {
                worker,
                ..Default::default()
            };
            let listeners = mobula_preprocess::Listeners {
                grpc: listen::bind("gRPC", ANY).await?,
                admin: listen::bind("admin", ANY).await?,
            };
            let _ = started.send(());
            Ok(mobula_preprocess::run(config, listeners, stop).await?)
        })
        .await?;
        self.preprocess.push(part);
        Ok(())
    }

    /// One CPU, so that each worker holds one replica.
    fn worker(&self) -> WorkerArgs {
        WorkerArgs {
            controller: self.controller_address.to_string(),
            cpus: Some(1.0),
            ..WorkerArgs::default()
        }
    }

    /// Kills the inference worker that was started first, as `kill -9` would.
    pub fn kill_inference(&mut self) {
        if !self.inference.is_empty() {
            self.inference.remove(0).kill();
        }
    }

    /// Kills the preprocess worker that was started first, as `kill -9` would.
    pub fn kill_preprocess(&mut self) {
        if !self.preprocess.is_empty() {
            self.preprocess.remove(0).kill();
        }
    }

    /// Kills the controller, as `kill -9` would.
    pub fn kill_controller(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.kill();
        }
    }

    /// Starts a controller where the last one was.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_controller(&mut self) -> anyhow::Result<()> {
        let address = self.controller_address;
        // The killed one's listener goes away with its runtime, a moment after the kill.
        let started = until("the controller's old port", || async {
            start_controller(self.config.clone(), address).await.ok()
        });
        let (controller, _) = started.await?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Stops every part gracefully, callers' side first.
    ///
    /// # Errors
    /// When one of them failed or does not end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let workers = self.inference.drain(..).chain(self.preprocess.drain(..));
        for part in self
            .proxy
            .take()
            .into_iter()
            .chain(workers)
            .chain(self.controller.take())
        {
            part.stop().await?;
        }
        Ok(())
    }
}

async fn start_controller(config: PathBuf, address: SocketAddr) -> anyhow::Result<(Part, SocketAddr)> {
    Part::start("controller", async move |stop, started| {
        let config = mobula_controller::Config {
            config: Some(config),
            heartbeat_ms: HEARTBEAT_MS,
            ..Default::default()
        };
        let listeners = mobula_controller::Listeners {
            grpc: listen::bind("gRPC", address).await?,
            rest: listen::bind("REST", ANY).await?,
            admin: listen::bind("admin", ANY).await?,
        };
        let _ = started.send(listeners.grpc.local_addr()?);
        Ok(mobula_controller::run(config, listeners, stop).await?)
    })
    .await
}

async fn start_proxy(controller: SocketAddr) -> anyhow::Result<(Part, (SocketAddr, SocketAddr))> {
    Part::start("proxy", async move |stop, started| {
        let config = mobula_proxy::Config {
            controller: controller.to_string(),
            // Tests look at replicas the moment that they are there.
            slow_start_s: 0.0,
            ..Default::default()
        };
        let listeners = mobula_proxy::Listeners {
            http: listen::bind("HTTP", ANY).await?,
            grpc: listen::bind("gRPC", ANY).await?,
            admin: listen::bind("admin", ANY).await?,
        };
        let _ = started.send((listeners.http.local_addr()?, listeners.grpc.local_addr()?));
        Ok(mobula_proxy::run(config, listeners, stop).await?)
    })
    .await
}

fn image_client(address: SocketAddr) -> anyhow::Result<ImageServiceClient<Channel>> {
    let client = ImageServiceClient::new(channel::lazy(&address.to_string())?);
    Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES))
}
