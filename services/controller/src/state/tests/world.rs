//! Workers, proxies and time as a test wants them.

use std::collections::BTreeMap;

use mobula_proto::control::v1::{
    self as pb, ApplicationState, ReplicaState, WorkerKind, attach_response::Message as Command,
};

use super::super::*;

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
    pub(super) pid: u32,
    pub(super) address: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) replicas: BTreeMap<String, pb::ReplicaReport>,
    /// Does not send anything and hears nothing.
    pub(super) silent: bool,
    /// What an assignment leads to.
    pub(super) outcome: (ReplicaState, &'static str),
    pub(super) told_to_leave: bool,
}

pub(super) struct World {
    life: u32,
    pub(super) state: State,
    pub(super) now: Duration,
    pub(super) workers: BTreeMap<String, Worker>,
    sessions: u64,
    /// What the provider was told, since last looked at.
    pub(super) started: Vec<(String, Kind)>,
    pub(super) adopted: Vec<String>,
    pub(super) ended: Vec<(String, bool)>,
    pub(super) refused: Vec<String>,
    pub(super) tables: Vec<pb::WatchRoutesResponse>,
    pub(super) assigned: usize,
    pub(super) drained: usize,
}

pub(super) fn external() -> Supply {
    Supply::External {
        controller: "127.0.0.1:7265".into(),
    }
}

pub(super) fn process(survivors: &[(&str, Kind)]) -> Supply {
    let survivors = survivors
        .iter()
        .map(|(id, kind)| ((*id).to_owned(), *kind))
        .collect();
    Supply::Process {
        max_workers: 8,
        survivors,
    }
}

/// The default application with so many pipeline replicas.
pub(super) fn schema(pipelines: usize) -> Schema {
    let mut schema = Schema::of_model("fake");
    schema.applications[0].deployments[1].replicas = pipelines;
    schema
}

impl World {
    pub(super) fn new(supply: Supply, schema: Schema) -> Self {
        Self::life(0, supply, schema)
    }

    fn life(life: u32, supply: Supply, schema: Schema) -> Self {
        let settings = Settings {
            // Two lives of a controller never have the same.
            controller_id: format!("test {life}"),
            heartbeat: HEARTBEAT,
            adoption_grace: HEARTBEAT * 3,
            supply,
        };
        Self {
            life,
            state: State::new(settings, schema),
            now: Duration::ZERO,
            workers: BTreeMap::new(),
            sessions: 0,
            started: Vec::new(),
            adopted: Vec::new(),
            ended: Vec::new(),
            refused: Vec::new(),
            tables: Vec::new(),
            assigned: 0,
            drained: 0,
        }
    }

    /// An external mesh after its adoption grace, with no workers.
    pub(super) fn settled(pipelines: usize) -> Self {
        let mut world = Self::new(external(), schema(pipelines));
        world.run(HEARTBEAT * 3);
        world
    }

    /// The same state of workers with a controller that has just been started anew.
    pub(super) fn restart_controller(&mut self, supply: Supply, schema: Schema) {
        let workers = std::mem::take(&mut self.workers);
        *self = Self::life(self.life + 1, supply, schema);
        self.workers = workers;
        self.workers.values_mut().for_each(|worker| worker.session = None);
    }

    pub(super) fn add(&mut self, id: &str, kind: WorkerKind, cpus: f64) {
        let worker = Worker {
            session: None,
            kind,
            cpus,
            pid: 100 + u32::try_from(self.workers.len()).unwrap(),
            address: format!("10.0.0.{}:7200", self.workers.len() + 1),
            labels: Vec::new(),
            replicas: BTreeMap::new(),
            silent: false,
            outcome: (ReplicaState::Running, ""),
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
                ..pb::Resources::default()
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
            let actions = self.state.settle(self.now);
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
            self.now = (self.now + ms(100)).min(end);
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
                Action::Welcome { .. } => {}
                Action::Refuse { why, .. } => self.refused.push(why),
                Action::Send { session, command } => self.obey(session, *command),
                Action::Close { session } => {
                    if let Some(worker) = self.workers.values_mut().find(|w| w.session == Some(session)) {
                        worker.session = None;
                    }
                }
                Action::Start { worker_id, kind } => self.started.push((worker_id, kind)),
                Action::Adopt { worker_id, .. } => self.adopted.push(worker_id),
                Action::End { worker_id, told, .. } => self.ended.push((worker_id, told)),
            }
        }
    }

    fn obey(&mut self, session: u64, command: Command) {
        self.assigned += usize::from(matches!(command, Command::Assign(_)));
        self.drained += usize::from(matches!(command, Command::Drain(_)));
        let Some(worker) = self.workers.values_mut().find(|w| w.session == Some(session)) else {
            return;
        };
        if worker.silent {
            return;
        }
        match command {
            Command::Assign(assign) => {
                let spec = assign.replica.unwrap();
                let (state, message) = worker.outcome;
                let report = pb::ReplicaReport {
                    replica_id: spec.replica_id.clone(),
                    state: state.into(),
                    message: message.into(),
                    load: None,
                    model: None,
                    spec: Some(spec.clone()),
                };
                worker.replicas.entry(spec.replica_id).or_insert(report);
            }
            Command::Drain(drain) => drop(worker.replicas.remove(&drain.replica_id)),
            Command::Shutdown(_) => worker.told_to_leave = true,
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

    /// The process provider's part: attaches what it was told to start.
    pub(super) fn launch(&mut self) {
        for (id, kind) in std::mem::take(&mut self.started) {
            let kind = match kind {
                Kind::Preprocess => WorkerKind::Preprocess,
                Kind::Inference => WorkerKind::Inference,
            };
            self.add(&id, kind, 2.0);
        }
    }

    pub(super) fn exit(&mut self, id: &str) {
        self.workers.remove(id);
        self.event(Event::Exited {
            worker_id: id.to_owned(),
            why: "ended with exit status: 1 after 0.1 s".into(),
        });
    }

    /// Whatever happens, this holds.
    pub(super) fn check(&self) {
        let state = &self.state;
        for deployment in &state.deployments {
            assert_eq!(
                deployment.replicas.len(),
                deployment.spec.replicas,
                "{}",
                deployment.spec.name
            );
        }
        assert_eq!(
            state.replicas.len(),
            state.deployments.iter().map(|d| d.replicas.len()).sum::<usize>()
        );
        for (id, replica) in &state.replicas {
            use super::super::model::Phase;
            let deployment = &state.deployments[replica.deployment];
            let sets = (
                deployment.pending.contains(id),
                deployment.running.contains(id),
                deployment.failed.contains(id),
            );
            let (expected, placed) = match replica.phase {
                Phase::Pending => ((true, false, false), false),
                Phase::Starting => ((false, false, false), true),
                Phase::Running { .. } => ((false, true, false), true),
                Phase::Failed { retry } => {
                    assert!(state.retries.contains(&(retry, id.clone())));
                    ((false, false, true), false)
                }
            };
            assert_eq!(sets, expected, "{id} {:?}", replica.phase);
            assert_eq!(replica.worker.is_some(), placed, "{id} {:?}", replica.phase);
            if let Some(worker) = &replica.worker {
                assert!(state.workers[worker].replicas.contains(id));
            }
        }
        let failed = state.deployments.iter().map(|d| d.failed.len()).sum::<usize>();
        assert_eq!(state.retries.len(), failed);
        for (id, worker) in &state.workers {
            for replica in &worker.replicas {
                assert_eq!(state.replicas[replica].worker.as_ref(), Some(id));
                assert!(!worker.strays.contains_key(replica));
            }
            assert!(
                state.used(worker).fits(&worker.capacity),
                "{id} is over its capacity"
            );
            assert!(state.leases.age(id, self.now).is_some(), "{id} has no lease");
        }
        for (session, worker) in &state.sessions {
            assert_eq!(state.workers[worker].session, Some(*session));
        }
    }
}
