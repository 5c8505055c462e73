//! Workers that are tasks of this process: they attach after a while, do what they are told and say so. For tests of the loop.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use mobula_kit::Stop;
use mobula_proto::control::v1::{self as pb, attach_response::Message as Command};
use mobula_serving::place::{Kind, fraction};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Provider;
use crate::{
    owner::{Attached, Handle},
    state::Start,
};

/// The provider.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) handle: Handle,
    pub(crate) stop: Stop,
    /// What lies between the word to start and the hello.
    pub(crate) attaches_after: Duration,
    pub(crate) heartbeat: Duration,
    /// No replica of this model can be started.
    pub(crate) broken: String,
    kills: HashMap<String, CancellationToken>,
}

impl Fake {
    pub(crate) fn new(handle: Handle, stop: Stop) -> Self {
        Self {
            handle,
            stop,
            attaches_after: Duration::from_millis(300),
            heartbeat: Duration::from_millis(200),
            broken: "broken".into(),
            kills: HashMap::new(),
        }
    }
}

impl Provider for Fake {
    fn start(&mut self, worker: &Start) {
        let kill = CancellationToken::new();
        self.kills.insert(worker.worker_id.clone(), kill.clone());
        let worker = Worker {
            start: worker.clone(),
            handle: self.handle.clone(),
            heartbeat: self.heartbeat,
            broken: self.broken.clone(),
            replicas: BTreeMap::new(),
        };
        let after = self.attaches_after;
        let (id, handle) = (worker.start.worker_id.clone(), self.handle.clone());
        self.stop.spawn("fake worker", async move {
            let lives = async {
                sleep(after).await;
                worker.live().await;
            };
            tokio::select! {
                () = kill.cancelled() => {}
                () = lives => {}
            }
            let _ = handle.exited(id, "ended".into()).await;
        });
    }

    fn adopt(&mut self, _: &str, _: Kind, _: u32) {}

    fn end(&mut self, worker_id: &str, _: bool, _: Duration) {
        if let Some(kill) = self.kills.remove(worker_id) {
            kill.cancel();
        }
    }
}

struct Worker {
    start: Start,
    handle: Handle,
    heartbeat: Duration,
    broken: String,
    replicas: BTreeMap<String, pb::ReplicaReport>,
}

impl Worker {
    /// Attaches and obeys until its session ends or it is told to leave.
    async fn live(mut self) {
        let Ok(mut attached) = self.handle.attach(self.hello()).await else {
            return;
        };
        let mut beat = interval(self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = attached.commands.recv() => match command {
                    Some(Ok(response)) => {
                        if matches!(response.message, Some(Command::Shutdown(_))) {
                            return;
                        }
                        self.obey(response);
                    }
                    Some(Err(_)) | None => return,
                },
                _ = beat.tick() => {}
            }
            if self.say(&attached).await.is_err() {
                return;
            }
        }
    }

    fn hello(&self) -> pb::Hello {
        let kind = match self.start.kind {
            Kind::Preprocess => pb::WorkerKind::Preprocess,
            Kind::Inference => pb::WorkerKind::Inference,
        };
        pb::Hello {
            worker_id: self.start.worker_id.clone(),
            kind: kind.into(),
            address: format!("{}:7200", self.start.worker_id),
            resources: Some(pb::Resources {
                cpus: fraction(self.start.resources.cpus).max(1.0),
                ..pb::Resources::default()
            }),
            labels: self.start.labels.clone().into_iter().collect(),
            ..pb::Hello::default()
        }
    }

    fn obey(&mut self, response: pb::AttachResponse) {
        match response.message {
            Some(Command::Assign(pb::Assign { replica: Some(spec) })) => {
                let state = if spec.model == self.broken {
                    pb::ReplicaState::Failed
                } else {
                    pb::ReplicaState::Running
                };
                let report = pb::ReplicaReport {
                    replica_id: spec.replica_id.clone(),
                    state: state.into(),
                    message: if state == pb::ReplicaState::Failed {
                        "no such model".into()
                    } else {
                        String::new()
                    },
                    light: spec.light.clone().unwrap_or_default().version,
                    spec: Some(spec.clone()),
                    ..pb::ReplicaReport::default()
                };
                self.replicas.insert(spec.replica_id, report);
            }
            Some(Command::Drain(drain)) => drop(self.replicas.remove(&drain.replica_id)),
            Some(Command::Reconfigure(reconfigure)) => {
                if let Some(report) = self.replicas.get_mut(&reconfigure.replica_id) {
                    report.light = reconfigure.light.unwrap_or_default().version;
                }
            }
            Some(Command::Assign(_) | Command::Welcome(_) | Command::Shutdown(_)) | None => {}
        }
    }

    async fn say(&self, attached: &Attached) -> Result<(), crate::Error> {
        let heartbeat = pb::Heartbeat {
            replicas: self.replicas.values().cloned().collect(),
            resident_bytes: 1,
        };
        self.handle.heartbeat(attached.session, heartbeat).await
    }
}
