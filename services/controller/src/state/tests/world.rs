//! Workers, proxies and time as a test wants them.

use std::collections::BTreeMap;

use mobula_proto::control::v1::{
    self as pb, ApplicationState, ReplicaState, WorkerKind, attach_response::Message as Command,
};

use mobula_serving::place::fraction;
pub(super) use mobula_serving::place::{Amounts, Kind};

pub(super) use super::intents::*;

use super::super::{convert::amounts_to_proto, *};

pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One simulated worker: does what it is told, at once.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) session: Option<u64>,
    pub(super) kind: WorkerKind,
    pub(super) cpus: f64,
    /// What it has beside its CPUs.
    pub(super) more: Amounts,
    pub(super) pid: u32,
    pub(super) address: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) replicas: BTreeMap<String, pb::ReplicaReport>,
    /// Does not send anything and hears nothing.
    pub(super) silent: bool,
    /// What an assignment leads to.
    pub(super) outcome: (ReplicaState, &'static str),
    /// No replica of this model can be started.
    pub(super) broken: Option<String>,
    /// What it is told to stop has something to finish first.
    pub(super) busy: bool,
    /// Its failures are such as another try cannot mend.
    pub(super) permanent: bool,
    pub(super) told_to_leave: bool,
}

impl Worker {
    /// Whether what it is told to stop has something to finish first; where not, what it was told to stop has stopped.
    pub(super) fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
        if !busy {
            self.replicas
                .retain(|_, report| report.state() != ReplicaState::Stopping);
        }
    }
}

pub(super) struct World {
    life: u32,
    pub(super) state: State,
    pub(super) now: Duration,
    pub(super) workers: BTreeMap<String, Worker>,
    sessions: u64,
    /// What the provider was told, since last looked at.
    pub(super) started: Vec<(String, Kind)>,
    /// Everything that it was ever told to start.
    pub(super) starts: BTreeMap<String, Start>,
    pub(super) adopted: Vec<String>,
    pub(super) ended: Vec<(String, bool)>,
    pub(super) refused: Vec<String>,
    pub(super) tables: Vec<pb::WatchRoutesResponse>,
    pub(super) assigned: usize,
    pub(super) drained: usize,
    pub(super) reconfigured: usize,
    /// Replicas may stop because others of their gang do.
    pub(super) gangs: bool,
    pub(super) decisions: Vec<pb::Decision>,
    pub(super) rolled_back: Vec<String>,
}

impl World {
    pub(super) fn new(supply: Supply, intent: Intent) -> Self {
        Self::life(0, supply, intent)
    }

    fn life(life: u32, supply: Supply, intent: Intent) -> Self {
        let settings = Settings {
            // Two lives of a controller never have the same.
            controller_id: format!("test {life}"),
            origin_unix_ms: 1_700_000_000_000,
            heartbeat: HEARTBEAT,
            adoption_grace: HEARTBEAT * 3,
            supply,
        };
        Self {
            life,
            state: State::new(settings, Arc::new(intent)),
            now: Duration::ZERO,
            workers: BTreeMap::new(),
            sessions: 0,
            started: Vec::new(),
            starts: BTreeMap::new(),
            adopted: Vec::new(),
            ended: Vec::new(),
            refused: Vec::new(),
            tables: Vec::new(),
            assigned: 0,
            drained: 0,
            reconfigured: 0,
            gangs: false,
            decisions: Vec::new(),
            rolled_back: Vec::new(),
        }
    }

    /// An external mesh after its adoption grace, with no workers.
    pub(super) fn settled(pipelines: u32) -> Self {
        let mut world = Self::new(external(), schema(pipelines));
        world.run(HEARTBEAT * 3);
        world
    }

    /// The same state of workers with a controller that has just been started anew.
    pub(super) fn restart_controller(&mut self, supply: Supply, intent: Intent) {
        let workers = std::mem::take(&mut self.workers);
        *self = Self::life(self.life + 1, supply, intent);
        self.workers = workers;
        self.workers.values_mut().for_each(|worker| worker.session = None);
    }

    pub(super) fn add(&mut self, id: &str, kind: WorkerKind, cpus: f64) {
        let worker = Worker {
            session: None,
            kind,
            cpus,
            more: Amounts::default(),
            pid: 100 + u32::try_from(self.workers.len()).unwrap(),
            address: format!("10.0.0.{}:7200", self.workers.len() + 1),
            labels: Vec::new(),
            replicas: BTreeMap::new(),
            silent: false,
            outcome: (ReplicaState::Running, ""),
            broken: None,
            busy: false,
            permanent: false,
            told_to_leave: false,
        };
        self.workers.insert(id.to_owned(), worker);
        self.hello(id);
    }

    pub(super) fn hello(&mut self, id: &str) {
        let worker = self.workers[id].clone();
        self.sessions += 1;
        let session = self.sessions;
        self.workers.get_mut(id).unwrap().session = Some(session);
        let hello = pb::Hello {
            worker_id: id.to_owned(),
            kind: worker.kind.into(),
            address: worker.address,
            resources: Some(pb::Resources {
                cpus: worker.cpus,
                ..amounts_to_proto(&worker.more)
            }),
            labels: worker.labels.into_iter().collect(),
            version: "0".into(),
            replicas: worker.replicas.into_values().collect(),
            pid: worker.pid,
        };
        self.event(Event::Hello { session, hello });
    }

    pub(super) fn event(&mut self, event: Event) {
        let actions = self.state.apply(event, self.now);
        self.perform(actions);
    }

    pub(super) fn settle(&mut self) {
        for round in 0.. {
            let running = self.running();
            let actions = self.state.settle(self.now);
            self.check_stops(&running);
            self.check_parts(&running);
            self.perform(actions);
            self.tables.extend(self.state.take_routes(self.now));
            self.check();
            if self.state.next(self.now) > self.now {
                return;
            }
            assert!(round < 5, "the state is never done");
        }
    }

    pub(super) fn heartbeat(&mut self, id: &str) {
        let worker = &self.workers[id];
        if worker.silent {
            return;
        }
        if let Some(session) = worker.session {
            let replicas = worker.replicas.values().cloned().collect();
            self.event(Event::Heartbeat {
                session,
                heartbeat: pb::Heartbeat {
                    replicas,
                    resident_bytes: 1,
                },
            });
        }
    }

    /// Lets time pass in steps of 100 ms; every worker that is not silent sends its heartbeats.
    pub(super) fn run(&mut self, time: Duration) {
        self.run_by(time, ms(100));
    }

    /// The same in other steps.
    pub(super) fn run_by(&mut self, time: Duration, step: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let ids: Vec<String> = self.workers.keys().cloned().collect();
            for id in ids {
                self.heartbeat(&id);
            }
            self.settle();
            if self.now >= end {
                return;
            }
            self.now = (self.now + step).min(end);
        }
    }

    /// The worker's stream ends as the network sees it, or without a word.
    pub(super) fn lose(&mut self, id: &str, end: End) {
        let worker = self.workers.get_mut(id).unwrap();
        if let Some(session) = worker.session.take() {
            self.event(Event::Lost { session, end });
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Welcome { .. } | Action::Pace { .. } => {}
                Action::Refuse { why, .. } => self.refused.push(why),
                Action::Send { session, command } => self.obey(session, *command),
                Action::Close { session } => {
                    if let Some(worker) = self.workers.values_mut().find(|w| w.session == Some(session)) {
                        worker.session = None;
                    }
                }
                Action::Note(Note::Decided(decision)) => self.decisions.push(decision),
                Action::Note(Note::RolledBack { why, .. }) => self.rolled_back.push(why),
                Action::Start(start) => {
                    self.started.push((start.worker_id.clone(), start.kind));
                    self.starts.insert(start.worker_id.clone(), start);
                }
                Action::Adopt { worker_id, .. } => self.adopted.push(worker_id),
                Action::End { worker_id, told, .. } => self.ended.push((worker_id, told)),
            }
        }
    }

    fn obey(&mut self, session: u64, command: Command) {
        self.assigned += usize::from(matches!(command, Command::Assign(_)));
        self.drained += usize::from(matches!(command, Command::Drain(_)));
        self.reconfigured += usize::from(matches!(command, Command::Reconfigure(_)));
        let Some(worker) = self.workers.values_mut().find(|w| w.session == Some(session)) else {
            return;
        };
        if worker.silent {
            return;
        }
        match command {
            Command::Assign(assign) => {
                let spec = assign.replica.unwrap();
                let (state, message) = if worker.broken.as_deref() == Some(&spec.model) {
                    (ReplicaState::Failed, "no such model")
                } else {
                    worker.outcome
                };
                let report = pb::ReplicaReport {
                    replica_id: spec.replica_id.clone(),
                    state: state.into(),
                    message: message.into(),
                    permanent: worker.permanent && state == ReplicaState::Failed,
                    load: None,
                    model: None,
                    light: spec.light.clone().unwrap().version,
                    spec: Some(spec.clone()),
                    ..Default::default()
                };
                worker.replicas.entry(spec.replica_id).or_insert(report);
            }
            Command::Drain(drain) => {
                let report = worker.replicas.get_mut(&drain.replica_id);
                let Some(report) = report.map(|report| {
                    let before = report.clone();
                    report.state = ReplicaState::Stopping.into();
                    before
                }) else {
                    return;
                };
                if !worker.busy {
                    worker.replicas.remove(&drain.replica_id);
                }
                let table = self.tables.last();
                let routed = table.is_some_and(|table| {
                    let all = table.applications.iter().flat_map(|app| &app.deployments);
                    all.flat_map(|d| &d.replicas)
                        .any(|replica| replica.replica_id == drain.replica_id)
                });
                // What failed or goes down with its gang has no time for that.
                if report.state() == ReplicaState::Running && !self.gangs {
                    assert!(!routed, "{} is drained while proxies know it", drain.replica_id);
                }
            }
            Command::Shutdown(_) => worker.told_to_leave = true,
            Command::Reconfigure(reconfigure) => {
                let light = reconfigure.light.unwrap();
                if let Some(report) = worker.replicas.get_mut(&reconfigure.replica_id) {
                    report.light.clone_from(&light.version);
                    report.spec.as_mut().unwrap().light = Some(light);
                }
            }
            Command::Welcome(_) => {}
        }
    }

    /// Replica ids by worker, as the workers have them.
    pub(super) fn placed(&self) -> BTreeMap<String, Vec<String>> {
        self.workers
            .iter()
            .map(|(id, w)| (id.clone(), w.replicas.keys().cloned().collect()))
            .collect()
    }

    /// Every worker has something to finish, which replicas that stop wait for.
    pub(super) fn draw(&mut self) {
        self.workers.values_mut().for_each(|worker| worker.set_busy(true));
    }

    /// Everything is finished.
    pub(super) fn finish(&mut self) {
        self.workers
            .values_mut()
            .for_each(|worker| worker.set_busy(false));
    }

    /// Addresses in the newest table, of the deployment by this index.
    pub(super) fn routed(&self, deployment: usize) -> Vec<String> {
        let Some(table) = self.tables.last() else {
            return Vec::new();
        };
        table.applications[0].deployments[deployment]
            .replicas
            .iter()
            .map(|r| r.address.clone())
            .collect()
    }

    pub(super) fn application(&self) -> (ApplicationState, String) {
        let application = self.state.status(self.now).applications.remove(0);
        (application.state(), application.message)
    }

    /// A proxy says what waits for and runs in the deployments of the default application.
    pub(super) fn ask(&mut self, proxy: &str, demands: &[(&str, u32, u32)]) {
        let demands = demands.iter().map(|(deployment, queued, running)| pb::Demand {
            application: "default".into(),
            deployment: (*deployment).into(),
            queued: *queued,
            running: *running,
            ..pb::Demand::default()
        });
        let request = pb::ReportDemandRequest {
            proxy_id: proxy.into(),
            demands: demands.collect(),
            ..pb::ReportDemandRequest::default()
        };
        let proxy = proxy.to_owned();
        self.event(Event::Demand { proxy, request });
    }

    /// Makes this the intent, as a newer one than the last.
    pub(super) fn intend(&mut self, mut intent: Intent) {
        intent.resource_version = self.state.intent.resource_version + 1;
        self.event(Event::Intend(Arc::new(intent)));
    }

    /// The status of the deployment by this index.
    pub(super) fn deployment(&self, index: usize) -> pb::DeploymentStatus {
        self.state
            .status(self.now)
            .applications
            .remove(0)
            .deployments
            .remove(index)
    }

    /// The process provider's part: attaches what it was told to start.
    pub(super) fn launch(&mut self) {
        for (id, kind) in std::mem::take(&mut self.started) {
            let kind = match kind {
                Kind::Preprocess => WorkerKind::Preprocess,
                Kind::Inference => WorkerKind::Inference,
            };
            let start = self.starts[&id].clone();
            self.add(
                &id,
                kind,
                if start.resources.cpus > 0 {
                    fraction(start.resources.cpus)
                } else {
                    2.0
                },
            );
            let worker = self.workers.get_mut(&id).unwrap();
            worker.labels.extend(start.labels);
            worker.more = start.resources;
            worker.labels.push((PROVIDER_LABEL.into(), "process".into()));
            self.hello(&id);
        }
    }

    pub(super) fn exit(&mut self, id: &str) {
        self.workers.remove(id);
        self.started.retain(|(started, _)| started != id);
        self.event(Event::Exited {
            worker_id: id.to_owned(),
            why: "ended with exit status: 1 after 0.1 s".into(),
        });
    }
}
