//! What Ray's dashboards are shown.

use mobula_proto::control::v1::{ReplicaState, WorkerKind};

use super::{super::*, world::*};

#[test]
fn gauges_are_numbered_as_ray_does_and_end_with_their_deployment() {
    let mut world = World::settled(2);
    let of = |world: &World, name: &str| {
        let all: Vec<_> = world.state.deployment_gauges().collect();
        let found = all.iter().find(|gauges| gauges.deployment == name);
        found.map(|g| (g.application.to_owned(), g.status, g.running, g.target))
    };
    let default = || "default".to_owned();
    assert_eq!(of(&world, "pipeline"), Some((default(), 3, 0, 2)), "UPDATING");
    let applications = |world: &World| -> Vec<(String, u8)> {
        let all = world.state.application_gauges();
        all.map(|(name, status)| (name.to_owned(), status)).collect()
    };
    assert_eq!(applications(&world), [(default(), 5)], "DEPLOYING");

    world.add("p", WorkerKind::Preprocess, 8.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(4_000));
    assert_eq!(of(&world, "pipeline"), Some((default(), 6, 2, 2)), "HEALTHY");
    assert_eq!(applications(&world), [(default(), 6)], "RUNNING");
    let startups = world.state.take_startups();
    let pipelines = startups.iter().filter(|startup| startup.deployment == "pipeline");
    assert_eq!(pipelines.count(), 2);
    // They waited for their worker for as long as the mesh had none.
    assert!(startups.iter().all(|startup| startup.took >= HEARTBEAT * 3));
    assert!(world.state.take_startups().is_empty(), "each is told once");

    for report in world.workers.get_mut("a").unwrap().replicas.values_mut() {
        report.state = ReplicaState::Failed.into();
    }
    world.run(ms(100));
    assert_eq!(of(&world, "pipeline"), Some((default(), 2, 0, 2)), "UNHEALTHY");
    assert_eq!(applications(&world), [(default(), 2)], "UNHEALTHY");

    world.intend(Intent::default());
    world.run(ms(10_000));
    assert_eq!(of(&world, "pipeline"), None);
    assert!(applications(&world).is_empty());
}

#[test]
fn a_deployment_that_scales_by_itself_shows_what_its_scaler_decides_by() {
    let mut world = World::settled(0);
    world.intend(auto(1, 4));
    world.add("p", WorkerKind::Preprocess, 8.0);
    world.add("a", WorkerKind::Inference, 8.0);
    world.run(ms(2_000));
    for _ in 0..6 {
        world.ask("proxy", &[("pipeline", 2, 4)]);
        world.run(ms(500));
    }
    let all: Vec<_> = world.state.deployment_gauges().collect();
    let scaling = |name: &str| all.iter().find(|g| g.deployment == name).unwrap().scaling;
    assert_eq!(scaling("preprocess"), None);
    let pipeline = scaling("pipeline").unwrap();
    assert_eq!((pipeline.desired, pipeline.target_ongoing), (3, 2.0));
    assert!((pipeline.total_requests - 6.0).abs() < 1e-9, "{pipeline:?}");
}
