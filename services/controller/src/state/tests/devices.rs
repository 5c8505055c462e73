//! Which GPUs of their workers replicas get, and that they keep them.

use mobula_proto::control::v1::{ApplicationState, ReplicaState, WorkerKind};
use mobula_serving::place::UNIT;

use super::{super::*, world::*};

/// So many pipelines, each with so much of a GPU in 1/10000.
fn needing(pipelines: u32, gpus: u64) -> Intent {
    let mut intent = schema(pipelines);
    intent.config.applications[0].deployments[1].need.gpus = gpus;
    intent
}

/// A mesh with one inference worker of so many GPUs.
fn mesh(intent: Intent, gpus: u64) -> World {
    let mut world = World::new(external(), intent);
    world.run(HEARTBEAT * 3);
    world.add("p", WorkerKind::Preprocess, 2.0);
    world.add("a", WorkerKind::Inference, 16.0);
    world.workers.get_mut("a").unwrap().more.gpus = gpus * UNIT;
    world.hello("a");
    world.run(ms(200));
    world
}

/// GPUs by replica id, as the status has them; and that the worker was told the same.
fn gpus(world: &World) -> BTreeMap<String, Vec<u32>> {
    let placed = world.deployment(1).replicas.into_iter();
    let placed = placed.filter(|replica| !replica.worker_id.is_empty());
    let said: BTreeMap<_, _> = placed.map(|replica| (replica.replica_id, replica.gpus)).collect();
    let reports = world.workers["a"].replicas.iter();
    let told: BTreeMap<_, _> = reports
        .map(|(id, report)| (id.clone(), report.spec.clone().unwrap().gpus))
        .collect();
    assert_eq!(said, told);
    said
}

fn sorted(gpus: BTreeMap<String, Vec<u32>>) -> Vec<Vec<u32>> {
    let mut gpus: Vec<_> = gpus.into_values().collect();
    gpus.sort();
    gpus
}

#[test]
fn halves_share_a_gpu_and_whole_ones_have_their_own() {
    let halves = mesh(needing(3, UNIT / 2), 2);
    assert_eq!(halves.application().0, ApplicationState::Running);
    assert_eq!(sorted(gpus(&halves)), [[0], [0], [1]]);
    let whole = mesh(needing(2, UNIT), 2);
    assert_eq!(sorted(gpus(&whole)), [[0], [1]]);
    let pair = mesh(needing(1, 2 * UNIT), 2);
    assert_eq!(sorted(gpus(&pair)), [[0, 1]]);
    assert_eq!(
        sorted(gpus(&mesh(schema(1), 2))),
        [Vec::<u32>::new()],
        "none is given where none is needed"
    );
}

#[test]
fn a_controller_that_comes_back_leaves_replicas_on_the_gpus_that_they_have() {
    let mut world = mesh(needing(1, UNIT), 2);
    let id = gpus(&world).into_keys().next().unwrap();
    // It was placed when the first GPU was taken; nobody would give it the second one now.
    let report = world.workers.get_mut("a").unwrap().replicas.get_mut(&id);
    report.unwrap().spec.as_mut().unwrap().gpus = vec![1];
    world.restart_controller(external(), needing(1, UNIT));
    world.hello("p");
    world.hello("a");
    world.run(HEARTBEAT * 5);
    assert_eq!(gpus(&world), [(id.clone(), vec![1])].into());
    world.intend(needing(2, UNIT));
    world.run(HEARTBEAT);
    let after = gpus(&world);
    assert_eq!(after[&id], [1]);
    assert_eq!(sorted(after), [[0], [1]]);
}

#[test]
fn a_worker_that_dials_again_is_given_the_same_gpus() {
    let mut world = mesh(needing(3, UNIT / 2), 2);
    let before = gpus(&world);
    world.lose("a", End::Closed);
    world.run(ms(300));
    world.hello("a");
    world.run(HEARTBEAT * 5);
    assert_eq!(gpus(&world), before);
}

#[test]
fn the_gpu_of_a_replica_that_stops_goes_to_its_successor_when_it_has_stopped() {
    let mut world = mesh(needing(2, UNIT), 2);
    let before = gpus(&world);
    world.workers.get_mut("a").unwrap().busy = true;
    let mut next = needing(2, UNIT);
    next.config.applications[0].deployments[1].model = "another".into();
    world.intend(next);
    let ids = |world: &World, state| -> Vec<String> {
        let reports = world.workers["a"].replicas.iter();
        let of = reports.filter(|(_, report)| report.state() == state);
        of.map(|(id, _)| id.clone()).collect()
    };
    for _ in 0..100 {
        world.run(HEARTBEAT);
        let stopping = ids(&world, ReplicaState::Stopping);
        // There is no room for more than two: the successor waits.
        assert_eq!(world.workers["a"].replicas.len(), 2);
        for id in stopping {
            let freed = gpus(&world)[&id].clone();
            world.workers.get_mut("a").unwrap().replicas.remove(&id);
            world.run(HEARTBEAT);
            let new = gpus(&world)
                .into_iter()
                .filter(|(id, _)| !before.contains_key(id));
            assert!(new.map(|(_, gpus)| gpus).any(|gpus| gpus == freed));
        }
        if gpus(&world).keys().all(|id| !before.contains_key(id)) {
            assert_eq!(sorted(gpus(&world)), [[0], [1]]);
            return;
        }
    }
    panic!("the update never ended: {:?}", world.deployment(1));
}
