use mobula_proto::control::v1::{ApplicationState, DeploymentState, DeploymentTrigger, WorkerKind};
use mobula_schema::{Config, Count};

use super::{super::*, world::*};

fn mesh(pipelines: u32) -> World {
    let mut world = World::settled(pipelines);
    world.add("p", WorkerKind::Preprocess, 8.0);
    for id in ["a", "b", "c", "d"] {
        world.add(id, WorkerKind::Inference, 2.0);
    }
    world.run(ms(300));
    assert_eq!(world.application().0, ApplicationState::Running);
    world
}

fn with_second(mut intent: Intent) -> Intent {
    let mut second = Config::of_model("fake").applications.remove(0);
    second.name = "second".into();
    second.route_prefix = Some("/second".into());
    intent.config.applications.push(second);
    intent
}

#[test]
fn the_same_intent_again_changes_nothing() {
    let mut world = mesh(2);
    let (placed, tables) = (world.placed(), world.tables.len());
    world.intend(schema(2));
    world.run(ms(5_000));
    assert_eq!(
        (world.placed(), world.drained, world.reconfigured),
        (placed, 0, 0)
    );
    assert_eq!(world.tables.len(), tables, "its table is the one that they have");
    assert_eq!(world.application().0, ApplicationState::Running);
    assert_eq!(world.state.status(world.now).resource_version, 2);
}

#[test]
fn an_application_comes_and_goes_beside_another_that_is_not_touched() {
    let mut world = mesh(2);
    let before = world.placed();
    world.intend(with_second(schema(2)));
    world.run(ms(300));
    let status = world.state.status(world.now);
    assert_eq!(status.applications.len(), 2);
    assert_eq!(status.applications[1].state(), ApplicationState::Running);
    for (worker, replicas) in &before {
        let now = &world.placed()[worker];
        assert!(replicas.iter().all(|replica| now.contains(replica)));
    }

    world.intend(schema(2));
    world.settle();
    let status = world.state.status(world.now);
    assert_eq!(status.applications[1].state(), ApplicationState::Deleting);
    assert_eq!(
        status.applications[1].deployments[0].trigger(),
        DeploymentTrigger::Deleting
    );
    world.now += ms(20);
    world.settle();
    let table = world.tables.last().unwrap();
    assert!(table.applications[1].deleting);
    assert!(
        table.applications[1]
            .deployments
            .iter()
            .all(|d| d.replicas.is_empty())
    );
    assert_eq!(world.drained, 0, "the proxies have the table first");
    world.run(ms(500));
    assert_eq!(world.drained, 2);
    let status = world.state.status(world.now);
    assert_eq!(status.applications.len(), 1);
    assert_eq!(world.placed(), before);
    assert_eq!(world.tables.last().unwrap().applications.len(), 1);
}

#[test]
fn an_application_that_comes_back_while_it_goes_is_deployed_again() {
    let mut world = mesh(1);
    world.intend(with_second(schema(1)));
    world.run(ms(300));
    world.intend(schema(1));
    world.settle();
    world.intend(with_second(schema(1)));
    world.run(ms(500));
    let status = world.state.status(world.now);
    assert_eq!(status.applications[1].state(), ApplicationState::Running);
    assert!(!world.tables.last().unwrap().applications[1].deleting);
}

#[test]
fn another_number_of_replicas_adds_or_takes_away_and_moves_nothing_else() {
    let mut world = mesh(2);
    let before = world.placed();
    world.intend(schema(4));
    world.settle();
    let status = world.deployment(1);
    assert_eq!(
        (status.state(), status.trigger()),
        (DeploymentState::Upscaling, DeploymentTrigger::ConfigUpdateStarted)
    );
    assert_eq!(world.application().0, ApplicationState::Deploying);
    world.run(ms(300));
    assert_eq!(
        (world.deployment(1).state(), world.deployment(1).trigger()),
        (DeploymentState::Healthy, DeploymentTrigger::UpscaleCompleted)
    );
    assert_eq!(world.routed(1).len(), 4);
    for (worker, replicas) in &before {
        assert!(
            replicas
                .iter()
                .all(|replica| world.placed()[worker].contains(replica))
        );
    }
    assert!(world.deployment(1).rollout.is_none());

    world.intend(schema(1));
    world.settle();
    assert_eq!(world.deployment(1).state(), DeploymentState::Downscaling);
    world.run(ms(300));
    assert_eq!((world.routed(1).len(), world.drained), (1, 3));
    assert_eq!(
        world.deployment(1).trigger(),
        DeploymentTrigger::DownscaleCompleted
    );
}

#[test]
fn what_does_not_run_leaves_before_what_runs_and_whole_workers_become_free() {
    let mut world = World::settled(3);
    world.add("p", WorkerKind::Preprocess, 2.0);
    world.add("a", WorkerKind::Inference, 3.0);
    world.run(ms(300));
    // The one place is taken; a fourth has none.
    world.intend(schema(4));
    world.run(ms(300));
    world.add("b", WorkerKind::Inference, 1.0);
    world.run(ms(300));
    assert_eq!(world.workers["b"].replicas.len(), 1);
    world.intend(schema(5));
    world.run(ms(300));
    assert_eq!(world.deployment(1).replicas.len(), 5);
    world.intend(schema(4));
    world.run(ms(300));
    assert_eq!(world.drained, 0, "the fifth was pending");
    world.intend(schema(3));
    world.run(ms(300));
    assert!(world.workers["b"].replicas.is_empty(), "the worker with fewest");
}

#[test]
fn a_light_change_restarts_nothing_and_is_in_force_before_the_deployment_is_healthy() {
    let mut world = mesh(2);
    let before = world.placed();
    let mut light = schema(2);
    let pipeline = &mut light.config.applications[0].deployments[1];
    pipeline.max_ongoing_requests = 7;
    pipeline.user_config = Some(serde_json::json!({"steps": 8}));
    world.workers.get_mut("a").unwrap().silent = true;
    world.intend(light);
    world.run(ms(300));
    assert_eq!(world.reconfigured, 2);
    assert_eq!(
        (world.deployment(1).state(), world.deployment(1).trigger()),
        (DeploymentState::Updating, DeploymentTrigger::ConfigUpdateStarted)
    );
    let table = world.tables.last().unwrap();
    assert_eq!(table.applications[0].deployments[1].max_ongoing_requests, 7);
    assert_eq!(table.applications[0].deployments[1].replicas.len(), 2);
    // The worker that did not hear it is told again.
    world.workers.get_mut("a").unwrap().silent = false;
    world.run(ms(4_000));
    assert_eq!(world.reconfigured, 3);
    assert_eq!(
        (world.deployment(1).state(), world.deployment(1).trigger()),
        (DeploymentState::Healthy, DeploymentTrigger::ConfigUpdateCompleted)
    );
    let reports = world.workers["a"].replicas.values();
    for report in reports {
        let light = report.spec.as_ref().unwrap().light.as_ref().unwrap();
        assert_eq!(light.user_config, r#"{"steps":8}"#);
    }
    assert_eq!((world.placed(), world.drained), (before, 0));
    assert!(world.deployment(1).rollout.is_none());
}

#[test]
fn a_light_change_reaches_a_replica_that_is_just_being_started() {
    let mut world = World::settled(1);
    world.add("a", WorkerKind::Inference, 2.0);
    world.workers.get_mut("a").unwrap().outcome =
        (mobula_proto::control::v1::ReplicaState::Starting, "loads");
    world.run(ms(200));
    let mut light = schema(1);
    light.config.applications[0].deployments[1].max_ongoing_requests = 7;
    world.intend(light);
    assert_eq!(world.reconfigured, 1);
    let report = world.workers["a"].replicas.values().next().unwrap();
    let light = report.spec.as_ref().unwrap().light.as_ref().unwrap();
    assert_eq!(light.max_ongoing_requests, 7);
}

#[test]
fn another_route_prefix_or_bound_is_a_new_table_and_no_more() {
    let mut world = mesh(1);
    let before = world.placed();
    let mut other = schema(1);
    other.config.applications[0].route_prefix = Some("/draw".into());
    other.config.applications[0].deployments[1].max_queued_requests = 7;
    other.config.applications[0].deployments[1].max_queued = Some(ms(2_500));
    world.intend(other);
    world.run(ms(300));
    assert_eq!((world.placed(), world.reconfigured), (before, 0));
    assert_eq!(world.tables.last().unwrap().applications[0].route_prefix, "/draw");
    for (watch, id) in [(1, "one"), (2, "two"), (3, "two")] {
        let proxy = mobula_proto::control::v1::ProxyStatus {
            proxy_id: id.into(),
            ..Default::default()
        };
        world.event(Event::Watched { watch, proxy });
    }
    world.now += ms(20);
    world.settle();
    let route = &world.tables.last().unwrap().applications[0].deployments[1];
    assert_eq!(route.max_queued_requests, 4, "its half, rounded up");
    assert_eq!(route.max_queued_ms, 2_500, "all of it: time is not shared");
}

#[test]
fn target_capacity_scales_fixed_numbers_as_ray_does() {
    let mut world = mesh(4);
    let mut half = schema(4);
    half.config.options.target_capacity = Some(50.0);
    world.intend(half.clone());
    world.run(ms(300));
    assert_eq!(world.routed(1).len(), 2);
    half.config.options.target_capacity = Some(0.0);
    world.intend(half);
    world.run(ms(300));
    assert!(world.routed(1).is_empty());
    let route = &world.tables.last().unwrap().applications[0].deployments[1];
    assert!(!route.expected);
    assert!(route.why_none.contains("0 replicas"), "{}", route.why_none);
    world.intend(schema(4));
    world.run(ms(300));
    assert_eq!(world.routed(1).len(), 4);
}

#[test]
fn a_number_of_the_intents_targets_wins_over_the_configs() {
    let mut world = mesh(1);
    let mut scaled = schema(1);
    scaled.targets.insert(("default".into(), "pipeline".into()), 3);
    world.intend(scaled);
    world.run(ms(300));
    assert_eq!(world.routed(1).len(), 3);
    assert!(matches!(
        world.state.intent.config.applications[0].deployments[1].count,
        Count::Fixed(1)
    ));
}
