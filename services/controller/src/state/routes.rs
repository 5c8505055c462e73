//! The route table: where the replicas are that take requests.
//!
//! Invariant: a table is published at once after a change and at most one per 10 ms (of large
//! meshes: per 10 us for each replica); none before workers of an earlier
//! life had their time to come back, for a proxy that is given an empty table drops the replicas it knows. A replica that
//! leaves is out of the table before it is told to stop.

use std::collections::BTreeSet;

use mobula_proto::control::v1 as pb;
use mobula_schema::Count;

use super::{
    State, Time,
    convert::{count32, kind_to_proto, millis, millis32, stages_to_proto},
    model::{App, Deployment},
    placing::NODE_LABEL,
};

/// Which zone a worker is in, as Kubernetes labels its nodes.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// How often proxies with callers report demand: often within a short look-back (2 s in Data on EKS's sample), and never so
/// seldom that a proxy counts as silent between two reports. Fifty busy proxies are two hundred messages per second.
const REPORT_INTERVAL: Time = Time::from_millis(250);

/// Changes that come together (a worker's replicas, a burst of attaching workers) go out together.
const GAP: Time = Time::from_millis(10);

/// Each replica of a table costs every proxy's stream about a microsecond to write; a table leaves its time ten times over for
/// other work. From 1,000 replicas on tables are this much further apart.
const GAP_PER_REPLICA: Time = Time::from_micros(10);

/// What is known of the table between two publications.
#[derive(Debug)]
pub(super) struct Table {
    version: u64,
    /// Replicas, addresses or models changed.
    pub(super) changed: bool,
    /// Only how busy they are changed: told once per heartbeat.
    pub(super) loads_changed: bool,
    published: Option<Time>,
    /// Replicas in the last one.
    size: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            version: 0,
            changed: true,
            loads_changed: false,
            published: None,
            size: 0,
        }
    }
}

impl Table {
    /// When the next table is to go out.
    pub(super) fn due(&self, heartbeat: Time) -> Option<Time> {
        let published = self.published.unwrap_or(Time::ZERO);
        if self.changed {
            Some(if self.published.is_some() {
                published + GAP.max(GAP_PER_REPLICA * self.size)
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
        self.routes.size = count32(self.deployments.values().map(|d| d.running.len()).sum());
        self.schedule_drains(now);
        Some(pb::WatchRoutesResponse {
            version: self.routes.version,
            controller_id: self.settings.controller_id.clone(),
            applications: self
                .apps
                .iter()
                .map(|(name, app)| self.application_route(name, app))
                .collect(),
            report_interval_ms: millis32(REPORT_INTERVAL),
            look_back_ms: millis(self.look_back()),
            http_request_timeout_ms: self.intent.config.options.http.request_timeout.map(millis),
            grpc_request_timeout_ms: self.intent.config.options.grpc.request_timeout.map(millis),
        })
    }

    /// The longest window of all that scales; zero if nothing does.
    fn look_back(&self) -> Time {
        let apps = self.intent.config.applications.iter();
        let windows = apps
            .flat_map(|app| &app.deployments)
            .filter_map(|part| match &part.count {
                Count::Auto(scaler) => Some(scaler.look_back),
                Count::Fixed(_) => None,
            });
        windows.max().unwrap_or_default()
    }

    /// Counts a proxy in.
    pub(super) fn watched(&mut self, watch: u64, proxy: pb::ProxyStatus) {
        let before = self.proxies();
        self.watches.insert(watch, proxy);
        // Each has its share of the bounds.
        self.routes.changed |= self.proxies() != before;
    }

    /// Counts a proxy out.
    pub(super) fn unwatched(&mut self, watch: u64) {
        let before = self.proxies();
        self.watches.remove(&watch);
        self.routes.changed |= self.proxies() != before;
    }

    /// How many proxies there are; one that dialled again before its old stream was seen to end is one.
    fn proxies(&self) -> usize {
        let ids: BTreeSet<&str> = self
            .watches
            .values()
            .map(|proxy| proxy.proxy_id.as_str())
            .collect();
        ids.len()
    }

    fn application_route(&self, name: &str, app: &App) -> pb::ApplicationRoute {
        let deployments = || app.deployments.iter().filter_map(|key| self.deployments.get(key));
        // Proxies take the first that does what they need; those that are named no more are told of for what they have begun.
        let old = deployments().filter(|d| d.deleting && (app.deleting || !d.running.is_empty()));
        let new = deployments().filter(|d| !d.deleting);
        let in_turn: Vec<&Deployment> = if self.is_served_by_old_graph(app) {
            old.chain(new).collect()
        } else {
            new.chain(old).collect()
        };
        pb::ApplicationRoute {
            name: name.to_owned(),
            route_prefix: app.route_prefix.clone().unwrap_or_default(),
            deployments: in_turn.into_iter().map(|d| self.deployment_route(d)).collect(),
            deleting: app.deleting,
            img_size: app.img_size.unwrap_or_default(),
        }
    }

    fn deployment_route(&self, deployment: &Deployment) -> pb::DeploymentRoute {
        let config = &deployment.spec.config;
        pb::DeploymentRoute {
            name: config.name.clone(),
            kind: kind_to_proto(config.kind).into(),
            max_ongoing_requests: config.max_ongoing_requests,
            max_queued_requests: self.share(config.max_queued_requests),
            replicas: deployment
                .running
                .iter()
                .filter_map(|id| self.endpoint(id))
                .collect(),
            expected: deployment.outlook.expected && !deployment.deleting,
            why_none: deployment.outlook.why_none.clone(),
            backpressure_status: config.backpressure.status.into(),
            retry_after_s: config
                .backpressure
                .retry_after
                .map_or(0.0, |after| after.as_secs_f32()),
            models: config.models.keys().cloned().collect(),
            stages: stages_to_proto(config.stages),
            max_queued_ms: config.max_queued.map_or(0, |longest| millis(longest).max(1)),
        }
    }

    /// A proxy's share of a deployment's bound; never nothing of a bound that allows something.
    fn share(&self, bound: i32) -> i32 {
        let proxies = i32::try_from(self.proxies().max(1)).unwrap_or(i32::MAX);
        if bound <= 0 {
            bound
        } else {
            bound / proxies + i32::from(bound % proxies != 0)
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
            models: replica.models.clone(),
            zone: worker.labels.get(ZONE_LABEL).cloned().unwrap_or_default(),
            node: worker.labels.get(NODE_LABEL).cloned().unwrap_or_default(),
        })
    }
}
