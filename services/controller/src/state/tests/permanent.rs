//! Failures that another try cannot mend, and what goes back with a deployment that goes back.

use mobula_proto::control::v1::{
    self as pb, ApplicationState, ReplicaState, RolloutState, WorkerKind, explain_request::Subject,
};

use super::{super::*, world::*};
use crate::explain::{Records, explain};

/// So many running pipelines on workers with room for two each; on the named ones no replica of `broken` can start.
fn mesh(pipelines: u32, workers: &[&str], without: &[&str]) -> World {
    let mut world = World::settled(pipelines);
    world.add("p", WorkerKind::Preprocess, 8.0);
    for id in workers {
        world.add(id, WorkerKind::Inference, 2.0);
    }
    world.run(ms(3_500));
    assert_eq!(world.application().0, ApplicationState::Running);
    for id in without {
        let worker = world.workers.get_mut(*id).unwrap();
        (worker.broken, worker.permanent) = (Some("broken".into()), true);
    }
    world
}

fn state(world: &World) -> RolloutState {
    world.deployment(1).rollout.unwrap().state()
}

#[test]
fn a_model_that_is_nowhere_brings_the_version_before_back_without_a_wait() {
    for workers in [&["a"][..], &["a", "b", "c"]] {
        let mut world = mesh(1, workers, workers);
        let (before, tries) = (world.placed(), world.assigned);
        world.intend(model(1, "broken"));
        // The first wait would be a second.
        world.run(ms(900));
        assert_eq!(world.rolled_back.len(), 1, "{workers:?}");
        assert!(
            world.rolled_back[0].contains("would fail alike again: no such model"),
            "{}",
            world.rolled_back[0]
        );
        assert_eq!(world.assigned - tries, workers.len(), "each worker is tried once");
        assert_eq!(
            (world.placed(), state(&world)),
            (before, RolloutState::RolledBack)
        );
    }
}

#[test]
fn failures_that_may_pass_keep_their_tries_and_waits() {
    let mut world = mesh(1, &["a", "b"], &["a", "b"]);
    world
        .workers
        .values_mut()
        .for_each(|worker| worker.permanent = false);
    world.intend(model(1, "broken"));
    world.run(ms(2_500));
    assert!(world.rolled_back.is_empty(), "two tries of three");
    world.run(ms(2_000));
    assert_eq!(world.rolled_back.len(), 1);
    assert!(
        world.rolled_back[0].contains("3 times in a row"),
        "{:?}",
        world.rolled_back
    );
}

#[test]
fn a_model_that_only_some_workers_lack_is_found_on_the_others_without_a_wait() {
    for without in ["a", "b"] {
        let mut world = mesh(1, &["a", "b"], &[without]);
        world.intend(model(1, "broken"));
        world.run(ms(900));
        let new = |world: &World| {
            let replicas = world.deployment(1).replicas.into_iter();
            replicas
                .filter(|r| !r.outdated && r.state() == ReplicaState::Running)
                .count()
        };
        assert_eq!(new(&world), 1, "without {without}");
        world.run(Duration::from_secs(10));
        assert_eq!(state(&world), RolloutState::Complete);
        assert!(world.rolled_back.is_empty());
    }
}

#[test]
fn replicas_that_fail_together_on_one_worker_leave_the_others_to_be_tried() {
    let mut world = World::settled(2);
    world.add("p", WorkerKind::Preprocess, 8.0);
    world.add("a", WorkerKind::Inference, 2.0);
    let worker = world.workers.get_mut("a").unwrap();
    (worker.outcome, worker.permanent) = ((ReplicaState::Failed, "no such model"), true);
    world.add("b", WorkerKind::Inference, 2.0);
    world.run(ms(900));
    assert_eq!(world.workers["b"].replicas.len(), 2, "both, without a wait");
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
}

#[test]
fn a_worker_without_room_is_not_waited_for() {
    let mut world = World::settled(1);
    world.add("p", WorkerKind::Preprocess, 8.0);
    world.add("full", WorkerKind::Inference, 1.0);
    world.run(ms(3_500));
    world.add("b", WorkerKind::Inference, 1.0);
    let worker = world.workers.get_mut("b").unwrap();
    (worker.broken, worker.permanent) = (Some("broken".into()), true);
    let tries = world.assigned;
    world.intend(model(1, "broken"));
    world.run(ms(900));
    assert_eq!((world.rolled_back.len(), world.assigned - tries), (1, 2));
    assert_eq!(state(&world), RolloutState::RolledBack);
}

#[test]
fn a_first_version_that_cannot_start_says_so_at_once_and_is_still_tried() {
    let mut world = World::settled(1);
    world.add("p", WorkerKind::Preprocess, 8.0);
    world.add("a", WorkerKind::Inference, 2.0);
    let worker = world.workers.get_mut("a").unwrap();
    (worker.outcome, worker.permanent) = ((ReplicaState::Failed, "no such model"), true);
    world.run(ms(500));
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::DeployFailed);
    assert!(message.contains("no such model"), "{message}");
    let route = &world.tables.last().unwrap().applications[0].deployments[1];
    assert!(
        !route.expected
            && route
                .why_none
                .contains("cannot start, and would fail alike again: no such model"),
        "{}",
        route.why_none
    );
    let tries = world.assigned;
    world.run(ms(2_000));
    assert!(
        world.assigned > tries && world.assigned <= tries + 2,
        "with waits between"
    );
    world.workers.get_mut("a").unwrap().outcome = (ReplicaState::Running, "");
    world.run(Duration::from_secs(31));
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
}

/// The intent with this model for both deployments.
fn both(name: &str) -> Intent {
    let mut intent = model(1, name);
    for deployment in &mut intent.config.applications[0].deployments {
        deployment.model = name.into();
    }
    intent
}

/// What is told of the preprocess deployment when somebody asks why.
fn told(world: &World) -> String {
    let request = pb::ExplainRequest {
        subject: Some(Subject::Deployment("preprocess".into())),
    };
    let told = explain(&request, &world.state.status(world.now), &Records::default()).unwrap();
    format!("{told:?}")
}

#[test]
fn what_goes_back_because_another_deployment_failed_says_so() {
    // Before, and after, the other one's own update is complete.
    for time in [ms(0), Duration::from_secs(20)] {
        let mut world = mesh(1, &["a"], &["a"]);
        world.intend(both("broken"));
        world.run(ms(900));
        assert_eq!(world.rolled_back.len(), 1);
        world.run(time);
        let rollout = |world: &World| world.deployment(0).rollout.unwrap().state();
        let expected = if time.is_zero() {
            RolloutState::Progressing
        } else {
            RolloutState::Complete
        };
        assert_eq!(rollout(&world), expected);
        assert!(!told(&world).contains("rolled back"));

        // The intent goes back too, as the ledger writes it.
        world.intend(both("fake"));
        world.run(ms(200));
        if !time.is_zero() {
            assert_eq!(rollout(&world), RolloutState::RollingBack);
            let why = "is rolled back after: the update of pipeline";
            assert!(told(&world).contains(why), "{}", told(&world));
        }
        world.run(Duration::from_secs(10));
        assert_eq!(rollout(&world), RolloutState::RolledBack);
        let why =
            "was rolled back after: the update of pipeline in the same application failed: no such model";
        assert!(told(&world).contains(why), "{}", told(&world));
        assert_eq!(world.application().0, ApplicationState::Running);

        world.intend(both("next"));
        world.run(Duration::from_secs(10));
        assert_eq!(rollout(&world), RolloutState::Complete);
        assert!(!told(&world).contains("rolled back"), "{}", told(&world));
    }
}

#[test]
fn a_person_who_deploys_something_else_does_not_go_back() {
    let mut world = mesh(1, &["a"], &["a"]);
    world.intend(both("broken"));
    world.run(ms(900));
    assert_eq!(world.rolled_back.len(), 1);
    let mut other = both("fake");
    other.config.applications[0].deployments[0].model = "other".into();
    world.intend(other);
    world.run(Duration::from_secs(10));
    let rollout = world.deployment(0).rollout.unwrap();
    assert_eq!(
        (rollout.state(), rollout.message.as_str()),
        (RolloutState::Complete, "")
    );
}
