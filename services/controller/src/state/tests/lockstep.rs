//! Updates of split applications: some model always has a replica of every part.

use mobula_proto::control::v1::{ApplicationState, ReplicaState, RolloutState, WorkerKind};
use proptest::prelude::*;

use super::{super::*, world::*};

const PARTS: [&str; 3] = ["text_encoder", "denoiser", "vae"];

/// A split application that runs, with so many workers of one CPU beyond those that it needs.
fn mesh(counts: [u32; 3], spare: u32) -> World {
    let mut world = World::new(external(), split(counts, "old"));
    world.run(HEARTBEAT * 3);
    world.add("p", WorkerKind::Preprocess, 8.0);
    for w in 0..counts.iter().sum::<u32>() + spare {
        world.add(&format!("w{w}"), WorkerKind::Inference, 1.0);
    }
    world.run(Duration::from_secs(4));
    let (state, message) = world.application();
    assert_eq!(state, ApplicationState::Running, "{message}");
    world
}

/// Running replicas of each part that have the model, as the newest table has them.
fn routed(world: &World, model: &str) -> [usize; 3] {
    let routes = &world.tables.last().unwrap().applications[0].deployments;
    let has = |id: &str| {
        let mut reports = world.workers.values().flat_map(|worker| &worker.replicas);
        reports.any(|(known, report)| known == id && report.spec.as_ref().unwrap().model == model)
    };
    PARTS.map(|part| {
        let route = routes.iter().find(|route| route.name == part).unwrap();
        let ids = route.replicas.iter().map(|replica| replica.replica_id.as_str());
        ids.filter(|id| has(id)).count()
    })
}

fn serves(world: &World, model: &str) -> bool {
    routed(world, model).iter().all(|count| *count > 0)
}

/// Lets time pass and gives whether one of the models had every part all the while.
fn always(world: &mut World, time: Duration, models: &[&str]) -> bool {
    let end = world.now + time;
    let mut always = true;
    while world.now < end {
        world.run(ms(100));
        always &= models.iter().any(|model| serves(world, model));
    }
    always
}

fn rollouts(world: &World) -> Vec<RolloutState> {
    let status = |index| world.deployment(index).rollout.map(|rollout| rollout.state());
    (1..4).filter_map(status).collect()
}

/// Replicas of the model that are started from now on on workers of these places come up only when they are told to.
fn hold_back(world: &mut World, outcome: ReplicaState) {
    for worker in world.workers.values_mut() {
        worker.outcome = (outcome, "");
    }
}

/// The replicas of this part that are starting run.
fn come_up(world: &mut World, part: &str) {
    for worker in world.workers.values_mut() {
        for report in worker.replicas.values_mut() {
            let of_part = report.replica_id.contains(&format!("#{part}#"));
            if of_part && report.state() == ReplicaState::Starting {
                report.state = ReplicaState::Running.into();
            }
        }
    }
}

#[test]
fn parts_of_the_old_model_stay_until_every_part_of_the_new_one_runs_in_whatever_order_they_come() {
    for order in [
        ["denoiser", "vae", "text_encoder"],
        PARTS,
        ["vae", "text_encoder", "denoiser"],
    ] {
        let mut world = mesh([1, 2, 1], 4);
        hold_back(&mut world, ReplicaState::Starting);
        world.intend(split([1, 2, 1], "new"));
        for part in &order[..2] {
            world.run(ms(500));
            come_up(&mut world, part);
            assert!(always(&mut world, Duration::from_secs(8), &["old"]));
            assert_eq!(routed(&world, "old"), [1, 2, 1], "{part} of {order:?}");
        }
        let index = 1 + PARTS.iter().position(|part| *part == order[0]).unwrap();
        let message = world.deployment(index).message;
        assert!(
            message.contains(&format!("as far as {} has no replicas", order[2])),
            "{message}"
        );
        hold_back(&mut world, ReplicaState::Running);
        come_up(&mut world, order[2]);
        come_up(&mut world, "preprocess");
        assert!(always(&mut world, Duration::from_secs(20), &["old", "new"]));
        assert_eq!(routed(&world, "new"), [1, 2, 1]);
        assert_eq!(routed(&world, "old"), [0; 3]);
        assert_eq!(rollouts(&world), [RolloutState::Complete; 3]);
        assert_eq!(world.application(), (ApplicationState::Running, String::new()));
    }
}

#[test]
fn what_draws_leaves_first_and_what_it_needs_when_its_requests_are_done() {
    let mut world = mesh([1, 1, 1], 3);
    world.draw();
    world.intend(split([1, 1, 1], "new"));
    world.run(Duration::from_secs(10));
    assert_eq!(
        routed(&world, "old"),
        [1, 0, 1],
        "the denoiser has something to finish"
    );
    world.finish();
    world.run(Duration::from_secs(3));
    assert_eq!(routed(&world, "old"), [0; 3]);
    assert_eq!(rollouts(&world), [RolloutState::Complete; 3]);
}

#[test]
fn an_update_that_fails_in_one_part_goes_back_as_a_whole_and_the_old_model_serves_all_the_while() {
    let mut world = mesh([2, 2, 2], 6);
    world.intend(split([2, 2, 2], "new"));
    hold_back(&mut world, ReplicaState::Starting);
    world.run(ms(500));
    come_up(&mut world, "denoiser");
    come_up(&mut world, "text_encoder");
    world.run(Duration::from_secs(5));
    for worker in world.workers.values_mut() {
        worker.outcome = (ReplicaState::Running, "");
        worker.broken = Some("new".into());
        for report in worker.replicas.values_mut() {
            if report.state() == ReplicaState::Starting {
                report.state = ReplicaState::Failed.into();
                report.message = "no such file".into();
            }
        }
    }
    for _ in 0..300 {
        assert!(always(&mut world, ms(200), &["old"]));
        if !world.rolled_back.is_empty() {
            break;
        }
    }
    assert_eq!(world.rolled_back.len(), 1, "{}", world.application().1);
    world.intend(split([2, 2, 2], "old"));
    assert!(always(&mut world, Duration::from_secs(20), &["old"]));
    assert_eq!(routed(&world, "old"), [2; 3]);
    assert_eq!(routed(&world, "new"), [0; 3]);
    assert_eq!(world.application().0, ApplicationState::Running);
}

#[test]
fn a_person_who_goes_back_amid_an_update_loses_nothing_either() {
    let mut world = mesh([1, 3, 2], 6);
    for time in [300, 2_000, 3_500, 4_500, 6_000] {
        world.intend(split([1, 3, 2], "new"));
        assert!(always(&mut world, ms(time), &["old", "new"]));
        world.intend(split([1, 3, 2], "old"));
        assert!(always(&mut world, Duration::from_secs(30), &["old", "new"]));
        assert_eq!(routed(&world, "old"), [1, 3, 2], "after {time} ms");
    }
}

#[test]
fn with_room_for_two_more_replicas_of_each_part_in_turn_no_model_is_ever_broken() {
    // Room for one beside those that run; the surplus of one part makes room for the others.
    let mut world = mesh([3, 1, 1], 1);
    world.intend(split([3, 1, 1], "new"));
    assert!(always(&mut world, Duration::from_secs(150), &["old", "new"]));
    assert_eq!(routed(&world, "new"), [3, 1, 1]);
    assert_eq!(world.application().0, ApplicationState::Running);
}

#[test]
fn without_room_for_both_the_last_of_a_part_leaves_after_a_while_and_the_status_says_so() {
    let mut world = mesh([1, 1, 1], 0);
    world.intend(split([1, 1, 1], "new"));
    assert!(
        always(&mut world, Duration::from_secs(8), &["old"]),
        "room may come"
    );
    let mut told = String::new();
    for _ in 0..600 {
        world.run(ms(100));
        told += &world.application().1;
    }
    assert!(told.contains("no room for replicas of every part"), "{told}");
    assert_eq!(routed(&world, "new"), [1; 3]);
    assert_eq!(world.application(), (ApplicationState::Running, String::new()));
}

#[test]
fn options_that_leave_the_model_as_it_is_reach_each_part_by_itself() {
    let mut world = mesh([1, 1, 1], 3);
    let mut other = split([1, 1, 1], "old");
    other.config.applications[0].deployments[3]
        .options
        .insert("decode_us".into(), "5".into());
    hold_back(&mut world, ReplicaState::Running);
    world.intend(other);
    world.run(Duration::from_secs(6));
    assert_eq!(routed(&world, "old"), [1; 3]);
    assert_eq!(rollouts(&world), [RolloutState::Complete]);
}

#[derive(Clone, Debug)]
enum Step {
    Deploy(usize, [u32; 3]),
    /// Replicas of a part that are starting run, or fail.
    Come(usize, bool),
    Crash(usize),
    Busy(usize, bool),
    HoldBack(bool),
    Pass(u64),
}

const MODELS: [&str; 3] = ["old", "new", "other"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_usize..3, prop::array::uniform3(1_u32..4)).prop_map(|(model, counts)| Step::Deploy(model, counts)),
        (0_usize..3, any::<bool>()).prop_map(|(part, runs)| Step::Come(part, runs)),
        (0_usize..3).prop_map(|part| Step::Come(part, true)),
        (0_usize..20).prop_map(Step::Crash),
        (0_usize..20, any::<bool>()).prop_map(|(worker, on)| Step::Busy(worker, on)),
        any::<bool>().prop_map(Step::HoldBack),
        (1_u64..5_000).prop_map(Step::Pass),
        (1_u64..12_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..30)
}

fn take(world: &mut World, step: Step, last: &mut (usize, [u32; 3])) {
    let nth = |world: &World, n: usize| world.workers.keys().nth(n).cloned().unwrap_or_default();
    match step {
        Step::Deploy(model, counts) => {
            *last = (model, counts);
            world.intend(split(counts, MODELS[model]));
        }
        Step::Come(part, true) => come_up(world, PARTS[part]),
        Step::Come(part, false) => {
            let name = format!("#{}#", PARTS[part]);
            let reports = world.workers.values_mut().flat_map(|w| w.replicas.values_mut());
            for report in reports.filter(|report| report.replica_id.contains(&name)) {
                if report.state() == ReplicaState::Starting {
                    report.state = ReplicaState::Failed.into();
                }
            }
        }
        Step::Crash(n) => {
            let id = nth(world, n);
            if let Some(worker) = world.workers.get_mut(&id) {
                worker.replicas.clear();
                world.hello(&id);
            }
        }
        Step::Busy(n, on) => {
            let id = nth(world, n);
            if let Some(worker) = world.workers.get_mut(&id) {
                worker.busy = on;
                worker
                    .replicas
                    .retain(|_, report| on || report.state() != ReplicaState::Stopping);
            }
        }
        Step::HoldBack(on) => {
            let outcome = if on {
                ReplicaState::Starting
            } else {
                ReplicaState::Running
            };
            hold_back(world, outcome);
        }
        Step::Pass(time) => world.run(ms(time)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// [`World::check_parts`] looks after every settling: nothing that is decided leaves no model whole.
    #[test]
    fn in_whatever_order_parts_come_crash_and_drain_no_decision_leaves_every_model_without_a_part(
        spare in 0_u32..12,
        steps in steps(),
    ) {
        let mut last = (0, [2, 2, 2]);
        let mut world = mesh(last.1, spare);
        for step in steps {
            take(&mut world, step, &mut last);
            world.settle();
        }
        hold_back(&mut world, ReplicaState::Running);
        for worker in world.workers.values_mut() {
            worker.busy = false;
            worker.replicas.clear();
        }
        let ids: Vec<String> = world.workers.keys().cloned().collect();
        ids.iter().for_each(|id| world.hello(id));
        for w in 0..9 {
            world.add(&format!("new{w}"), WorkerKind::Inference, 1.0);
        }
        let (model, counts) = last;
        let mut again = split(counts, MODELS[model]);
        let meta = crate::intent::Meta { resource_version: 1_000, ..Default::default() };
        again.applications.insert("default".into(), meta);
        world.intend(again);
        world.run_by(Duration::from_secs(100), ms(500));
        let (state, message) = world.application();
        prop_assert_eq!(state, ApplicationState::Running, "{}", message);
        prop_assert_eq!(routed(&world, MODELS[model]), counts.map(|count| count as usize));
    }
}
