use mobula_proto::control::v1::{
    ApplicationState, DeploymentState, DeploymentTrigger, ReplicaState, RolloutState, WorkerKind,
};

use super::{super::*, world::*};

/// So many running pipelines on workers with this much room each.
fn mesh(pipelines: u32, workers: usize, cpus: f64) -> World {
    let mut world = World::settled(pipelines);
    world.add("p", WorkerKind::Preprocess, 8.0);
    for w in 0..workers {
        world.add(&format!("w{w}"), WorkerKind::Inference, cpus);
    }
    world.run(ms(3_500));
    assert_eq!(world.application().0, ApplicationState::Running);
    world
}

/// Lets time pass and gives the fewest replicas that were routed meanwhile, and the most that there were.
fn watch(world: &mut World, time: Duration) -> (usize, usize) {
    let end = world.now + time;
    let (mut fewest, mut most) = (usize::MAX, 0);
    while world.now < end {
        world.run(ms(100));
        fewest = fewest.min(world.routed(1).len());
        most = most.max(world.workers.values().map(|w| w.replicas.len()).sum::<usize>() - 1);
    }
    (fewest, most)
}

fn models(world: &World) -> Vec<String> {
    let reports = world.workers.values().flat_map(|w| w.replicas.values());
    let mut models: Vec<String> = reports
        .map(|report| report.spec.as_ref().unwrap().model.clone())
        .filter(|model| !model.is_empty())
        .collect();
    models.sort();
    models
}

fn state(world: &World) -> RolloutState {
    world.deployment(1).rollout.unwrap().state()
}

#[test]
fn a_new_replica_has_run_for_a_while_before_an_old_one_leaves() {
    let mut world = mesh(1, 1, 2.0);
    world.intend(model(1, "next"));
    world.run(ms(2_800));
    assert_eq!((world.routed(1).len(), world.drained), (2, 0));
    let rollout = world.deployment(1).rollout.unwrap();
    assert_eq!(
        (rollout.state(), rollout.updated, rollout.target, rollout.outdated),
        (RolloutState::Progressing, 1, 1, 1)
    );
    assert_eq!(world.application().0, ApplicationState::Deploying);
    world.run(ms(800));
    assert_eq!((world.routed(1).len(), world.drained), (1, 1));
    assert_eq!(state(&world), RolloutState::Complete);
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
    assert_eq!(models(&world).iter().filter(|m| *m == "next").count(), 1);
}

#[test]
fn an_update_goes_in_waves_and_never_below_the_target() {
    let mut world = mesh(10, 6, 2.0);
    world.intend(model(10, "next"));
    let (fewest, most) = watch(&mut world, Duration::from_secs(60));
    assert_eq!((fewest, most), (10, 12), "a fifth more than wanted, at most");
    assert_eq!((state(&world), world.drained), (RolloutState::Complete, 10));
    assert_eq!(
        world.deployment(1).trigger(),
        DeploymentTrigger::ConfigUpdateCompleted
    );
}

#[test]
fn without_room_for_more_one_at_a_time_leaves_first_and_the_status_says_so() {
    let mut world = mesh(3, 3, 1.0);
    world.intend(model(3, "next"));
    world.run(Duration::from_secs(8));
    assert_eq!(world.drained, 0, "room may come");
    assert!(
        world
            .application()
            .1
            .contains("has no place beside those that run"),
        "{}",
        world.application().1
    );
    let (fewest, most) = watch(&mut world, Duration::from_secs(70));
    assert_eq!((fewest, most), (2, 3));
    assert_eq!(state(&world), RolloutState::Complete);

    let mut alone = mesh(1, 1, 1.0);
    alone.intend(model(1, "next"));
    let (fewest, _) = watch(&mut alone, Duration::from_secs(20));
    assert_eq!((fewest, state(&alone)), (0, RolloutState::Complete));
    let mut two = mesh(2, 2, 1.0);
    two.workers.get_mut("w0").unwrap().broken = Some("next".into());
    two.workers.get_mut("w1").unwrap().broken = Some("next".into());
    two.intend(model(2, "next"));
    let (fewest, _) = watch(&mut two, Duration::from_secs(60));
    assert_eq!(fewest, 1, "the last one stays");
    assert_eq!(state(&two), RolloutState::RolledBack);
    assert_eq!(two.routed(1).len(), 2);
}

#[test]
fn an_update_that_forces_its_way_says_so() {
    let mut world = mesh(3, 3, 1.0);
    world.intend(model(3, "next"));
    world.run(Duration::from_secs(12));
    let rollout = world.deployment(1).rollout.unwrap();
    assert!(
        rollout.message.contains("one at a time left"),
        "{}",
        rollout.message
    );
}

#[test]
fn new_replicas_that_fail_bring_the_version_before_back_and_cost_no_replica_that_runs() {
    let mut world = mesh(2, 3, 2.0);
    let before = world.placed();
    for worker in world.workers.values_mut() {
        worker.broken = Some("broken".into());
    }
    world.intend(model(2, "broken"));
    let (fewest, _) = watch(&mut world, Duration::from_secs(10));
    assert_eq!(fewest, 2);
    assert_eq!(world.rolled_back.len(), 1);
    assert!(
        world.rolled_back[0].contains("no such model"),
        "{}",
        world.rolled_back[0]
    );
    assert_eq!(
        (world.placed(), state(&world)),
        (before, RolloutState::RolledBack)
    );
    let status = world.deployment(1);
    assert_eq!(
        (status.state(), status.trigger()),
        (
            DeploymentState::DeployFailed,
            DeploymentTrigger::ReplicaStartupFailed
        )
    );
    let (application, message) = world.application();
    assert_eq!(application, ApplicationState::DeployFailed);
    assert!(
        message.contains("was rolled back after: no such model"),
        "{message}"
    );

    // The intent goes back too, as the ledger writes it.
    world.intend(schema(2));
    world.run(ms(300));
    assert_eq!(world.application().0, ApplicationState::Running);
    assert_eq!(state(&world), RolloutState::RolledBack);
    assert!(world.deployment(1).message.contains("was rolled back"));
}

#[test]
fn what_was_turned_away_is_tried_again_only_when_it_is_deployed_again() {
    let mut world = mesh(1, 2, 2.0);
    for worker in world.workers.values_mut() {
        worker.broken = Some("broken".into());
    }
    let broken = model(1, "broken");
    world.intend(broken.clone());
    world.run(Duration::from_secs(10));
    assert_eq!(world.rolled_back.len(), 1);
    // Another application changes; this one says the same.
    world.intend(broken.clone());
    world.run(Duration::from_secs(10));
    assert_eq!(world.rolled_back.len(), 1);
    for worker in world.workers.values_mut() {
        worker.broken = None;
    }
    let mut again = broken;
    let meta = crate::intent::Meta {
        resource_version: 9,
        ..Default::default()
    };
    again.applications.insert("default".into(), meta);
    world.intend(again);
    world.run(Duration::from_secs(10));
    assert_eq!(state(&world), RolloutState::Complete);
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
}

#[test]
fn an_update_that_fails_goes_back_to_what_runs_though_it_has_not_proven_itself_yet() {
    let mut world = World::settled(1);
    world.add("p", WorkerKind::Preprocess, 8.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.add("b", WorkerKind::Inference, 2.0);
    world.run(ms(300));
    let before = world.placed();
    for worker in world.workers.values_mut() {
        worker.broken = Some("broken".into());
    }
    world.intend(model(1, "broken"));
    let (fewest, _) = watch(&mut world, Duration::from_secs(10));
    assert_eq!((fewest, world.rolled_back.len()), (1, 1));
    assert_eq!(
        (world.placed(), state(&world)),
        (before, RolloutState::RolledBack)
    );
}

#[test]
fn a_first_deployment_that_fails_has_nothing_to_go_back_to_and_heals() {
    let mut world = World::settled(1);
    world.add("p", WorkerKind::Preprocess, 8.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.workers.get_mut("a").unwrap().outcome = (ReplicaState::Failed, "no such model");
    world.run(Duration::from_secs(20));
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::DeployFailed);
    assert!(message.contains("no such model"), "{message}");
    let route = &world.tables.last().unwrap().applications[0].deployments[1];
    assert!(!route.expected);
    assert!(route.why_none.contains("no such model"), "{}", route.why_none);
    assert!(world.rolled_back.is_empty());
    world.workers.get_mut("a").unwrap().outcome = (ReplicaState::Running, "");
    world.run(Duration::from_secs(31));
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
}

#[test]
fn a_newer_intent_amid_an_update_takes_its_place() {
    let mut world = mesh(3, 5, 2.0);
    world.intend(model(3, "second"));
    world.run(Duration::from_secs(4));
    assert!(models(&world).contains(&"second".to_owned()));
    world.intend(model(3, "third"));
    let (fewest, most) = watch(&mut world, Duration::from_secs(30));
    assert!(fewest >= 3 && most <= 5, "{fewest} to {most}");
    assert_eq!(state(&world), RolloutState::Complete);
    assert_eq!(models(&world).iter().filter(|m| *m == "third").count(), 3);

    // Back to what ran, before anything of the next was healthy.
    let placed = world.placed();
    world.intend(model(3, "fourth"));
    world.run(ms(500));
    world.intend(model(3, "third"));
    let (fewest, _) = watch(&mut world, Duration::from_secs(10));
    assert_eq!((fewest, world.placed()), (3, placed));
    assert_eq!(state(&world), RolloutState::Complete);
}

#[test]
fn an_update_that_also_scales_ends_with_the_new_number() {
    let mut world = mesh(4, 5, 2.0);
    world.intend(model(2, "next"));
    let (fewest, most) = watch(&mut world, Duration::from_secs(30));
    assert!(fewest >= 2 && most <= 5, "{fewest} to {most}");
    assert_eq!(world.routed(1).len(), 2);
    world.intend(model(6, "after"));
    let (fewest, most) = watch(&mut world, Duration::from_secs(30));
    // One that was told to stop is still there for a moment.
    assert!(fewest >= 2 && most <= 8, "{fewest} to {most}");
    assert_eq!(
        (world.routed(1).len(), state(&world)),
        (6, RolloutState::Complete)
    );
}

#[test]
fn a_replica_is_told_to_stop_only_after_a_table_without_it_however_late_that_is() {
    let mut world = mesh(2, 1, 4.0);
    world.intend(schema(1));
    let actions = world.state.settle(world.now);
    assert!(actions.is_empty());
    // The loop was held up: the time for the drain has passed, and no table was made.
    world.now += Duration::from_secs(1);
    assert!(world.state.settle(world.now).is_empty());
    let table = world.state.take_routes(world.now).unwrap();
    assert_eq!(table.applications[0].deployments[1].replicas.len(), 1);
    world.now += ms(100);
    assert_eq!(world.state.settle(world.now).len(), 1);
}
