//! Puts the controller together from its parts.

use mobula_kit::{Readiness, Stop, admin, grpc};
use mobula_proto::control::v1::{
    self as pb, control_service_server::ControlServiceServer, serve_service_server::ServeServiceServer,
};
use tokio::net::TcpListener;
use tracing::info;

use crate::{
    Error,
    config::{Config, Supplier, WorkerLogs, reachable},
    control::Control,
    owner::{self, Handle},
    provider::{Binaries, External, Process, Provider, Registry},
    serve::Serve,
    state::{Settings, State, Supply},
};

/// The ports, bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// Workers, proxies and tools.
    pub grpc: TcpListener,
    /// Metrics, liveness, readiness.
    pub admin: TcpListener,
}

/// Runs the controller until the stop.
///
/// # Errors
///
/// Before anything is served: the config file, the state directory or the workers' binaries cannot be used.
pub async fn run(config: Config, listeners: Listeners, stop: Stop) -> Result<(), Error> {
    let schema = config.schema()?;
    let bound = listeners.grpc.local_addr().map_err(|source| {
        Error::Kit(mobula_kit::Error::Bind {
            what: "gRPC",
            address: ([0, 0, 0, 0], 0).into(),
            hint: "the listener has no address",
            source,
        })
    })?;
    let (handle, owner) = owner::channel();
    let (provider, supply) = provider(&config, bound, (handle.clone(), stop.clone()))?;
    let settings = Settings {
        controller_id: uuid::Uuid::new_v4().simple().to_string(),
        heartbeat: config.heartbeat(),
        adoption_grace: config.adoption_grace(),
        supply,
    };
    let welcome = pb::Welcome {
        heartbeat_interval_ms: config.heartbeat_ms,
        controller_id: settings.controller_id.clone(),
    };
    let names: Vec<&str> = schema.applications.iter().map(|app| app.name.as_str()).collect();
    info!(grpc = %bound, controller = %settings.controller_id, applications = ?names, "controller is up");
    let state = State::new(settings, schema);
    stop.spawn("control loop", owner.run(state, welcome, provider, stop.clone()));

    let readiness = Readiness::new();
    let server = grpc::Server::new("mobula-controller")
        .add(ControlServiceServer::new(Control {
            handle: handle.clone(),
            stop: stop.clone(),
        }))
        .add(ServeServiceServer::new(Serve { handle }));
    tokio::try_join!(
        server.serve(listeners.grpc, readiness.clone(), stop.clone()),
        admin::serve(listeners.admin, readiness, stop),
    )?;
    Ok(())
}

/// Where workers come from.
fn provider(
    config: &Config,
    bound: std::net::SocketAddr,
    (handle, stop): (Handle, Stop),
) -> Result<(Box<dyn Provider>, Supply), Error> {
    let controller = reachable(bound);
    match config.provider {
        Supplier::External => Ok((
            Box::new(External),
            Supply::External {
                controller: controller.to_string(),
            },
        )),
        Supplier::Process => {
            let binaries = Binaries::find(config)?;
            let dir = config.state_dir(bound);
            let registry = Registry::open(&dir)?;
            let supply = Supply::Process {
                max_workers: config.max_workers,
                survivors: registry.survivors(),
            };
            let logs = match config.worker_logs {
                WorkerLogs::Stderr => None,
                WorkerLogs::Files => Some(dir.join("logs")),
            };
            let process = Process::new(binaries, controller, logs, registry, (handle, stop));
            Ok((Box::new(process), supply))
        }
    }
}
