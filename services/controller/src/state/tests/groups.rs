use mobula_proto::control::v1::{ApplicationState, WorkerKind};
use mobula_schema::WorkerGroup;
use mobula_serving::place::UNIT;

use super::{super::*, world::*};

fn group(name: &str, kind: Kind, cpus: u64, min: u32, max: u32) -> WorkerGroup {
    WorkerGroup {
        name: name.into(),
        kind,
        min,
        max,
        idle_timeout: Duration::from_secs(20),
        resources: Amounts {
            cpus: cpus * UNIT,
            ..Amounts::default()
        },
        labels: [("pool".to_owned(), name.to_owned())].into(),
        replicas_per_worker: None,
    }
}

fn grouped(pipelines: u32) -> Intent {
    let mut intent = schema(pipelines);
    intent.config.worker_groups = vec![
        group("small", Kind::Inference, 2, 1, 3),
        group("large", Kind::Inference, 8, 0, 2),
        group("prep", Kind::Preprocess, 4, 0, 1),
    ];
    intent
}

fn started(world: &World) -> Vec<String> {
    let mut groups: Vec<String> = world
        .started
        .iter()
        .map(|(id, _)| world.starts[id].group.clone())
        .collect();
    groups.sort();
    groups
}

#[test]
fn the_cheapest_group_grows_and_its_workers_are_started_as_it_says() {
    let mut world = World::new(process(&[]), grouped(4));
    world.run(ms(300));
    assert_eq!(
        started(&world),
        ["prep", "small", "small"],
        "two on each small one"
    );
    let start = world
        .starts
        .values()
        .find(|start| start.group == "small")
        .unwrap();
    assert_eq!(
        flags(&start.labels, &start.resources),
        [
            "--cpus",
            "2",
            "--label",
            "mobula.io/group=small",
            "--label",
            "pool=small"
        ]
    );
    let status = world.state.status(world.now).worker_groups;
    let small = &status[0];
    assert_eq!((small.wanted, small.attached, small.starting), (2, 0, 2));
    world.launch();
    world.run(ms(300));
    assert_eq!(world.application().0, ApplicationState::Running);
    let status = world.state.status(world.now);
    assert_eq!(
        (status.worker_groups[0].attached, status.worker_groups[0].starting),
        (2, 0)
    );
    assert!(status.workers.iter().all(|worker| !worker.group.is_empty()));
}

#[test]
fn a_kind_without_a_group_has_one_of_our_own() {
    let mut intent = schema(1);
    // As a RayService has it: groups for what draws, and none for the rest. The name is no hindrance.
    intent.config.worker_groups = vec![group("preprocess", Kind::Inference, 4, 1, 1)];
    let mut world = World::new(process(&[]), intent.clone());
    world.run(ms(300));
    assert_eq!(started(&world), ["own-preprocess", "preprocess"]);
    world.launch();
    world.run(ms(300));
    assert_eq!(world.application().0, ApplicationState::Running);
    let mut alone = World::new(external(), intent);
    alone.run(HEARTBEAT * 3);
    assert_eq!(
        alone.state.status(alone.now).worker_groups.len(),
        1,
        "who starts workers himself has the groups that he names"
    );
}

#[test]
fn a_full_group_gives_way_to_the_next_and_then_the_status_says_so() {
    let mut world = World::new(process(&[]), grouped(15));
    world.run(ms(300));
    assert_eq!(
        started(&world),
        ["large", "large", "prep", "small", "small", "small"],
        "six for 15: three small ones hold six, two large ones nine of sixteen"
    );
    world.launch();
    world.intend(grouped(25));
    world.run(ms(300));
    let (_, message) = world.application();
    assert!(
        message.contains("its worker groups have as many workers as they may"),
        "{message}"
    );
    let mut huge = grouped(1);
    huge.config.applications[0].deployments[1].need.cpus = 9 * UNIT;
    world.intend(huge);
    world.run(ms(300));
    let (_, message) = world.application();
    assert!(
        message.contains("no worker group has workers that could hold it"),
        "{message}"
    );
}

#[test]
fn idle_workers_leave_after_their_groups_time_and_never_below_its_min() {
    let mut world = World::new(process(&[]), grouped(6));
    world.run(ms(300));
    world.launch();
    world.run(ms(300));
    world.intend(grouped(0));
    world.run(Duration::from_secs(19));
    assert!(world.ended.is_empty());
    world.run(Duration::from_secs(2));
    assert_eq!(world.ended.len(), 2, "of three, one stays");
    for (id, _) in std::mem::take(&mut world.ended) {
        world.exit(&id);
    }
    world.run(Duration::from_secs(30));
    assert!(world.ended.is_empty());
    assert!(world.started.is_empty());
}

#[test]
fn somebody_else_is_told_what_to_start() {
    let mut world = World::new(external(), grouped(3));
    world.run(HEARTBEAT * 3);
    let status = world.state.status(world.now);
    let small = &status.worker_groups[0];
    assert_eq!((small.wanted, small.attached), (2, 0));
    assert_eq!(
        small.message,
        "start 2 more: mobula-inference --controller 127.0.0.1:7265 --cpus 2 --label mobula.io/group=small \
         --label pool=small"
    );
    assert!(
        status.applications[0]
            .message
            .contains("group small grows: start mobula-inference"),
        "{}",
        status.applications[0].message
    );
    assert!(world.started.is_empty());
    world.add("mine", WorkerKind::Inference, 8.0);
    world.run(ms(300));
    assert_eq!(world.routed(1).len(), 3, "whoever starts workers, they are used");
}

#[test]
fn a_surge_without_room_grows_a_group_before_anything_leaves() {
    let mut intent = grouped(2);
    intent.config.worker_groups.remove(1);
    let mut world = World::new(process(&[]), intent.clone());
    world.run(ms(300));
    world.launch();
    world.run(Duration::from_secs(4));
    assert_eq!(world.application().0, ApplicationState::Running);
    intent.config.applications[0].deployments[1].model = "next".into();
    world.intend(intent);
    world.run(ms(300));
    assert_eq!(started(&world), ["small"]);
    world.run(Duration::from_secs(20));
    assert_eq!(world.drained, 0, "a worker is on its way");
    world.launch();
    world.run(Duration::from_secs(10));
    assert_eq!(world.application().0, ApplicationState::Running);
    assert_eq!(world.drained, 2);
}

#[test]
fn what_no_worker_could_ever_hold_has_one_worker_started_and_no_more() {
    let mut intent = schema(1);
    intent.config.applications[0].deployments[1].need.cpus = 4096 * UNIT;
    let mut world = World::new(process(&[]), intent);
    for _ in 0..100 {
        world.run(ms(300));
        world.launch();
    }
    let inference = world
        .starts
        .values()
        .filter(|start| start.kind == Kind::Inference);
    // It is not needed and leaves after its idle time, and then another may show what workers have.
    let bound = 1 + 30 / 10;
    assert!(inference.count() <= bound, "{:?}", world.starts);
    assert!(
        world.application().1.contains("4096"),
        "{:?}",
        world.application()
    );
}
