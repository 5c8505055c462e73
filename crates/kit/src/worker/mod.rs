//! What preprocess and inference share: a table of replicas and a life line to the controller.
//!
//! A service brings a [`Loader`] (how a replica is made) and a [`Replica`] (what it can say about itself). Its handlers
//! call [`Replicas::lease`] for every request and keep the [`Lease`] as long as the request runs, in the response stream
//! too. Everything else (states, limits, draining, reports, reconnecting) is done here. Nothing here knows a model.
//!
//! A worker keeps serving while its controller is away.

mod args;
mod attach;
mod busy;
mod check;
mod failure;
mod folder;
mod lease;
mod meter;
mod multiplex;
mod replicas;
mod table;

pub use args::{Identity, NODE_LABEL, WorkerArgs};
pub use attach::attach;
pub use failure::Failure;
pub use folder::{model_folder, model_name};
pub use lease::Lease;
pub use multiplex::Multiplexed;
pub use replicas::Replicas;
pub use table::Refused;

pub use mobula_proto::common::v1::Load;
pub use mobula_proto::control::v1::{
    HeldModel, LightConfig, ModelInfo, ReplicaReport, ReplicaSpec, ReplicaState, Resources, WorkerKind,
};

use futures::future::BoxFuture;

/// Makes replicas.
#[async_trait::async_trait]
pub trait Loader: Send + Sync + 'static {
    /// What is made.
    type Replica: Replica;

    /// Loads and warms up what `spec` says; it may take long, and computes on threads of its own. The error's words are for
    /// people: what is wrong with which file or option. A panic counts as an error that may pass.
    async fn load(&self, spec: &ReplicaSpec) -> Result<Self::Replica, Failure>;
}

/// A loaded replica.
pub trait Replica: Send + Sync + 'static {
    /// How busy it is. `ongoing_requests` is overwritten by the number of leases. Cheap: called with each report.
    fn load(&self) -> Load;

    /// What the proxies must know of the model; none for preprocess replicas.
    fn model(&self) -> Option<ModelInfo>;

    /// An error when it can never serve again; it is then reported as FAILED and retired. Cheap: asked some times a
    /// second.
    ///
    /// # Errors
    /// Why, for people.
    fn health(&self) -> Result<(), String>;

    /// Models that it holds now, of those that it serves on demand (`ReplicaSpec.models`).
    fn models(&self) -> Vec<HeldModel> {
        Vec::new()
    }

    /// Evidence that it still works: asked every health check period, and a failure when it is not done within the
    /// timeout (Ray: `check_health`). It must cost next to nothing.
    ///
    /// # Errors
    /// Why it does not, for people.
    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(self.health()))
    }

    /// Takes a new `user_config` (JSON, empty for none), before the first request and whenever it changes (Ray:
    /// `reconfigure`).
    ///
    /// # Errors
    /// What is wrong with it, for people; the replica is then reported as FAILED.
    fn reconfigure(&self, _user_config: &str) -> Result<(), String> {
        Ok(())
    }

    /// Called once, on the blocking pool, when the replica is removed: release threads and memory. Leases may still be
    /// held when the drain's grace is over.
    fn retire(&self);
}
