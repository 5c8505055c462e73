use std::collections::BTreeSet;

use mobula_proto::control::v1::{ApplicationState, ReplicaState, WorkerKind};
use mobula_serving::place::{Match, Strategy};

use super::{super::*, world::*};

/// Gangs of two pipelines, on a node each.
fn gangs(pipelines: u32) -> Intent {
    let mut intent = schema(pipelines);
    let placing = &mut intent.config.applications[0].deployments[1].placing;
    (placing.gang, placing.gang_restart, placing.strategy) = (2, true, Strategy::StrictSpread);
    intent
}

fn mesh(pipelines: u32, workers: &[&str]) -> World {
    let mut world = World::new(external(), gangs(pipelines));
    world.gangs = true;
    world.run(HEARTBEAT * 3);
    world.add("p", WorkerKind::Preprocess, 8.0);
    for id in workers {
        world.add(id, WorkerKind::Inference, 2.0);
    }
    world.run(ms(300));
    world
}

/// The gangs that have a replica on a worker.
fn on(world: &World, worker: &str) -> BTreeSet<String> {
    let ids = world.workers[worker].replicas.keys();
    ids.map(|id| world.state.replicas[id].gang.clone()).collect()
}

#[test]
fn a_gang_is_placed_as_a_whole_or_not_at_all() {
    let mut world = mesh(2, &["a"]);
    assert!(world.workers["a"].replicas.is_empty());
    let (_, message) = world.application();
    assert!(message.contains("0 of 2 replicas run"), "{message}");
    world.add("b", WorkerKind::Inference, 2.0);
    world.run(ms(300));
    assert_eq!(world.application().0, ApplicationState::Running);
    assert_eq!(on(&world, "a").len(), 1);
    assert_eq!(on(&world, "a"), on(&world, "b"));
}

#[test]
fn a_member_that_fails_takes_its_gang_with_it_and_no_other() {
    let mut world = mesh(4, &["a", "b", "c", "d"]);
    assert_eq!(world.application().0, ApplicationState::Running);
    let (failed, gang) = {
        let id = world.workers["a"].replicas.keys().next().unwrap().clone();
        let gang = world.state.replicas[&id].gang.clone();
        (id, gang)
    };
    let others: Vec<String> = world
        .state
        .replicas
        .iter()
        .filter(|(_, replica)| replica.gang != gang)
        .map(|(id, _)| id.clone())
        .collect();
    let report = world
        .workers
        .get_mut("a")
        .unwrap()
        .replicas
        .get_mut(&failed)
        .unwrap();
    report.state = ReplicaState::Failed.into();
    world.run(ms(500));
    let members = world.state.replicas.values().filter(|r| r.gang == gang);
    assert!(
        members.clone().all(|r| !r.phase.is_running()),
        "both wait for each other"
    );
    assert!(others.iter().all(|id| world.state.replicas.contains_key(id)));
    world.run(ms(2_000));
    assert_eq!(world.application().0, ApplicationState::Running);
    assert_eq!(world.routed(1).len(), 4);
}

#[test]
fn a_restarted_controller_knows_the_gangs_again() {
    let mut world = mesh(4, &["a", "b", "c", "d"]);
    let gangs = |world: &World| {
        let mut gangs: Vec<(String, String)> = world
            .state
            .replicas
            .iter()
            .filter(|(id, _)| id.contains("#pipeline#"))
            .map(|(id, replica)| (id.clone(), replica.gang.clone()))
            .collect();
        gangs.sort();
        gangs
    };
    let before = gangs(&world);
    world.restart_controller(external(), self::gangs(4));
    world.gangs = true;
    for id in ["a", "b", "c", "d", "p"] {
        world.hello(id);
    }
    world.run(ms(5_000));
    assert_eq!(gangs(&world), before);
    assert_eq!(world.application().0, ApplicationState::Running);
    let sizes: BTreeSet<&String> = before.iter().map(|(_, gang)| gang).collect();
    assert_eq!(sizes.len(), 2);
}

#[test]
fn gangs_come_and_go_as_a_whole() {
    let mut world = mesh(2, &["a", "b", "c", "d"]);
    world.intend(gangs(3));
    world.run(ms(500));
    assert_eq!(world.routed(1).len(), 4, "whole gangs");
    world.intend(gangs(2));
    world.run(ms(500));
    assert_eq!(world.routed(1).len(), 2);
    let left: BTreeSet<String> = ["a", "b", "c", "d"]
        .iter()
        .flat_map(|id| on(&world, id))
        .collect();
    assert_eq!(left.len(), 1);
    let mut next = gangs(2);
    next.config.applications[0].deployments[1].model = "next".into();
    world.intend(next);
    world.run(Duration::from_secs(15));
    assert_eq!(world.application().0, ApplicationState::Running);
    assert_eq!(world.routed(1).len(), 2);
}

#[test]
fn labels_and_machines_are_heeded() {
    let mut intent = schema(3);
    let placing = &mut intent.config.applications[0].deployments[1].placing;
    placing
        .selector
        .0
        .insert("zone".into(), Match::parse("in(b, c)").unwrap());
    placing.per_node = Some(1);
    let mut world = World::new(external(), intent);
    world.run(HEARTBEAT * 3);
    for (id, zone, node) in [
        ("w1", "a", "m1"),
        ("w2", "b", "m2"),
        ("w3", "b", "m2"),
        ("w4", "c", "m3"),
    ] {
        world.add(id, WorkerKind::Inference, 4.0);
        let labels = [("zone", zone), ("mobula.io/node", node)];
        let worker = world.workers.get_mut(id).unwrap();
        worker.labels = labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        world.hello(id);
    }
    world.run(ms(300));
    let count = |id: &str| world.workers[id].replicas.len();
    assert_eq!(
        (count("w1"), count("w2") + count("w3"), count("w4")),
        (0, 1, 1),
        "the third has no machine"
    );
    let status = world.deployment(1);
    assert!(
        status.message.contains("2 of 3 replicas run"),
        "{}",
        status.message
    );
    let worker = &world.state.status(world.now).workers[0];
    assert_eq!(worker.labels["zone"], "a");
}
