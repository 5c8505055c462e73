//! From one graph of an application to another: the old one serves until the new one can.

use mobula_proto::control::v1::{ApplicationState, ReplicaState, WorkerKind};
use mobula_serving::scale::SILENCE;

use super::{super::*, world::*};

fn whole(replicas: u32) -> Intent {
    model(replicas, "fake")
}

fn parts() -> Intent {
    split([1, 1, 1], "fake")
}

/// An application that runs, and so many workers of one CPU for it and others.
fn mesh(intent: Intent, workers: usize) -> World {
    let mut world = World::new(external(), intent);
    world.run(HEARTBEAT * 3);
    world.add("p", WorkerKind::Preprocess, 8.0);
    for w in 0..workers {
        world.add(&format!("w{w}"), WorkerKind::Inference, 1.0);
    }
    world.run(Duration::from_secs(4));
    assert_eq!(world.application().0, ApplicationState::Running);
    world
}

/// The deployments in the newest table with their replicas, in its order; those for tokens left out.
fn table(world: &World) -> Vec<(String, usize)> {
    let routes = &world.tables.last().unwrap().applications[0].deployments;
    let of = routes
        .iter()
        .map(|route| (route.name.clone(), route.replicas.len()));
    of.filter(|(name, _)| name != "preprocess").collect()
}

/// What proxies do with it: the first deployment that can do each stage, and whether it has a replica.
fn serves(world: &World) -> bool {
    let table = table(world);
    let first = |name: &str| {
        let mut does = table
            .iter()
            .filter(|(known, _)| known == name || known == "pipeline");
        does.next().is_some_and(|(_, replicas)| *replicas > 0)
    };
    ["text_encoder", "denoiser", "vae"].into_iter().all(first)
}

fn always(world: &mut World, time: Duration) -> bool {
    let end = world.now + time;
    let mut always = true;
    while world.now < end {
        world.run(ms(100));
        always &= serves(world);
    }
    always
}

fn hold_back(world: &mut World, outcome: ReplicaState) {
    for worker in world.workers.values_mut() {
        worker.outcome = (outcome, "");
        for report in worker.replicas.values_mut() {
            if outcome == ReplicaState::Running && report.state() == ReplicaState::Starting {
                report.state = outcome.into();
            }
        }
    }
}

#[test]
fn the_old_graph_serves_until_the_new_one_runs_and_back() {
    let mut world = mesh(whole(2), 5);
    hold_back(&mut world, ReplicaState::Starting);
    world.intend(parts());
    assert!(always(&mut world, Duration::from_secs(60)));
    assert_eq!(
        table(&world)[0],
        ("pipeline".into(), 2),
        "however long that takes"
    );
    let message = world.application().1;
    assert!(
        message.contains("serves until what takes its place runs: text_encoder"),
        "{message}"
    );
    hold_back(&mut world, ReplicaState::Running);
    assert!(always(&mut world, Duration::from_secs(8)));
    let names: Vec<_> = table(&world).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["text_encoder", "denoiser", "vae"]);
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));

    world.intend(whole(2));
    assert!(always(&mut world, Duration::from_secs(8)));
    assert_eq!(table(&world), [("pipeline".into(), 2)]);
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
}

#[test]
fn parts_stay_for_requests_that_the_denoiser_of_the_old_graph_has_begun() {
    let mut world = mesh(parts(), 5);
    world.draw();
    world.intend(whole(2));
    world.run(Duration::from_secs(8));
    assert_eq!(
        table(&world),
        [
            ("pipeline".into(), 2),
            ("text_encoder".into(), 1),
            ("vae".into(), 1)
        ]
    );
    assert!(
        world
            .application()
            .1
            .contains("stays for requests that have begun")
    );
    world.finish();
    world.run(Duration::from_secs(3));
    assert_eq!(table(&world), [("pipeline".into(), 2)]);
}

#[test]
fn parts_of_an_application_that_is_deleted_stay_for_what_its_denoiser_has_begun() {
    let mut world = mesh(parts(), 3);
    world.draw();
    let mut none = parts();
    none.config.applications.clear();
    world.intend(none);
    world.run(Duration::from_secs(8));
    assert!(world.tables.last().unwrap().applications[0].deleting);
    assert_eq!(
        table(&world),
        [
            ("text_encoder".into(), 1),
            ("denoiser".into(), 0),
            ("vae".into(), 1)
        ]
    );
    let parts = &world.state.status(world.now).applications[0].deployments;
    let vae = parts.iter().find(|part| part.name == "vae").unwrap();
    assert!(
        vae.message.contains("stays for requests that have begun"),
        "{vae:?}"
    );
    world.finish();
    world.run(Duration::from_secs(3));
    assert!(world.state.apps.is_empty() && world.state.deployments.is_empty());
}

#[test]
fn decoders_of_an_application_that_is_deleted_stay_while_pictures_wait_for_them_and_a_proxy_says_so() {
    for falls_silent in [false, true] {
        let mut world = mesh(parts(), 3);
        world.ask("proxy", &[("denoiser", 1, 3), ("vae", 2, 1)]);
        let mut none = parts();
        none.config.applications.clear();
        world.intend(none);
        world.run(Duration::from_secs(2));
        let stays = [("text_encoder".into(), 1), ("vae".into(), 1)];
        assert_eq!(table(&world), stays);
        world.ask("proxy", &[("vae", 1, 1)]);
        world.run(Duration::from_secs(2));
        assert_eq!(table(&world), stays);
        if falls_silent {
            world.run(SILENCE);
        } else {
            world.ask("proxy", &[("vae", 0, 0)]);
            world.run(Duration::from_secs(2));
        }
        assert!(world.state.apps.is_empty() && world.state.deployments.is_empty());
    }
}

#[test]
fn what_is_left_of_an_earlier_graph_goes_with_what_is_drawn_last_of_an_application_that_is_deleted() {
    let mut world = mesh(parts(), 6);
    let busy = |world: &mut World, is_busy: bool, of: &str| {
        for worker in world.workers.values_mut() {
            let has = worker.replicas.keys().any(|id| id.contains(of));
            if has {
                worker.set_busy(is_busy);
            }
        }
    };
    busy(&mut world, true, "#vae#");
    world.intend(whole(1));
    world.run(Duration::from_secs(8));
    busy(&mut world, true, "#pipeline#");
    let mut none = parts();
    none.config.applications.clear();
    world.intend(none);
    world.run(Duration::from_secs(3));
    for of in ["#vae#", "#pipeline#"] {
        assert!(!world.state.apps.is_empty());
        busy(&mut world, false, of);
        world.run(Duration::from_secs(3));
    }
    assert!(world.state.apps.is_empty() && world.state.deployments.is_empty());
}

#[test]
fn who_goes_back_before_the_new_graph_runs_has_what_there_was() {
    let mut world = mesh(whole(2), 5);
    let before = world.placed();
    hold_back(&mut world, ReplicaState::Starting);
    world.intend(parts());
    assert!(always(&mut world, Duration::from_secs(2)));
    world.intend(whole(2));
    assert!(always(&mut world, Duration::from_secs(8)));
    assert_eq!(world.placed(), before);
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
}

#[test]
fn without_room_for_both_graphs_replicas_of_the_old_one_leave_one_at_a_time() {
    let mut world = mesh(whole(4), 4);
    world.intend(parts());
    assert!(always(&mut world, Duration::from_secs(60)), "three can leave");
    assert_eq!(table(&world).len(), 3);
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));

    let mut small = mesh(whole(1), 3);
    small.intend(parts());
    assert!(always(&mut small, Duration::from_secs(9)));
    small.run(Duration::from_secs(13));
    assert_eq!(table(&small).len(), 3);
    let (state, message) = small.application();
    assert_eq!(state, ApplicationState::Running);
    assert!(
        message.contains("no room for the deployments before and after"),
        "{message}"
    );
}

#[test]
fn an_application_that_is_deleted_amid_the_change_goes_as_a_whole() {
    let mut world = mesh(whole(1), 4);
    hold_back(&mut world, ReplicaState::Starting);
    world.intend(parts());
    world.run(Duration::from_secs(2));
    let mut none = whole(1);
    none.config.applications.clear();
    world.intend(none);
    world.run(Duration::from_secs(3));
    assert!(world.state.apps.is_empty() && world.state.deployments.is_empty());
}
