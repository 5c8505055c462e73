//! Has workers started that replicas lack, and those leave that nobody needs.
//!
//! Which groups there are is the intent's business. For a kind of worker that it names none for, our provider has one of its
//! own, of any number up to its limit, whose workers hold one replica each: a crash takes down one replica. Without a provider nothing is started
//! here, and the status says what somebody has to start.

use std::collections::BTreeMap;

use mobula_schema::WorkerGroup;
use mobula_serving::place::{Amounts, Kind, Strategy, fraction};
use tracing::{info, warn};

use super::{
    Action, FAILURES_UNTIL_FAILED, GROUP_LABEL, Start, State, Supply, Time,
    groups::{Pool, Shape, Unmet, plan},
    model::{Key, Launch, Worker},
};

/// A worker process that has not attached by then has failed to start; loading a library from a cold disk takes seconds.
const LAUNCH_TIMEOUT: Time = Time::from_secs(30);

/// A worker without a replica is kept so long when no group says otherwise: a replica that is replaced finds it warm.
const IDLE_TIMEOUT: Time = Time::from_secs(10);

/// What a worker that leaves because it is not needed has to end; it has no requests.
const IDLE_GRACE: Time = Time::from_secs(5);

/// What replicas without a place wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    /// The group that grows for them.
    pub(super) group: Option<String>,
    pub(super) unmet: Option<Unmet>,
}

impl State {
    /// The groups that there are: those that the intent names, and our provider's own for the other kinds. A RayService names
    /// groups of what draws alone; the rest of it runs beside Ray's head, which is not here.
    pub(super) fn regroup(&mut self) {
        self.groups = self.intent.config.worker_groups.clone();
        let Supply::Process { max_workers, .. } = self.settings.supply else {
            return;
        };
        for kind in [Kind::Preprocess, Kind::Inference] {
            if self.groups.iter().all(|group| group.kind != kind) {
                let group = own_group(kind, max_workers, &self.groups);
                self.groups.push(group);
            }
        }
    }

    /// The group of a worker: the one that its label names, or, of our own workers, the first of its kind.
    pub(super) fn group_of(&self, kind: Kind, labels: &BTreeMap<String, String>, owned: bool) -> String {
        if let Some(group) = labels.get(GROUP_LABEL) {
            return group.clone();
        }
        let first = self.groups.iter().find(|group| owned && group.kind == kind);
        first.map(|group| group.name.clone()).unwrap_or_default()
    }

    /// How many replicas a worker may hold, if that is limited.
    pub(super) fn replica_limit(&self, worker: &Worker) -> Option<usize> {
        match self.groups.iter().find(|group| group.name == worker.group) {
            Some(group) => group.replicas_per_worker.map(|limit| limit as usize),
            None => worker.owned.then_some(1),
        }
    }

    /// Has the provider start what is lacking and end what is not needed.
    pub(super) fn supply(&mut self, now: Time, actions: &mut Vec<Action>) {
        let limit = match self.settings.supply {
            Supply::External { .. } => usize::MAX,
            Supply::Process { max_workers, .. } => max_workers.saturating_sub(self.owned()),
        };
        let pools: Vec<Pool> = self.groups.iter().map(|group| self.pool(group)).collect();
        let (keys, shapes) = self.shapes();
        let plan = plan(&pools, &shapes, limit);
        self.growth = keys
            .into_iter()
            .zip(plan.by.iter().zip(&plan.unmet))
            .map(|(key, (by, unmet))| {
                let group = by.map(|i| self.groups[i].name.clone());
                (key, Growth { group, unmet: *unmet })
            })
            .collect();
        self.wanted = pools
            .iter()
            .zip(&plan.raise)
            .map(|(pool, raise)| pool.attached + pool.starting + raise)
            .collect();
        if matches!(self.settings.supply, Supply::Process { .. }) {
            for (i, count) in plan.raise.into_iter().enumerate().filter(|(_, count)| *count > 0) {
                self.launch(i, count, now, actions);
            }
            self.dismiss_idle(now, actions);
            self.end_overdue(now, actions);
        }
    }

    /// A group as the planner sees it.
    fn pool(&self, group: &WorkerGroup) -> Pool {
        let members = || self.workers.values().filter(|worker| worker.group == group.name);
        let launched = || self.launched.values().filter(|launch| launch.group == group.name);
        let starting = launched().filter(|launch| launch.is_counted_on()).count();
        // What nobody has written down is learnt from those that are attached: the most of each that any of them has, so that
        // what can go nowhere does not have workers started for ever.
        let known = (group.resources != Amounts::default()).then(|| group.resources.clone());
        let learnt = || {
            members().fold(None, |most: Option<Amounts>, worker| {
                let mut most = most.unwrap_or_default();
                most.raise_to(&worker.capacity);
                Some(most)
            })
        };
        Pool {
            kind: group.kind,
            capacity: known.or_else(learnt),
            labels: group.labels.clone(),
            per_worker: group.replicas_per_worker.map(|limit| limit as usize),
            attached: members().count() + launched().count() - starting,
            starting,
            min: group.min as usize,
            max: group.max as usize,
        }
    }

    /// What has no place.
    fn shapes(&self) -> (Vec<Key>, Vec<Shape>) {
        let waiting = self.deployments.iter().filter(|(_, d)| !d.pending.is_empty());
        waiting
            .map(|(key, deployment)| {
                let config = &deployment.spec.config;
                let alone = config.placing.strategy == Strategy::StrictSpread;
                let beside = config.placing.per_node.unwrap_or(usize::MAX);
                let shape = Shape {
                    kind: config.kind,
                    need: config.need.clone(),
                    selector: config.placing.selector.clone(),
                    beside: if alone { 1 } else { beside },
                    count: deployment.pending.len(),
                };
                (*key, shape)
            })
            .unzip()
    }

    fn launch(&mut self, group: usize, count: usize, now: Time, actions: &mut Vec<Action>) {
        let group = self.groups[group].clone();
        let not_before = self
            .starts
            .get(&group.name)
            .map_or(Time::ZERO, |starts| starts.not_before);
        if now < not_before {
            self.supply_at(not_before);
            return;
        }
        for _ in 0..count {
            let worker_id = format!("{}-{}", group.name, self.names.draw());
            let launch = Launch {
                kind: group.kind,
                group: group.name.clone(),
                since: now,
                returning: false,
                overdue: false,
            };
            self.launched.insert(worker_id.clone(), launch);
            self.totals.worker_starts += 1;
            info!(worker = %worker_id, group = %group.name, "worker is started");
            actions.push(Action::Start(start(worker_id, &group)));
        }
    }

    /// Lets our provider's workers go that have been idle for longer than their group keeps them.
    fn dismiss_idle(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut idle: BTreeMap<(String, Kind), Vec<(Time, String)>> = BTreeMap::new();
        let mut there: BTreeMap<String, usize> = BTreeMap::new();
        for (id, worker) in self.workers.iter_mut().filter(|(_, worker)| worker.owned) {
            let since = worker.idle_since.unwrap_or(now);
            worker.idle_since = worker.is_idle().then_some(since);
            if worker.is_idle() {
                let group = (worker.group.clone(), worker.kind);
                idle.entry(group).or_default().push((since, id.clone()));
            }
            if !worker.leaving {
                *there.entry(worker.group.clone()).or_default() += 1;
            }
        }
        for ((name, kind), mut idle) in idle {
            let group = self.groups.iter().find(|group| group.name == name);
            let timeout = group.map_or(IDLE_TIMEOUT, |group| group.idle_timeout);
            let min = group.map_or(0, |group| group.min as usize);
            let spare = there.get(&name).copied().unwrap_or(0).saturating_sub(min);
            // The longest idle first. A failed replica will want a worker again, and so will a gang that has no place yet.
            idle.sort();
            let surplus = idle.len().saturating_sub(self.soon(kind)).min(spare);
            for (since, id) in idle.into_iter().take(surplus) {
                if now >= since + timeout {
                    info!(worker = %id, "worker is not needed and is told to leave");
                    self.dismiss(&id, IDLE_GRACE, actions);
                } else {
                    self.supply_at(since + timeout);
                }
            }
        }
    }

    /// Replicas of a kind that have no worker and may want an idle one before long.
    fn soon(&self, kind: Kind) -> usize {
        let of_kind = self.deployments.values().filter(|d| d.spec.config.kind == kind);
        of_kind
            .map(|d| d.failed.len() + if d.spec.gang() > 1 { d.pending.len() } else { 0 })
            .sum()
    }

    /// Worker processes of our provider, attached or not.
    pub(super) fn owned(&self) -> usize {
        self.launched.len() + self.workers.values().filter(|worker| worker.owned).count()
    }

    /// Ends worker processes that had their time to attach, or to come back.
    fn end_overdue(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut next: Option<Time> = None;
        for (id, launch) in self.launched.iter_mut().filter(|(_, launch)| !launch.overdue) {
            let due = launch.since + LAUNCH_TIMEOUT;
            if now >= due {
                warn!(worker = %id, "worker process runs and does not attach; it is ended");
                launch.overdue = true;
                actions.push(Action::End {
                    worker_id: id.clone(),
                    told: false,
                    grace: IDLE_GRACE,
                });
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        if let Some(next) = next {
            self.supply_at(next);
        }
    }

    pub(super) fn supply_at(&mut self, at: Time) {
        self.supply_due = Some(self.supply_due.map_or(at, |next| next.min(at)));
    }

    /// Has the deployments looked at that wait for workers of a kind.
    pub(super) fn touch_waiting(&mut self, kind: Kind) {
        let waiting = self
            .deployments
            .iter()
            .filter(|(_, d)| d.spec.config.kind == kind && !d.pending.is_empty());
        self.dirty.extend(waiting.map(|(key, _)| *key));
    }

    /// Whether a deployment's replicas without a place may get one by themselves.
    pub(super) fn may_grow(&self, key: Key) -> bool {
        self.growth
            .get(&key)
            .is_some_and(|growth| growth.group.is_some() && growth.unmet.is_none())
    }

    /// Why workers of a kind fail to start, if they do.
    pub(super) fn failing_starts(&self, kind: Kind) -> Option<String> {
        let mut of_kind = self.groups.iter().filter(|group| group.kind == kind).peekable();
        of_kind.peek()?;
        let mut last = None;
        for group in of_kind {
            let starts = self.starts.get(&group.name)?;
            if starts.backoff.failures() < FAILURES_UNTIL_FAILED {
                return None;
            }
            last = Some(format!(
                "{} workers ended {} times in a row, the last {}",
                group.name,
                starts.backoff.failures(),
                starts.last_end
            ));
        }
        last
    }
}

/// Our provider's group for a kind that the intent has none of, under a name that no other group has.
fn own_group(kind: Kind, max_workers: usize, groups: &[WorkerGroup]) -> WorkerGroup {
    let mut name = kind.to_string();
    while groups.iter().any(|group| group.name == name) {
        name.insert_str(0, "own-");
    }
    WorkerGroup {
        name,
        kind,
        min: 0,
        max: u32::try_from(max_workers).unwrap_or(u32::MAX),
        idle_timeout: IDLE_TIMEOUT,
        resources: Amounts::default(),
        labels: BTreeMap::new(),
        replicas_per_worker: Some(1),
    }
}

/// What the provider needs to know to start a worker of a group.
fn start(worker_id: String, group: &WorkerGroup) -> Start {
    let mut labels = group.labels.clone();
    labels.insert(GROUP_LABEL.to_owned(), group.name.clone());
    Start {
        worker_id,
        kind: group.kind,
        group: group.name.clone(),
        labels,
        resources: group.resources.clone(),
    }
}

/// The flags with which a worker of a group is started, beside those that every worker has; nothing is said of what the group
/// does not say, so that the worker finds out itself.
pub(crate) fn flags(labels: &BTreeMap<String, String>, resources: &Amounts) -> Vec<String> {
    let mut flags = Vec::new();
    let mut flag = |name: &str, value: String| flags.extend([name.to_owned(), value]);
    if resources.cpus > 0 {
        flag("--cpus", fraction(resources.cpus).to_string());
    }
    if resources.gpus > 0 {
        flag("--gpus", fraction(resources.gpus).to_string());
    }
    if resources.memory > 0 {
        flag("--memory-bytes", resources.memory.to_string());
    }
    if resources.vram > 0 {
        flag("--vram-bytes", resources.vram.to_string());
    }
    for (name, amount) in &resources.custom {
        flag("--resource", format!("{name}={}", fraction(*amount)));
    }
    for (name, value) in labels {
        flag("--label", format!("{name}={value}"));
    }
    flags
}

/// What somebody types to start a worker of a group.
pub(super) fn command(group: &WorkerGroup, controller: &str) -> String {
    let Start {
        labels, resources, ..
    } = start(String::new(), group);
    let flags = flags(&labels, &resources).join(" ");
    format!("mobula-{} --controller {controller} {flags}", group.kind)
}
