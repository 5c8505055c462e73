//! The loop with workers that are tasks, on a paused clock.

use std::{sync::Arc, time::Duration};

use mobula_kit::Stop;
use mobula_proto::control::v1::{self as pb, ApplicationState, RolloutState};
use mobula_schema::{Config, Count, WorkerGroup};
use mobula_serving::{
    place::{Amounts, Kind, UNIT},
    scale,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{Handle, Parts, Routes, channel};
use crate::{
    intent::Intent,
    provider::fake::Fake,
    state::{Note, Settings, State, Supply},
};

const HEARTBEAT: Duration = Duration::from_millis(200);
/// Of the paused clock: nothing here takes as long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const PROXIES: usize = 50;

fn intent(pipelines: u32) -> Intent {
    let mut config = Config::of_model("fake");
    config.applications[0].deployments[1].count = Count::Fixed(pipelines);
    config.worker_groups = [("prep", Kind::Preprocess), ("infer", Kind::Inference)]
        .map(|(name, kind)| WorkerGroup {
            name: name.into(),
            kind,
            min: 0,
            max: 100,
            idle_timeout: Duration::from_secs(5),
            resources: Amounts {
                cpus: 4 * UNIT,
                ..Amounts::default()
            },
            labels: [].into(),
            replicas_per_worker: Some(4),
        })
        .into();
    Intent {
        resource_version: 1,
        config,
        ..Intent::default()
    }
}

struct Mesh {
    handle: Handle,
    intents: watch::Sender<Arc<Intent>>,
    notes: mpsc::Receiver<Note>,
    stop: Stop,
}

impl Mesh {
    fn start(intent: Intent) -> Self {
        let stop = Stop::new(Duration::from_secs(2));
        let (handle, owner, notes) = channel();
        let (intents, watched) = watch::channel(Arc::new(intent));
        let settings = Settings {
            controller_id: "test".into(),
            origin_unix_ms: 0,
            heartbeat: HEARTBEAT,
            adoption_grace: HEARTBEAT * 3,
            supply: Supply::Process {
                max_workers: 200,
                survivors: Vec::new(),
            },
        };
        let state = State::new(settings, watched.borrow().clone());
        let parts = Parts {
            state,
            welcome: pb::Welcome {
                heartbeat_interval_ms: 200,
                controller_id: "test".into(),
            },
            provider: Box::new(Fake::new(handle.clone(), stop.clone())),
            intents: watched,
        };
        stop.spawn("control loop", owner.run(parts, stop.clone()));
        Self {
            handle,
            intents,
            notes,
            stop,
        }
    }

    async fn proxies(&self) -> Vec<Routes> {
        let mut proxies = Vec::new();
        for n in 0..PROXIES {
            let proxy = pb::ProxyStatus {
                proxy_id: format!("proxy{n}"),
                ..pb::ProxyStatus::default()
            };
            proxies.push(self.handle.watch(proxy).await.unwrap().1);
        }
        proxies
    }

    async fn until(&self, right: impl Fn(&pb::ApplicationStatus) -> bool) -> pb::ApplicationStatus {
        timeout(PATIENCE, async {
            loop {
                let status = self.handle.status().await.unwrap().applications.remove(0);
                if right(&status) {
                    return status;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap()
    }

    async fn running(&self) -> pb::ApplicationStatus {
        self.until(|app| app.state() == ApplicationState::Running).await
    }

    async fn stop(self) {
        self.stop.trigger();
        timeout(PATIENCE, self.stop.wait()).await.unwrap();
    }
}

fn pipelines(table: &pb::WatchRoutesResponse) -> usize {
    table.applications[0].deployments[1].replicas.len()
}

/// Waits until the table is right and gives how long that took.
async fn told(routes: &mut Routes, right: impl Fn(&pb::WatchRoutesResponse) -> bool) -> Duration {
    let began = Instant::now();
    timeout(
        PATIENCE,
        routes.wait_for(|table| table.as_deref().is_some_and(&right)),
    )
    .await
    .unwrap()
    .unwrap();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_loss_reaches_every_proxy_well_within_a_second() {
    let mesh = Mesh::start(intent(200));
    let mut proxies = mesh.proxies().await;
    mesh.running().await;
    for routes in &mut proxies {
        told(routes, |table| pipelines(table) == 200).await;
    }
    let worker = mesh.handle.status().await.unwrap().workers.remove(0).worker_id;
    mesh.handle
        .exited(worker, "ended with signal: 9".into())
        .await
        .unwrap();
    let began = Instant::now();
    for routes in &mut proxies {
        told(routes, |table| pipelines(table) == 196).await;
    }
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "{:?}",
        began.elapsed()
    );
    mesh.running().await;
    for routes in &mut proxies {
        told(routes, |table| pipelines(table) == 200).await;
    }
    mesh.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_by_another_intent_leaves_no_proxy_without_a_replica() {
    let mesh = Mesh::start(intent(8));
    let mut routes = mesh.proxies().await.remove(0);
    mesh.running().await;
    let mut next = intent(8);
    next.resource_version = 2;
    next.config.applications[0].deployments[1].model = "next".into();
    mesh.intents.send_replace(Arc::new(next));
    let least = async {
        let mut least = usize::MAX;
        loop {
            let table = routes.borrow_and_update().clone().unwrap();
            least = least.min(pipelines(&table));
            if timeout(Duration::from_secs(3), routes.changed()).await.is_err() {
                return least;
            }
        }
    };
    assert_eq!(least.await, 8);
    let status = mesh.running().await;
    let rollout = status.deployments[1].rollout.clone().unwrap();
    assert_eq!((rollout.state(), rollout.updated), (RolloutState::Complete, 8));
    mesh.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_ledger_must_know_comes_out_as_notes() {
    let mut mesh = Mesh::start(intent(1));
    mesh.running().await;
    sleep(Duration::from_secs(2)).await;
    let mut broken = intent(1);
    broken.resource_version = 2;
    broken.config.applications[0].deployments[1].model = "broken".into();
    mesh.intents.send_replace(Arc::new(broken));
    let note = timeout(PATIENCE, mesh.notes.recv()).await.unwrap().unwrap();
    let Note::RolledBack { deployment, why, .. } = note else {
        panic!("{note:?}");
    };
    assert_eq!(deployment, "pipeline");
    assert!(why.contains("no such model"), "{why}");

    let mut scaled = intent(1);
    scaled.resource_version = 3;
    scaled.config.applications[0].deployments[1].count = Count::Auto(scale::Config {
        max: 3,
        upscale_delay: Duration::from_secs(1),
        look_back: Duration::from_secs(1),
        ..scale::Config::default()
    });
    mesh.intents.send_replace(Arc::new(scaled));
    mesh.running().await;
    let request = pb::ReportDemandRequest {
        proxy_id: "proxy".into(),
        demands: vec![pb::Demand {
            application: "default".into(),
            deployment: "pipeline".into(),
            queued: 6,
            ..pb::Demand::default()
        }],
        ..pb::ReportDemandRequest::default()
    };
    mesh.handle.demand("proxy".into(), request).await.unwrap();
    let note = timeout(PATIENCE, mesh.notes.recv()).await.unwrap().unwrap();
    let Note::Decided(decision) = note else {
        panic!("{note:?}");
    };
    assert_eq!((decision.from, decision.to), (1, 3));
    mesh.until(|app| {
        let running = app.deployments[1].replicas.iter();
        running.filter(|r| r.state() == pb::ReplicaState::Running).count() == 3
    })
    .await;
    mesh.stop().await;
}
