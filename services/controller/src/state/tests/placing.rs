use mobula_proto::control::v1::{ApplicationState, ReplicaState, WorkerKind};

use super::{super::*, world::*};

#[test]
fn an_application_is_placed_on_the_workers_that_attach() {
    let mut world = World::settled(2);
    world.add("p", WorkerKind::Preprocess, 2.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.add("b", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    let placed = world.placed();
    assert!(
        placed.values().all(|replicas| replicas.len() == 1),
        "spread: {placed:?}"
    );
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
    assert_eq!(world.routed(0), ["10.0.0.1:7200"]);
    let mut pipelines = world.routed(1);
    pipelines.sort();
    assert_eq!(pipelines, ["10.0.0.2:7200", "10.0.0.3:7200"]);
}

#[test]
fn a_replica_without_a_worker_says_what_to_start() {
    let mut world = World::settled(1);
    world.add("p", WorkerKind::Preprocess, 2.0);
    world.run(ms(200));
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::Deploying);
    assert_eq!(
        message,
        "pipeline: 0 of 1 replicas run: no inference worker is attached: start one with \
         mobula-inference --controller 127.0.0.1:7265"
    );
}

#[test]
fn a_replica_that_does_not_fit_says_what_is_lacking() {
    let mut world = World::settled(3);
    world.add("p", WorkerKind::Preprocess, 1.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    assert_eq!(world.workers["a"].replicas.len(), 2);
    let (_, message) = world.application();
    assert_eq!(
        message,
        "pipeline: 2 of 3 replicas run: no inference worker has 1 free CPU: the largest has 0 free of 2; \
         add a worker or lower num_cpus"
    );
    world.add("b", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    assert_eq!(world.application().0, ApplicationState::Running);
}

#[test]
fn a_fresh_process_mesh_starts_all_workers_at_once_and_publishes_at_once() {
    let mut world = World::new(process(&[]), schema(2));
    world.settle();
    let mut kinds: Vec<Kind> = world.started.iter().map(|(_, kind)| *kind).collect();
    kinds.sort();
    assert_eq!(kinds, [Kind::Preprocess, Kind::Inference, Kind::Inference]);
    assert_eq!(
        world.tables.len(),
        1,
        "an empty table tells the proxies that the application exists"
    );
    world.run(ms(300));
    assert_eq!(world.started.len(), 3, "what is on its way is not started twice");
    assert!(
        world
            .application()
            .1
            .contains("its preprocess worker is being started")
    );
    world.launch();
    world.run(ms(200));
    assert!(
        world.placed().values().all(|replicas| replicas.len() == 1),
        "one replica per process"
    );
    assert_eq!(world.application().0, ApplicationState::Running);
}

#[test]
fn no_more_processes_are_started_than_allowed() {
    let mut world = World::new(process(&[]), schema(20));
    world.run(ms(200));
    assert_eq!(world.started.len(), 8);
    world.launch();
    world.run(ms(200));
    assert!(world.started.is_empty());
    assert!(
        world
            .application()
            .1
            .contains("8 workers run already, as many as --max-workers allows")
    );
}

#[test]
fn the_one_process_that_is_allowed_is_told_as_one() {
    let mut supply = process(&[]);
    let Supply::Process { max_workers, .. } = &mut supply else {
        panic!("it starts processes");
    };
    *max_workers = 1;
    let mut world = World::new(supply, schema(1));
    world.run(ms(200));
    world.launch();
    world.run(ms(200));
    let told = world.application().1;
    assert!(
        told.contains("one worker runs already, as many as --max-workers allows"),
        "{told}"
    );
}

#[test]
fn a_process_that_is_not_needed_any_more_leaves_after_a_while() {
    let mut world = World::new(process(&[]), schema(1));
    world.settle();
    world.launch();
    world.run(ms(200));
    let mut extra = world
        .workers
        .values()
        .find(|w| w.kind == WorkerKind::Inference)
        .unwrap()
        .clone();
    extra.labels.push((PROVIDER_LABEL.into(), "process".into()));
    (extra.pid, extra.address) = (999, "10.0.0.99:1".into());
    extra.replicas.clear();
    world.workers.insert("extra".into(), extra);
    world.hello("extra");
    assert_eq!(world.adopted, ["extra"]);
    world.run(Duration::from_secs(9));
    assert!(world.ended.is_empty());
    world.run(Duration::from_secs(2));
    assert_eq!(world.ended, [("extra".to_owned(), true)]);
    assert!(world.workers["extra"].told_to_leave);
    world.exit("extra");
    world.run(Duration::from_secs(2));
    assert!(world.started.is_empty(), "its end was asked for");
}

#[test]
fn a_worker_that_is_none_of_the_providers_holds_no_place_for_one_that_is() {
    let mut world = World::new(process(&[]), schema(1));
    world.settle();
    world.launch();
    world.run(ms(200));
    let own = world.state.owned();
    let mut liar = world.workers.values().next().unwrap().clone();
    liar.labels.push((PROVIDER_LABEL.into(), "process".into()));
    (liar.pid, liar.address) = (999, "10.0.0.99:1".into());
    liar.replicas.clear();
    world.workers.insert("liar".into(), liar);
    world.hello("liar");
    assert_eq!(world.adopted, ["liar"]);
    world.event(Event::Foreign {
        worker_id: "liar".into(),
    });
    assert_eq!(world.state.owned(), own);
    world.workers.get_mut("liar").unwrap().silent = true;
    world.run(Duration::from_secs(4));
    assert_eq!(world.state.workers.len(), own, "its lease is over");
    assert_eq!(world.state.owned(), own, "and nobody waits for it to come back");
}

#[test]
fn a_second_worker_with_the_id_of_a_live_one_is_refused() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    let first = world.workers["a"].clone();
    world.workers.get_mut("a").unwrap().pid = 7;
    world.hello("a");
    assert_eq!(world.refused.len(), 1);
    assert!(world.refused[0].contains("10.0.0.1:7200"), "{}", world.refused[0]);
    world.workers.insert("a".into(), first);
    world.run(ms(200));
    assert_eq!(world.routed(1).len(), 1, "the first is not disturbed");
}

#[test]
fn the_same_worker_that_dials_again_is_let_in_at_once_and_keeps_its_replicas() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    let before = world.placed();
    world.hello("a");
    world.run(Duration::from_secs(10));
    assert!(world.refused.is_empty());
    assert_eq!((world.placed(), world.assigned), (before, 1));
}

#[test]
fn an_assignment_that_was_lost_with_its_stream_is_sent_again() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.workers.get_mut("a").unwrap().silent = true;
    world.settle();
    assert_eq!((world.assigned, world.workers["a"].replicas.len()), (1, 0));
    world.lose("a", End::Closed);
    world.workers.get_mut("a").unwrap().silent = false;
    world.hello("a");
    world.run(ms(200));
    assert_eq!((world.assigned, world.workers["a"].replicas.len()), (2, 1));
    assert_eq!(world.state.totals.placements, 1, "it was not placed again");
}

#[test]
fn changes_within_ten_milliseconds_go_out_as_one_table() {
    let mut world = World::settled(3);
    world.add("a", WorkerKind::Inference, 8.0);
    world.settle();
    let before = world.tables.len();
    for _ in 0..3 {
        world.heartbeat("a");
        world.settle();
        world.now += ms(3);
    }
    world.now += ms(10);
    world.settle();
    assert_eq!(world.routed(1).len(), 3);
    assert!(
        world.tables.len() - before <= 2,
        "{}",
        world.tables.len() - before
    );
    let versions: Vec<u64> = world.tables.iter().map(|table| table.version).collect();
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn loads_alone_go_out_once_per_heartbeat() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(500));
    let before = world.tables.len();
    for busy in 1..=30 {
        let worker = world.workers.get_mut("a").unwrap();
        for report in worker.replicas.values_mut() {
            report.load = Some(mobula_proto::common::v1::Load {
                ongoing_requests: busy,
                ..Default::default()
            });
        }
        world.run(ms(100));
    }
    let sent = world.tables.len() - before;
    assert!((2..=4).contains(&sent), "{sent} tables in 3 s");
    let next = world.state.next(world.now);
    assert!(next <= world.now + HEARTBEAT);
}

#[test]
fn stopping_tells_our_workers_to_leave_and_lets_go_of_the_others() {
    let mut world = World::new(process(&[]), schema(2));
    world.settle();
    let late = world.started.pop().unwrap().0;
    world.launch();
    world.add("other", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    world.event(Event::Stopping { grace: ms(5_000) });
    let told: Vec<&String> = world
        .workers
        .iter()
        .filter(|(_, w)| w.told_to_leave)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(told.len(), 2);
    assert!(!told.contains(&&"other".to_owned()));
    assert!(
        world.ended.contains(&(late, false)),
        "one that has not attached is ended by its process id"
    );
    assert!(
        world
            .workers
            .values()
            .all(|worker| worker.session.is_some() == worker.told_to_leave)
    );
    assert!(world.state.settle(world.now).is_empty());
}

#[test]
fn thousands_of_workers_settle_in_one_go_and_stay_where_they_are() {
    let mut world = World::settled(3_000);
    for n in 0..1_500 {
        world.add(&format!("w{n}"), WorkerKind::Inference, 2.0);
    }
    world.add("p", WorkerKind::Preprocess, 1.0);
    world.settle();
    world.run(ms(100));
    assert_eq!(world.application().0, ApplicationState::Running);
    assert!(
        world
            .workers
            .values()
            .all(|w| w.kind == WorkerKind::Preprocess || w.replicas.len() == 2)
    );
    assert_eq!(world.routed(1).len(), 3_000);
    let placed = world.state.totals.placements;
    world.exit("w7");
    world.add("new", WorkerKind::Inference, 2.0);
    world.run(ms(100));
    assert_eq!(
        world.state.totals.placements,
        placed + 2,
        "a loss moves what was lost"
    );
    assert_eq!(world.workers["new"].replicas.len(), 2);
    let report = world.state.status(world.now);
    assert_eq!(report.workers.len(), 1_501);
    assert_eq!(
        report.applications[0].deployments[1].replicas[0].state(),
        ReplicaState::Running
    );
}

#[test]
fn proxies_are_told_where_replicas_are() {
    let mut world = World::settled(1);
    world.add("w1", WorkerKind::Preprocess, 4.0);
    world.add("w2", WorkerKind::Inference, 4.0);
    world.workers.get_mut("w2").unwrap().labels = vec![
        ("topology.kubernetes.io/zone".to_owned(), "eu-1a".to_owned()),
        ("mobula.io/node".to_owned(), "n7".to_owned()),
    ];
    world.hello("w2");
    world.run(HEARTBEAT * 3);
    let table = world.tables.last().unwrap();
    let deployments = &table.applications[0].deployments;
    let places: Vec<_> = deployments
        .iter()
        .flat_map(|deployment| &deployment.replicas)
        .map(|replica| (replica.zone.as_str(), replica.node.as_str()))
        .collect();
    assert!(
        places.contains(&("eu-1a", "n7")) && places.contains(&("", "")),
        "{places:?}"
    );
}
