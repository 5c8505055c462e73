//! The samples that people start from run as they are on workers that have what they ask for.

use mobula_proto::control::v1::{ApplicationState, WorkerKind};

use super::{super::*, world::*};

const SAMPLES: [&str; 5] = [
    "kuberay-stable-diffusion",
    "eks-stable-diffusion",
    "gke-stable-diffusion",
    "gke-stable-diffusion-tpu",
    "kuberay-stable-diffusion-tpu",
];

fn sample(name: &str) -> Intent {
    let path = format!(
        "{}/../../crates/schema/tests/samples/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    let parsed = mobula_schema::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    Intent {
        resource_version: 1,
        config: parsed.config,
        ..Intent::default()
    }
}

/// A worker as a pod of the group would announce itself, started by somebody else.
fn join(world: &mut World, id: &str, group: &WorkerGroup) {
    world.add(
        id,
        WorkerKind::Inference,
        mobula_serving::place::fraction(group.resources.cpus),
    );
    let worker = world.workers.get_mut(id).unwrap();
    worker.more = group.resources.clone();
    worker.labels.extend(group.labels.clone());
    world.hello(id);
}

fn running(world: &World, name: &str) {
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::Running, "{name}: {message}");
    let [ingress, pipeline] = [0, 1].map(|i| world.deployment(i));
    for deployment in [&ingress, &pipeline] {
        assert_eq!(deployment.replicas.len(), 1, "{name}: {deployment:?}");
    }
    let gpus: f64 = pipeline.resources.unwrap().gpus;
    let given = &pipeline.replicas[0].gpus;
    assert_eq!(*given, if gpus > 0.0 { vec![0] } else { vec![] }, "{name}");
}

#[test]
fn the_unmodified_samples_run_on_workers_that_announce_what_their_pods_have() {
    for name in SAMPLES {
        let intent = sample(name);
        let [group] = intent.config.worker_groups.clone().try_into().unwrap();
        assert!(
            group.resources.gpus > 0 || group.resources.custom.contains_key("TPU"),
            "{name} asks for an accelerator"
        );
        let mut world = World::new(external(), intent);
        world.run(HEARTBEAT * 3);
        world.add("p", WorkerKind::Preprocess, 2.0);
        world.run(ms(200));
        assert_eq!(world.application().0, ApplicationState::Deploying, "{name}");
        join(&mut world, "a", &group);
        world.run(ms(200));
        running(&world, name);
    }
}

#[test]
fn the_unmodified_samples_run_on_the_workers_that_a_provider_starts_for_them() {
    for name in SAMPLES {
        let intent = sample(name);
        let groups = intent.config.worker_groups.clone();
        let mut world = World::new(process(&[]), intent);
        world.run(ms(100));
        world.launch();
        world.run(ms(300));
        let started = world
            .starts
            .values()
            .filter(|start| start.group == groups[0].name);
        assert!(started.clone().count() > 0, "{name}: {:?}", world.starts);
        for start in started {
            assert_eq!(start.resources, groups[0].resources, "{name}");
        }
        let pipeline = world.deployment(1);
        assert_eq!(pipeline.replicas.len(), 1, "{name}: {pipeline:?}");
        assert_eq!(
            pipeline.replicas[0].state(),
            mobula_proto::control::v1::ReplicaState::Running,
            "{name}: {pipeline:?}"
        );
    }
}

#[test]
fn a_sample_on_workers_without_its_accelerator_says_what_is_lacking() {
    let mut world = World::new(external(), sample("eks-stable-diffusion"));
    world.run(HEARTBEAT * 3);
    world.add("p", WorkerKind::Preprocess, 2.0);
    world.add("a", WorkerKind::Inference, 8.0);
    world.run(ms(200));
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::Deploying);
    assert!(message.contains("1 GPU"), "{message}");
    let mut world = World::new(external(), {
        let mut intent = sample("eks-stable-diffusion");
        let need = &mut intent.config.applications[0].deployments[1].need;
        need.custom.insert("accelerator_type:L4".into(), 10);
        intent
    });
    world.run(HEARTBEAT * 3);
    world.add("p", WorkerKind::Preprocess, 2.0);
    let groups = sample("eks-stable-diffusion").config.worker_groups;
    join(&mut world, "a", &groups[0]);
    world.run(ms(200));
    assert!(world.application().1.contains("accelerator_type:L4"));
    let mut typed = groups[0].clone();
    typed
        .resources
        .custom
        .insert("accelerator_type:L4".into(), 10_000);
    join(&mut world, "b", &typed);
    world.run(ms(200));
    running(&world, "with an accelerator type");
}
