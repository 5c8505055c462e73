//! The route table: where the replicas are that take requests.
//!
//! Invariant: a table is published at once after a change and at most one per 10 ms; none before workers of an earlier
//! life had their time to come back, for a proxy that is given an empty table drops the replicas it knows.

use mobula_proto::control::v1 as pb;

use super::{
    State, Time,
    model::{Deployment, kind_to_proto},
};

/// Changes that come together (a worker's replicas, a burst of attaching workers) go out together.
const GAP: Time = Time::from_millis(10);

/// What is known of the table between two publications.
#[derive(Debug)]
pub(super) struct Table {
    version: u64,
    /// Replicas, addresses or models changed.
    pub(super) changed: bool,
    /// Only how busy they are changed: told once per heartbeat.
    pub(super) loads_changed: bool,
    published: Option<Time>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            version: 0,
            changed: true,
            loads_changed: false,
            published: None,
        }
    }
}

impl Table {
    /// When the next table is to go out.
    pub(super) fn due(&self, heartbeat: Time) -> Option<Time> {
        let published = self.published.unwrap_or(Time::ZERO);
        if self.changed {
            Some(if self.published.is_some() {
                published + GAP
            } else {
                Time::ZERO
            })
        } else {
            self.loads_changed.then_some(published + heartbeat)
        }
    }
}

impl State {
    /// The new table, if one is due.
    pub(crate) fn take_routes(&mut self, now: Time) -> Option<pb::WatchRoutesResponse> {
        let due = self.routes.due(self.settings.heartbeat)?;
        if self.grace.is_some() || self.stopping || now < due {
            return None;
        }
        self.routes.version += 1;
        (self.routes.changed, self.routes.loads_changed) = (false, false);
        self.routes.published = Some(now);
        Some(pb::WatchRoutesResponse {
            version: self.routes.version,
            controller_id: self.settings.controller_id.clone(),
            applications: self.apps.iter().map(|app| self.application_route(app)).collect(),
        })
    }

    fn application_route(&self, app: &super::model::App) -> pb::ApplicationRoute {
        pb::ApplicationRoute {
            name: app.name.clone(),
            route_prefix: app.route_prefix.clone().unwrap_or_default(),
            deployments: app
                .deployments
                .iter()
                .map(|d| self.deployment_route(&self.deployments[*d]))
                .collect(),
        }
    }

    fn deployment_route(&self, deployment: &Deployment) -> pb::DeploymentRoute {
        let spec = &deployment.spec;
        pb::DeploymentRoute {
            name: spec.name.clone(),
            kind: kind_to_proto(spec.kind).into(),
            max_ongoing_requests: spec.max_ongoing_requests,
            max_queued_requests: spec.max_queued_requests,
            replicas: deployment
                .running
                .iter()
                .filter_map(|id| self.endpoint(id))
                .collect(),
        }
    }

    fn endpoint(&self, id: &str) -> Option<pb::ReplicaEndpoint> {
        let replica = self.replicas.get(id)?;
        let worker = self.workers.get(replica.worker.as_ref()?)?;
        Some(pb::ReplicaEndpoint {
            replica_id: id.to_owned(),
            address: worker.address.clone(),
            load: replica.load,
            model: replica.model.clone(),
        })
    }
}
