use mobula_proto::control::v1::{ApplicationState, ReplicaState, RolloutState, WorkerKind};

use super::{super::*, world::*};

fn running() -> World {
    let mut world = World::settled(2);
    world.add("p", WorkerKind::Preprocess, 2.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.add("b", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    assert_eq!(world.application().0, ApplicationState::Running);
    world
}

#[test]
fn a_restarted_controller_adopts_what_reports_in_and_moves_nothing() {
    let mut world = running();
    let before = world.placed();
    world.restart_controller(external(), schema(2));
    world.hello("b");
    world.run(ms(300));
    assert_eq!(world.assigned, 0, "the others may still come");
    assert!(
        world.tables.is_empty(),
        "a table without them would make proxies forget them"
    );
    assert!(
        world
            .application()
            .1
            .contains("workers of the controller before this one have")
    );
    world.hello("a");
    world.hello("p");
    world.run(ms(100));
    assert_eq!(
        world.tables.len(),
        1,
        "nothing is missing, so nothing is waited for"
    );
    assert_eq!(world.routed(1).len(), 2);
    world.run(Duration::from_secs(10));
    assert_eq!((world.placed(), world.assigned, world.drained), (before, 0, 0));
    assert_eq!(world.application().0, ApplicationState::Running);
}

#[test]
fn an_update_that_comes_before_the_workers_are_back_goes_back_too_when_it_fails() {
    let mut world = running();
    let before = world.placed();
    world.restart_controller(external(), schema(2));
    world.intend(model(2, "broken"));
    for id in ["p", "a", "b"] {
        world.workers.get_mut(id).unwrap().broken = Some("broken".into());
        world.hello(id);
    }
    world.run(Duration::from_secs(10));
    assert_eq!(world.rolled_back.len(), 1, "{:?}", world.application());
    assert_eq!(world.placed(), before);
    assert_eq!(
        world.deployment(1).rollout.unwrap().state(),
        RolloutState::RolledBack
    );
}

#[test]
fn a_worker_that_does_not_come_back_is_replaced_when_the_grace_is_over() {
    let mut world = running();
    world.restart_controller(external(), schema(2));
    world.hello("b");
    world.hello("p");
    world.run(ms(2_900));
    assert_eq!(world.assigned, 0);
    world.run(ms(300));
    assert_eq!(
        world.workers["b"].replicas.len(),
        2,
        "the lost one's replica joins it"
    );
}

#[test]
fn a_process_provider_that_remembers_its_workers_waits_for_them_and_no_longer() {
    let mut world = World::new(process(&[]), schema(1));
    world.settle();
    world.launch();
    world.run(ms(200));
    let before = world.placed();
    let known: Vec<(String, Kind)> = world
        .workers
        .iter()
        .map(|(id, w)| {
            (
                id.clone(),
                if w.kind == WorkerKind::Inference {
                    Kind::Inference
                } else {
                    Kind::Preprocess
                },
            )
        })
        .collect();
    let known: Vec<(&str, Kind)> = known.iter().map(|(id, kind)| (id.as_str(), *kind)).collect();
    world.restart_controller(process(&known), schema(1));
    world.run(ms(100));
    assert!(world.started.is_empty());
    for (id, _) in &known {
        world.hello(id);
    }
    world.run(ms(100));
    assert_eq!(
        (world.placed(), world.started.len(), world.adopted.len()),
        (before, 0, 0)
    );
    assert_eq!(world.application().0, ApplicationState::Running);

    // The same, but one of them dies while the controller is away.
    world.restart_controller(process(&known), schema(1));
    world.hello(known[0].0);
    world.exit(known[1].0);
    world.settle();
    assert_eq!(
        world.started.len(),
        1,
        "everybody is accounted for: no need to wait"
    );
}

#[test]
fn what_the_intent_does_not_want_is_drained() {
    let mut world = running();
    let mut other = schema(1);
    other.config.applications[0].name = "other".into();
    world.restart_controller(external(), other);
    for id in ["a", "b", "p"] {
        world.hello(id);
    }
    assert_eq!(world.drained, 3);
    world.run(ms(3_500));
    assert_eq!(world.application().0, ApplicationState::Running);
    assert_eq!(world.placed().values().map(Vec::len).sum::<usize>(), 2);
}

#[test]
fn a_replica_that_is_one_too_many_is_not_adopted() {
    let mut world = running();
    world.restart_controller(external(), schema(1));
    for id in ["a", "b", "p"] {
        world.hello(id);
    }
    assert_eq!(world.drained, 1);
}

#[test]
fn replicas_of_another_version_serve_until_those_that_replace_them_run() {
    let mut world = running();
    world.restart_controller(external(), model(2, "another"));
    for id in ["a", "b", "p"] {
        world.hello(id);
    }
    assert_eq!(world.drained, 0);
    world.run(ms(3_500));
    assert_eq!(world.routed(1).len(), 3, "both old ones and a new one");
    world.run(Duration::from_secs(10));
    assert_eq!(world.drained, 2);
    let rollout = world.deployment(1).rollout.unwrap();
    assert_eq!(
        (rollout.state(), rollout.updated, rollout.outdated),
        (RolloutState::Complete, 2, 0)
    );
    assert_eq!(world.application().0, ApplicationState::Running);
}

#[test]
fn a_restart_amid_an_update_that_fails_still_knows_what_to_go_back_to() {
    let mut world = running();
    for worker in world.workers.values_mut() {
        worker.broken = Some("another".into());
    }
    let before = world.placed();
    world.restart_controller(external(), model(2, "another"));
    for id in ["a", "b", "p"] {
        world.hello(id);
    }
    world.run(Duration::from_secs(20));
    assert_eq!(world.rolled_back.len(), 1);
    assert_eq!(world.placed(), before);
    assert_eq!(
        world.deployment(1).rollout.unwrap().state(),
        RolloutState::RolledBack
    );
}

#[test]
fn a_worker_back_after_its_lease_takes_its_place_again_from_a_replica_that_only_starts() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    let before = world.workers["a"].replicas.clone();
    world.add("b", WorkerKind::Inference, 2.0);
    world.workers.get_mut("b").unwrap().outcome = (ReplicaState::Starting, "loads");
    world.workers.get_mut("a").unwrap().silent = true;
    world.run(ms(3_300));
    assert_eq!(world.workers["b"].replicas.len(), 1);
    world.workers.get_mut("a").unwrap().silent = false;
    world.hello("a");
    world.run(ms(200));
    assert_eq!(world.workers["a"].replicas, before);
    assert!(world.workers["b"].replicas.is_empty());
    assert_eq!(world.routed(1), ["10.0.0.1:7200"]);
}

#[test]
fn a_worker_back_after_its_replacement_runs_is_drained_and_stays_of_use() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(200));
    world.add("b", WorkerKind::Inference, 2.0);
    world.workers.get_mut("a").unwrap().silent = true;
    world.run(ms(3_500));
    world.workers.get_mut("a").unwrap().silent = false;
    world.hello("a");
    world.run(ms(200));
    assert!(world.workers["a"].replicas.is_empty());
    assert_eq!(world.workers["b"].replicas.len(), 1);
}
