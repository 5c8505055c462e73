//! A mesh of 1,000 workers, 5,000 replicas and 50 proxies in one process, with a provider whose workers attach after a while.
//!
//! What is asserted is work that is counted, and time of the mesh's own clock; the time that the machine took is printed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use mobula_proto::control::v1::{self as pb, ApplicationState, attach_response::Message as Command};
use mobula_schema::{Config, Count, WorkerGroup};
use mobula_serving::place::{Amounts, Kind, UNIT};
use tokio::time::Instant;

use super::{super::*, world::ms};

const WORKERS: u32 = 1_000;
const APPLICATIONS: u32 = 10;
/// Of each application; with its preprocess replicas 500.
const PIPELINES: u32 = 490;
const PREPROCESS: u32 = 10;
const PER_WORKER: u32 = 5;
const PROXIES: u64 = 50;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A process that starts, on the mesh's clock.
const ATTACHES_AFTER: Duration = Duration::from_secs(2);

fn group(name: &str, kind: Kind, max: u32) -> WorkerGroup {
    WorkerGroup {
        name: name.into(),
        kind,
        min: 0,
        max,
        idle_timeout: Duration::from_secs(60),
        resources: Amounts {
            cpus: u64::from(PER_WORKER) * UNIT,
            ..Amounts::default()
        },
        labels: BTreeMap::new(),
        replicas_per_worker: Some(PER_WORKER),
    }
}

fn intent(model: &str) -> Intent {
    let template = Config::of_model("fake").applications.remove(0);
    let mut config = Config {
        worker_groups: vec![
            group("prep", Kind::Preprocess, WORKERS),
            group("infer", Kind::Inference, WORKERS),
        ],
        ..Config::default()
    };
    for n in 0..APPLICATIONS {
        let mut application = template.clone();
        application.name = format!("app{n}");
        application.route_prefix = Some(format!("/app{n}"));
        application.deployments[0].count = Count::Fixed(PREPROCESS);
        application.deployments[1].count = Count::Fixed(PIPELINES);
        if n == 0 {
            application.deployments[1].model = model.into();
        }
        config.applications.push(application);
    }
    Intent {
        resource_version: 1,
        config,
        ..Intent::default()
    }
}

/// The most that one settling took, of the machine's time and of counted work.
#[derive(Debug, Default)]
struct Most {
    took: Duration,
    reconciled: u64,
    solved: u64,
}

struct Mesh {
    state: State,
    now: Duration,
    workers: BTreeMap<String, (u64, BTreeMap<String, pb::ReplicaReport>)>,
    by_session: HashMap<u64, String>,
    /// What sessions were told of their heartbeats.
    paces: HashMap<u64, Duration>,
    /// Workers on their way, by when they attach.
    coming: VecDeque<(Duration, Start)>,
    table: Option<pb::WatchRoutesResponse>,
    tables: usize,
    sessions: u64,
    most: Most,
    settles: u32,
    spent: Duration,
}

impl Mesh {
    fn new() -> Self {
        let settings = Settings {
            controller_id: "simulation".into(),
            origin_unix_ms: 0,
            heartbeat: HEARTBEAT,
            adoption_grace: HEARTBEAT * 3,
            supply: Supply::Process {
                max_workers: 2_000,
                survivors: Vec::new(),
            },
        };
        let mut mesh = Self {
            state: State::new(settings, Arc::new(intent("fake"))),
            now: Duration::ZERO,
            workers: BTreeMap::new(),
            by_session: HashMap::new(),
            paces: HashMap::new(),
            coming: VecDeque::new(),
            table: None,
            tables: 0,
            sessions: 0,
            most: Most::default(),
            settles: 0,
            spent: Duration::ZERO,
        };
        for watch in 0..PROXIES {
            let proxy = pb::ProxyStatus {
                proxy_id: format!("proxy{watch}"),
                ..pb::ProxyStatus::default()
            };
            mesh.take(Event::Watched { watch, proxy });
        }
        mesh
    }

    /// What the loop does for one event, measured.
    fn take(&mut self, event: Event) {
        let before = self.state.totals;
        let began = Instant::now();
        let mut actions = self.state.apply(event, self.now);
        actions.extend(self.state.settle(self.now));
        let table = self.state.take_routes(self.now);
        let took = began.elapsed();
        self.count(before, took);
        self.perform(actions, table);
    }

    fn settle(&mut self) {
        let before = self.state.totals;
        let began = Instant::now();
        let actions = self.state.settle(self.now);
        let table = self.state.take_routes(self.now);
        let took = began.elapsed();
        self.count(before, took);
        self.perform(actions, table);
    }

    fn count(&mut self, before: Totals, took: Duration) {
        let after = self.state.totals;
        self.most.took = self.most.took.max(took);
        self.most.reconciled = self.most.reconciled.max(after.reconciled - before.reconciled);
        self.most.solved = self.most.solved.max(after.solved - before.solved);
        self.settles += 1;
        self.spent += took;
    }

    fn perform(&mut self, actions: Vec<Action>, table: Option<pb::WatchRoutesResponse>) {
        self.tables += usize::from(table.is_some());
        if table.is_some() {
            self.table = table;
        }
        for action in actions {
            match action {
                Action::Start(start) => self.coming.push_back((self.now + ATTACHES_AFTER, start)),
                Action::Send { session, command } => self.obey(session, *command),
                Action::End { worker_id, .. } => {
                    self.workers.remove(&worker_id);
                    let why = "ended as it was told".into();
                    self.take(Event::Exited { worker_id, why });
                }
                Action::Pace { session, heartbeat } => {
                    self.paces.insert(session, heartbeat);
                }
                Action::Welcome { .. }
                | Action::Refuse { .. }
                | Action::Close { .. }
                | Action::Adopt { .. }
                | Action::Note(_) => {}
            }
        }
    }

    fn obey(&mut self, session: u64, command: Command) {
        let worker = self
            .by_session
            .get(&session)
            .and_then(|id| self.workers.get_mut(id));
        let Some((_, replicas)) = worker else {
            return;
        };
        match command {
            Command::Assign(assign) => {
                let spec = assign.replica.unwrap();
                let report = pb::ReplicaReport {
                    replica_id: spec.replica_id.clone(),
                    state: pb::ReplicaState::Running.into(),
                    light: spec.light.clone().unwrap().version,
                    model: Some(pb::ModelInfo {
                        digest: "0".repeat(64),
                        pipeline_class: "StableDiffusionPipeline".into(),
                        schedulers: vec!["ddim".into(), "euler".into(), "dpmpp_2m".into()],
                        ..pb::ModelInfo::default()
                    }),
                    spec: Some(spec.clone()),
                    ..pb::ReplicaReport::default()
                };
                replicas.insert(spec.replica_id, report);
            }
            Command::Drain(drain) => drop(replicas.remove(&drain.replica_id)),
            Command::Welcome(_) | Command::Shutdown(_) | Command::Reconfigure(_) => {}
        }
    }

    fn attach(&mut self, start: &Start) {
        self.sessions += 1;
        let kind = match start.kind {
            Kind::Preprocess => pb::WorkerKind::Preprocess,
            Kind::Inference => pb::WorkerKind::Inference,
        };
        let hello = pb::Hello {
            worker_id: start.worker_id.clone(),
            kind: kind.into(),
            address: format!("10.0.{}.{}:7200", self.sessions / 250, self.sessions % 250),
            resources: Some(pb::Resources {
                cpus: f64::from(PER_WORKER),
                ..pb::Resources::default()
            }),
            labels: start.labels.clone().into_iter().collect(),
            ..pb::Hello::default()
        };
        self.workers
            .insert(start.worker_id.clone(), (self.sessions, BTreeMap::new()));
        self.by_session.insert(self.sessions, start.worker_id.clone());
        self.take(Event::Hello {
            session: self.sessions,
            hello,
        });
    }

    fn heartbeat(&mut self, id: &str) {
        let (session, replicas) = &self.workers[id];
        let heartbeat = pb::Heartbeat {
            replicas: replicas.values().cloned().collect(),
            resident_bytes: 1,
        };
        self.take(Event::Heartbeat {
            session: *session,
            heartbeat,
        });
    }

    /// Lets so much time pass; heartbeats come evenly spread over each second.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut beats: VecDeque<String> = VecDeque::new();
        while self.now < end {
            while self.coming.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, start) = self.coming.pop_front().unwrap();
                self.attach(&start);
            }
            if beats.is_empty() {
                beats = self.workers.keys().cloned().collect();
            }
            // A hundredth of a second, a hundredth of the heartbeats.
            for _ in 0..self.workers.len().div_ceil(100) {
                if let Some(id) = beats.pop_front()
                    && self.workers.contains_key(&id)
                {
                    self.heartbeat(&id);
                }
            }
            self.settle();
            self.now += ms(10);
        }
    }

    fn routed(&self) -> usize {
        let table = self.table.as_ref().unwrap();
        let deployments = table.applications.iter().flat_map(|app| &app.deployments);
        deployments.map(|deployment| deployment.replicas.len()).sum()
    }

    fn running(&self) -> bool {
        let applications = self.state.status(self.now).applications;
        applications
            .iter()
            .all(|app| app.state() == ApplicationState::Running)
    }

    /// Begins to measure anew and gives what was measured.
    fn measured(&mut self, what: &str) -> Most {
        let mean = self.spent / self.settles.max(1);
        println!(
            "{what}: {} settlings, mean {mean:?}, longest {:?}; at most {} deployments looked at and {} problems solved at once",
            self.settles, self.most.took, self.most.reconciled, self.most.solved
        );
        (self.settles, self.spent) = (0, Duration::ZERO);
        std::mem::take(&mut self.most)
    }
}

#[test]
fn a_thousand_workers_are_kept_with_work_that_follows_what_happens_and_not_what_there_is() {
    let mut mesh = Mesh::new();
    mesh.run(Duration::from_secs(4));
    assert_eq!(mesh.workers.len(), 1_000);
    assert_eq!(mesh.paces.len(), 1_000);
    assert!(mesh.paces.values().all(|pace| *pace == HEARTBEAT * 8));
    assert_eq!(mesh.routed(), 5_000);
    assert!(mesh.running());
    mesh.measured("start of 5,000 replicas on 1,000 workers");

    // Nothing happens but heartbeats.
    let (before, tables) = (mesh.state.totals, mesh.tables);
    mesh.run(Duration::from_secs(4));
    mesh.measured("heartbeats of 1,000 workers");
    let after = mesh.state.totals;
    assert_eq!(
        (after.solved, after.placements),
        (before.solved, before.placements)
    );
    // Once each replica has passed its gate.
    let passed = after.reconciled - before.reconciled;
    mesh.run(Duration::from_secs(2));
    assert_eq!(mesh.state.totals, after, "{passed} passed their gates before");
    assert_eq!(mesh.tables, tables, "no table is made for nothing");
    mesh.measured("idle");

    // A worker dies: its five replicas are placed again, and every proxy is told, within a second.
    let victim = mesh.workers.keys().next().unwrap().clone();
    let lost: BTreeSet<String> = mesh.workers.remove(&victim).unwrap().1.into_keys().collect();
    let (at, placements) = (mesh.now, mesh.state.totals.placements);
    mesh.take(Event::Exited {
        worker_id: victim,
        why: "ended with signal: 9".into(),
    });
    while mesh.routed() == 5_000 {
        mesh.settle();
        mesh.now += ms(10);
    }
    let told = mesh.now - at;
    assert!(told < Duration::from_secs(1), "{told:?}");
    mesh.run(Duration::from_secs(3));
    assert_eq!(mesh.routed(), 5_000);
    assert_eq!(mesh.state.totals.placements, placements + 5, "nothing else moves");
    let endpoints = mesh.table.clone().unwrap();
    let all = endpoints.applications.iter().flat_map(|app| &app.deployments);
    assert!(
        all.flat_map(|d| &d.replicas)
            .all(|replica| !lost.contains(&replica.replica_id))
    );
    println!("a lost worker left the table after {told:?} of the mesh's time");
    mesh.measured("loss of a worker");

    // One application of ten is updated.
    let mut next = intent("next");
    next.resource_version = 2;
    mesh.take(Event::Intend(Arc::new(next)));
    mesh.measured("an intent that updates one application of ten");
    let others = mesh.state.totals.placements;
    let began = mesh.now;
    while mesh
        .state
        .deployments
        .values()
        .any(model::Deployment::is_updating)
    {
        // A whole second: every worker sends a heartbeat in it.
        mesh.run(Duration::from_secs(1));
        assert!(mesh.now - began < Duration::from_secs(60));
    }
    println!("it took {:?} of the mesh's time", mesh.now - began);
    // The last old ones leave the table, and it goes out.
    mesh.run(Duration::from_secs(3));
    assert!(mesh.running());
    assert_eq!(mesh.routed(), 5_000);
    assert_eq!(mesh.state.totals.placements, others + u64::from(PIPELINES));
    mesh.measured("update of 490 replicas");
    let began = Instant::now();
    let status = mesh.state.status(mesh.now);
    println!("status of everything: {:?}", began.elapsed());
    assert_eq!(status.workers.len(), mesh.workers.len());
}
