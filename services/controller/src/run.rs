//! Puts the controller together from its parts.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use mobula_kit::{Readiness, Stop, admin, grpc, guard::Guard, listen::Listener, token::Scope};
use mobula_proto::control::v1::{
    self as pb, control_service_server::ControlServiceServer, serve_service_server::ServeServiceServer,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::{info, warn};

use crate::{
    Error,
    config::{Config, Supplier, WorkerLogs, reachable},
    control::Control,
    intent::{Failed, Ledger},
    owner::{self, Handle},
    provider::{Binaries, External, Process, Provider, Registry},
    rest::{self, Door},
    serve::Serve,
    state::{Note, Settings, State, Supply},
};

/// The ports, bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// Workers, proxies and tools.
    pub grpc: Listener,
    /// Ray Serve's REST API.
    pub rest: Listener,
    /// Metrics, liveness, readiness.
    pub admin: Listener,
}

/// Runs the controller until the stop.
///
/// # Errors
///
/// Before anything is served: the config file, what was kept, the state directory or the workers' binaries cannot be used.
pub async fn run(config: Config, listeners: Listeners, stop: Stop) -> Result<(), Error> {
    let bound = address(&listeners.grpc, "gRPC")?;
    let rest = reachable(address(&listeners.rest, "REST")?);
    let ledger = Ledger::open(config.start(bound)?, &stop).await?;
    let (handle, owner, notes) = owner::channel();
    let (provider, supply) = provider(&config, bound, (handle.clone(), stop.clone()))?;
    let settings = Settings {
        controller_id: uuid::Uuid::new_v4().simple().to_string(),
        origin_unix_ms: unix_ms(),
        heartbeat: config.heartbeat(),
        adoption_grace: config.adoption_grace(),
        supply,
    };
    let welcome = pb::Welcome {
        heartbeat_interval_ms: config.heartbeat_ms,
        controller_id: settings.controller_id.clone(),
    };
    // In this order: what changes in between is then seen twice, and not missed.
    let intents = ledger.follow();
    let intent = ledger.intent();
    let names: Vec<&String> = intent.applications.keys().collect();
    info!(grpc = %bound, %rest, controller = %settings.controller_id, applications = ?names, "controller is up");
    let parts = owner::Parts {
        state: State::new(settings, intent),
        welcome,
        provider,
        intents,
    };
    let control = stop.spawn("control loop", owner.run(parts, stop.clone()));
    stop.spawn("notes", write_down(notes, ledger.clone()));

    let readiness = Readiness::new();
    let (admin, mesh) = (config.admin_token, config.mesh_token);
    let people = Guard::new(Scope::Admin, admin.clone(), &listeners.grpc);
    let pages_guard = Guard::new(Scope::Admin, admin, &listeners.rest);
    let parts_guard = Guard::new(Scope::Mesh, mesh, &listeners.grpc);
    let server = grpc::Server::new("mobula-controller")
        .add(parts_guard.over(ControlServiceServer::new(Control {
            handle: handle.clone(),
            stop: stop.clone(),
        })))
        .add(
            people.over(
                ServeServiceServer::new(Serve::new(handle.clone(), ledger.clone()))
                    .max_decoding_message_size(grpc::MAX_MESSAGE_BYTES),
            ),
        );
    let door = Door {
        ledger,
        handle,
        address: rest.to_string(),
    };
    let pages = async {
        rest::serve(listeners.rest, (door, pages_guard), stop.clone()).await;
        Ok(())
    };
    let doors = async {
        tokio::try_join!(
            server.serve(listeners.grpc, readiness.clone(), stop.clone()),
            pages,
            admin::serve(listeners.admin, readiness, stop.clone()),
        )?;
        Ok::<_, Error>(())
    };
    tokio::try_join!(doors, whole(control))?;
    Ok(())
}

/// Waits for the control loop. Without it this process would answer and do nothing; the next one adopts what runs.
async fn whole(control: JoinHandle<()>) -> Result<(), Error> {
    control.await.map_err(|_| Error::Broken("the control loop"))
}

/// Hands to the ledger what the loop says is to be kept. Ends with the loop.
async fn write_down(mut notes: mpsc::Receiver<Note>, ledger: Ledger) {
    while let Some(note) = notes.recv().await {
        match note {
            Note::Decided(decision) => ledger.decided(decision),
            Note::RolledBack {
                application,
                deployment,
                resource_version,
                why,
            } => {
                let failed = Failed {
                    application,
                    resource_version,
                    deployment,
                    why,
                };
                // The replicas of before run already; only the intent's text is not theirs again.
                if let Err(error) = ledger.rolled_back(failed).await {
                    warn!(%error, "an update that failed could not be taken out of the intent");
                }
            }
        }
    }
}

fn address(listener: &Listener, what: &'static str) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|source| {
        Error::Kit(mobula_kit::Error::Bind {
            what,
            address: ([0, 0, 0, 0], 0).into(),
            hint: "the listener has no address",
            source,
        })
    })
}

/// Where workers come from.
fn provider(
    config: &Config,
    bound: SocketAddr,
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

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_control_loop_that_panics_ends_the_controller() {
        let broken = whole(tokio::spawn(async { panic!("for the test") })).await;
        assert!(matches!(broken, Err(Error::Broken(_))), "{broken:?}");
        assert!(whole(tokio::spawn(async {})).await.is_ok());
    }
}
