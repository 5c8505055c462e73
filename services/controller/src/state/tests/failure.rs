use mobula_proto::control::v1::{ApplicationState, ReplicaState, WorkerKind};

use super::{super::*, world::*};

fn two_inference_workers() -> World {
    let mut world = World::settled(1);
    world.add("p", WorkerKind::Preprocess, 2.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    world.add("b", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    assert_eq!(
        world.workers["a"].replicas.len(),
        1,
        "nothing moves because a worker is added"
    );
    world
}

#[test]
fn the_replica_of_a_silent_worker_stays_routed_until_the_lease_ends_and_is_then_placed_elsewhere() {
    let mut world = two_inference_workers();
    let before = world.workers["p"].replicas.clone();
    world.workers.get_mut("a").unwrap().silent = true;
    world.run(ms(2_900));
    assert_eq!(world.routed(1), ["10.0.0.2:7200"]);
    world.run(ms(400));
    assert_eq!(world.workers["b"].replicas.len(), 1);
    assert_eq!(world.routed(1), ["10.0.0.3:7200"]);
    assert_eq!(world.state.totals.lease_expiries, 1);
    assert_eq!(world.workers["p"].replicas, before, "nothing else moves");
}

#[test]
fn a_worker_that_closed_its_stream_has_one_heartbeat_to_dial_again() {
    let mut world = two_inference_workers();
    world.lose("a", End::Closed);
    world.run(ms(900));
    assert!(world.workers["b"].replicas.is_empty());
    world.hello("a");
    world.run(ms(5_000));
    assert!(world.workers["b"].replicas.is_empty(), "it came back in time");
    world.lose("a", End::Closed);
    world.run(ms(1_200));
    assert_eq!(world.workers["b"].replicas.len(), 1);
}

#[test]
fn a_stream_that_we_cut_costs_nothing_within_the_lease() {
    let mut world = two_inference_workers();
    world.lose("a", End::Cut);
    world.run(ms(2_500));
    assert_eq!((world.routed(1).len(), world.workers["b"].replicas.len()), (1, 0));
    world.hello("a");
    world.run(ms(5_000));
    assert_eq!(world.workers["b"].replicas.len(), 0);
}

#[test]
fn a_process_that_is_seen_to_end_is_replaced_at_once() {
    let mut world = World::new(process(&[]), schema(1));
    world.settle();
    world.launch();
    world.run(ms(1_000));
    let victim = world
        .workers
        .iter()
        .find(|(_, w)| w.kind == WorkerKind::Inference)
        .unwrap()
        .0
        .clone();
    world.exit(&victim);
    world.settle();
    assert_eq!(
        world.started.len(),
        1,
        "no wait for the first that served and died"
    );
    assert_eq!(world.application().0, ApplicationState::Unhealthy);
    world.launch();
    world.run(ms(200));
    assert_eq!(world.application().0, ApplicationState::Running);
    assert_eq!(world.state.totals.lease_expiries, 0);
}

#[test]
fn processes_that_die_at_once_are_started_ever_more_slowly_and_the_status_says_so() {
    let mut world = World::new(process(&[]), schema(1));
    let mut starts = Vec::new();
    for _ in 0..160 {
        world.settle();
        for (id, kind) in std::mem::take(&mut world.started) {
            if kind == Kind::Inference {
                starts.push(world.now.as_secs());
                world.exit(&id);
            }
        }
        world.now += ms(500);
    }
    assert_eq!(starts, [0, 1, 3, 7, 15, 31, 61]);
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::DeployFailed);
    assert!(
        message.contains("the last inference worker ended with exit status: 1 after 0.1 s"),
        "{message}"
    );
}

#[test]
fn a_replica_that_fails_is_tried_again_after_1_2_4_up_to_30_seconds() {
    let mut world = World::settled(1);
    world.add("p", WorkerKind::Preprocess, 2.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.workers.get_mut("a").unwrap().outcome =
        (ReplicaState::Failed, "models/x/unet/model.onnx is missing");
    let mut tries = vec![];
    let begin = world.now;
    while world.now - begin < Duration::from_secs(100) {
        let before = world.assigned;
        world.run(ms(100));
        if world.assigned > before {
            tries.push((world.now - begin).as_secs());
        }
    }
    assert_eq!(
        tries.len(),
        8,
        "both deployments at once, then 1, 2, 4, 8, 16, 30, 30: {tries:?}"
    );
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::DeployFailed);
    assert!(message.contains("times in a row"), "{message}");
    assert!(
        message.contains("models/x/unet/model.onnx is missing"),
        "{message}"
    );
    assert!(
        world.workers["a"].replicas.is_empty(),
        "what failed is cleared away"
    );

    world.workers.get_mut("a").unwrap().outcome = (ReplicaState::Running, "");
    world.run(Duration::from_secs(31));
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
}

#[test]
fn two_failures_are_not_yet_a_failed_application_and_one_that_ran_is_unhealthy() {
    let mut world = two_inference_workers();
    assert_eq!(world.application().0, ApplicationState::Running);
    for id in ["a", "b"] {
        let worker = world.workers.get_mut(id).unwrap();
        worker.outcome = (ReplicaState::Failed, "device lost");
        for report in worker.replicas.values_mut() {
            report.state = ReplicaState::Failed.into();
            report.message = "device lost".into();
        }
    }
    world.run(ms(200));
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::Unhealthy);
    assert!(
        message.contains("failed, is tried again in 1 s: device lost"),
        "{message}"
    );
    assert!(world.routed(1).is_empty());
    let replica = &world.state.status(world.now).applications[0].deployments[1].replicas[0];
    assert_eq!(replica.state(), ReplicaState::Failed);
    world.run(Duration::from_secs(20));
    assert_eq!(world.application().0, ApplicationState::Unhealthy, "it ran once");
}

#[test]
fn a_worker_that_drains_by_itself_is_left_at_once_and_gets_nothing_new() {
    let mut world = two_inference_workers();
    for report in world.workers.get_mut("a").unwrap().replicas.values_mut() {
        report.state = ReplicaState::Stopping.into();
    }
    world.run(ms(100));
    assert_eq!(world.workers["b"].replicas.len(), 1);
    assert_eq!(world.routed(1), ["10.0.0.3:7200"]);
    assert_eq!(world.drained, 0, "it drains already");
    world.workers.get_mut("a").unwrap().replicas.clear();
    world.run(ms(100));
    world.lose("a", End::Closed);
    world.run(ms(100));
    assert_eq!(world.state.status(world.now).workers.len(), 2, "it left");
}

#[test]
fn a_worker_that_was_started_anew_under_its_old_id_gets_its_replica_again() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    world.lose("a", End::Closed);
    let worker = world.workers.get_mut("a").unwrap();
    worker.replicas.clear();
    (worker.pid, worker.address) = (4_711, "10.0.0.9:7200".into());
    world.hello("a");
    world.run(ms(200));
    assert_eq!(world.workers["a"].replicas.len(), 1);
    assert_eq!(world.routed(1), ["10.0.0.9:7200"]);
}

#[test]
fn a_controller_that_was_not_running_blames_no_worker() {
    let mut world = two_inference_workers();
    world.now += Duration::from_secs(60);
    world.event(Event::Stalled(Duration::from_secs(60)));
    world.settle();
    assert_eq!(world.state.totals.lease_expiries, 0);
    world.run(ms(1_000));
    assert!(world.workers["b"].replicas.is_empty());
}

#[test]
fn a_process_that_does_not_attach_is_ended_and_another_is_started() {
    let mut world = World::new(process(&[]), schema(1));
    world.settle();
    let first = world.started.clone();
    world.started.clear();
    world.run(Duration::from_secs(31));
    assert_eq!(world.ended.len(), 2);
    for (id, _) in first {
        world.exit(&id);
    }
    world.run(Duration::from_secs(2));
    assert_eq!(world.started.len(), 2);
}

#[test]
fn a_replica_that_failed_on_one_worker_is_tried_on_another() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.add("b", WorkerKind::Inference, 2.0);
    world.workers.get_mut("a").unwrap().outcome = (ReplicaState::Failed, "no such folder");
    world.run(ms(1_500));
    assert_eq!(world.workers["b"].replicas.len(), 1);
    assert_eq!(world.routed(1), ["10.0.0.2:7200"]);
}
