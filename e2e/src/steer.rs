//! A mesh under command: what people do to it with `mobula`, and waiting until it is done.

use mobula_proto::control::v1::{DeploymentStatus, ReplicaState, RolloutState};

use crate::process::Up;
use crate::wait::until;

impl Up {
    /// Puts one application, given as YAML, and gives what the command said.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn put(&self, application: &str) -> anyhow::Result<String> {
        // A name of its own, so that several callers do not write into each other's file.
        let name = format!("{}.yaml", uuid::Uuid::new_v4());
        self.write(&name, application)?;
        self.told(&["deploy", "--application", &name]).await
    }

    /// How a deployment is; absent when there is none of the name.
    ///
    /// # Errors
    /// When the controller cannot be reached.
    pub async fn deployment(
        &self,
        application: &str,
        deployment: &str,
    ) -> anyhow::Result<Option<DeploymentStatus>> {
        let applications = self.status().await?.applications;
        let found = applications.into_iter().find(|a| a.name == application);
        Ok(found.and_then(|a| a.deployments.into_iter().find(|d| d.name == deployment)))
    }

    /// Waits until a deployment has exactly so many replicas, all running and none of an older config, and gives their
    /// ids, sorted.
    ///
    /// # Errors
    /// When that does not happen; the text holds the logs.
    pub async fn settled(
        &self,
        application: &str,
        deployment: &str,
        replicas: usize,
    ) -> anyhow::Result<Vec<String>> {
        let what = format!("{replicas} running replicas of {application}/{deployment}");
        let settled = until(&what, || async {
            let found = self.deployment(application, deployment).await.ok()??;
            let moves = found.rollout.as_ref().is_some_and(|rollout| {
                matches!(
                    rollout.state(),
                    RolloutState::Progressing | RolloutState::RollingBack
                )
            });
            let done = |r: &mobula_proto::control::v1::ReplicaStatus| {
                r.state() == ReplicaState::Running && !r.outdated
            };
            let all = found.replicas.len() == replicas && found.replicas.iter().all(done);
            let wanted = usize::try_from(found.target_replicas) == Ok(replicas);
            (all && wanted && !moves).then(|| ids(found))
        });
        match settled.await {
            Ok(ids) => Ok(ids),
            Err(error) => {
                let found = self.deployment(application, deployment).await;
                Err(error.context(format!("{found:#?}\n{}", self.output())))
            }
        }
    }

    /// Waits until no application has this name.
    ///
    /// # Errors
    /// When one still has.
    pub async fn deleted(&self, application: &str) -> anyhow::Result<()> {
        let what = format!("{application} to be gone");
        let gone = until(&what, || async {
            let applications = self.status().await.ok()?.applications;
            (!applications.iter().any(|a| a.name == application)).then_some(())
        });
        gone.await.map_err(|error| error.context(self.output()))
    }
}

fn ids(deployment: DeploymentStatus) -> Vec<String> {
    let mut ids: Vec<String> = deployment.replicas.into_iter().map(|r| r.replica_id).collect();
    ids.sort();
    ids
}
