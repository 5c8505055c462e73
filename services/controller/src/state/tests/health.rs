use mobula_proto::control::v1::{
    ApplicationState, DeploymentState, DeploymentTrigger, ReplicaState, WorkerKind,
};

use super::{super::*, world::*};

fn mesh() -> World {
    let mut world = World::settled(2);
    world.add("p", WorkerKind::Preprocess, 8.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.add("b", WorkerKind::Inference, 2.0);
    world.run(ms(4_000));
    assert_eq!(world.application().0, ApplicationState::Running);
    world
}

#[test]
fn a_replica_that_fails_while_it_runs_is_replaced_and_the_deployment_says_so_until_then() {
    let mut world = mesh();
    let worker = world.workers.get_mut("a").unwrap();
    for report in worker.replicas.values_mut() {
        report.state = ReplicaState::Failed.into();
        report.message = "3 health checks failed".into();
    }
    world.run(ms(100));
    let status = world.deployment(1);
    assert_eq!(
        (status.state(), status.trigger()),
        (DeploymentState::Unhealthy, DeploymentTrigger::HealthCheckFailed)
    );
    assert_eq!(world.application().0, ApplicationState::Unhealthy);
    assert!(
        status.message.contains("3 health checks failed"),
        "{}",
        status.message
    );
    assert_eq!(world.routed(1).len(), 1, "it takes nothing more");
    world.run(ms(2_000));
    let status = world.deployment(1);
    assert_eq!(
        (status.state(), status.trigger()),
        (DeploymentState::Healthy, DeploymentTrigger::Unspecified)
    );
}

#[test]
fn a_crash_loop_backs_off() {
    let mut world = mesh();
    let mut tries = Vec::new();
    let begin = world.now;
    while world.now - begin < Duration::from_secs(40) {
        let before = world.assigned;
        for id in ["a", "b"] {
            let worker = world.workers.get_mut(id).unwrap();
            for report in worker.replicas.values_mut() {
                report.state = ReplicaState::Failed.into();
            }
        }
        world.run(ms(100));
        if world.assigned > before {
            tries.push((world.now - begin).as_secs());
        }
    }
    assert!(tries.len() <= 6, "1, 2, 4, 8, 16: {tries:?}");
    let failures = world.deployment(1).replicas[0].failures;
    assert!(failures >= 5, "{failures}");
}

#[test]
fn a_replica_that_kills_its_workers_is_slowed_down_and_counts_as_failing() {
    let mut world = World::new(process(&[]), schema(1));
    world.run(ms(100));
    world.launch();
    let mut killed = 0;
    for _ in 0..600 {
        let victim = world
            .workers
            .iter()
            .find(|(_, w)| w.kind == WorkerKind::Inference && !w.replicas.is_empty());
        if let Some(id) = victim.map(|(id, _)| id.clone()) {
            killed += 1;
            world.exit(&id);
        }
        world.run(ms(100));
        world.launch();
    }
    assert!((4..=9).contains(&killed), "{killed} in a minute");
    assert_eq!(world.application().0, ApplicationState::Unhealthy);
}

#[test]
fn a_worker_that_goes_away_makes_the_deployment_unhealthy_until_its_replicas_run_elsewhere() {
    let mut world = mesh();
    world.lose("a", End::Closed);
    world.workers.remove("a");
    world.run(ms(900));
    assert_eq!(
        world.application().0,
        ApplicationState::Running,
        "it may come back"
    );
    world.workers.get_mut("b").unwrap().outcome = (ReplicaState::Starting, "loads");
    world.run(ms(400));
    let status = world.deployment(1);
    assert_eq!(
        (status.state(), status.trigger()),
        (DeploymentState::Unhealthy, DeploymentTrigger::HealthCheckFailed)
    );
    for report in world.workers.get_mut("b").unwrap().replicas.values_mut() {
        report.state = ReplicaState::Running.into();
    }
    world.run(ms(300));
    assert_eq!(world.application().0, ApplicationState::Running);
}
