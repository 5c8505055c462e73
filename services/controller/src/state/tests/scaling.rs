use mobula_proto::control::v1::{
    ApplicationState, DeploymentState, DeploymentTrigger, ScalingState, WorkerKind,
};
use mobula_schema::Count;

use super::{super::*, world::*};

fn mesh(intent: Intent) -> World {
    let mut world = World::new(external(), intent);
    world.run(HEARTBEAT * 3);
    world.add("p", WorkerKind::Preprocess, 8.0);
    for id in ["a", "b", "c"] {
        world.add(id, WorkerKind::Inference, 2.0);
    }
    world.run(ms(300));
    world
}

/// Lets time pass while a proxy says the same every second.
fn asked(world: &mut World, queued: u32, running: u32, seconds: u64) {
    for _ in 0..seconds {
        world.ask("proxy", &[("pipeline", queued, running)]);
        world.run(ms(1_000));
    }
}

#[test]
fn load_brings_replicas_and_their_lack_takes_them_away() {
    let mut world = mesh(auto(1, 4));
    assert_eq!(world.routed(1).len(), 1);
    asked(&mut world, 4, 2, 3);
    let status = world.deployment(1);
    assert_eq!(status.target_replicas, 3, "6 requests, 2 for each");
    assert_eq!(
        (status.state(), status.trigger()),
        (DeploymentState::Healthy, DeploymentTrigger::UpscaleCompleted)
    );
    let scaling = status.scaling.unwrap();
    assert_eq!(scaling.state(), ScalingState::Stable);
    assert_eq!((scaling.min_replicas, scaling.max_replicas), (1, 4));
    assert_eq!((scaling.decisions[0].from, scaling.decisions[0].to), (1, 3));
    assert!(!scaling.decisions[0].reason.is_empty());
    assert_eq!(scaling.decisions[0].policy, "ongoing");
    assert!(scaling.metrics_age_ms.is_some());
    assert_eq!(world.decisions.len(), 1, "the ledger keeps it");
    assert!(world.decisions[0].at_unix_ms > 1_700_000_000_000);
    asked(&mut world, 0, 0, 12);
    assert_eq!(world.deployment(1).target_replicas, 1);
    assert_eq!((world.routed(1).len(), world.drained), (1, 2));
    assert_eq!(world.application().0, ApplicationState::Running);
}

/// Data on EKS's sample: a proxy that were taken for silent between two reports would begin the delay anew each time.
#[test]
fn load_that_is_told_as_often_as_proxies_are_told_to_outlasts_a_long_delay() {
    let mut intent = auto(1, 4);
    let Count::Auto(scaling) = &mut intent.config.applications[0].deployments[1].count else {
        panic!("it scales");
    };
    scaling.metrics_interval = ms(200);
    scaling.look_back = ms(2_000);
    scaling.upscale_delay = ms(30_000);
    let mut world = mesh(intent);
    let interval = u64::from(world.tables.last().unwrap().report_interval_ms);
    let begun = world.now;
    while world.now - begun < ms(32_000) {
        world.ask("proxy", &[("pipeline", 4, 2)]);
        // A proxy's timer is late, never early.
        world.run(ms(interval + 1));
    }
    assert_eq!(world.deployment(1).target_replicas, 3, "6 requests, 2 for each");
}

#[test]
fn load_that_is_over_leaves_the_mean_while_proxies_report_as_long_as_they_are_told_to() {
    let mut intent = auto(1, 4);
    let Count::Auto(scaling) = &mut intent.config.applications[0].deployments[1].count else {
        panic!("it scales");
    };
    scaling.look_back = ms(6_000);
    scaling.downscale_delay = ms(600_000);
    let mut world = mesh(intent);
    let look_back = world.tables.last().unwrap().look_back_ms;
    assert_eq!(look_back, 6_000);
    asked(&mut world, 4, 2, 10);
    asked(&mut world, 0, 0, 1);
    let total = |world: &World| world.deployment(1).scaling.unwrap().total_requests;
    assert!(total(&world) > 3.0, "just now there was load: {}", total(&world));
    asked(&mut world, 0, 0, look_back / 1_000);
    assert!(total(&world).abs() < 1e-9, "{}", total(&world));
}

#[test]
fn at_zero_a_request_is_expected_to_wait_and_brings_a_replica_at_once() {
    let mut world = mesh(auto(0, 2));
    assert!(world.routed(1).is_empty());
    assert_eq!(world.application().0, ApplicationState::Running);
    assert!(world.tables.last().unwrap().applications[0].deployments[1].expected);
    world.ask("proxy", &[("pipeline", 1, 0)]);
    let asked_at = world.now;
    while world.routed(1).is_empty() {
        world.run(ms(50));
    }
    assert!(world.now - asked_at <= ms(200), "{:?}", world.now - asked_at);
    asked(&mut world, 0, 1, 3);
    asked(&mut world, 0, 0, 20);
    assert!(world.routed(1).is_empty());
    assert_eq!(world.decisions.len(), 2);
}

#[test]
fn everything_that_a_request_needs_comes_and_stays_together() {
    let mut intent = auto(0, 2);
    let [preprocess, pipeline] = &mut intent.config.applications[0].deployments[..] else {
        panic!("two deployments");
    };
    preprocess.count = pipeline.count.clone();
    let mut world = mesh(intent);
    assert_eq!((world.routed(0).len(), world.routed(1).len()), (0, 0));
    // The request waits for its first station; the second one is started with it.
    world.ask("proxy", &[("preprocess", 1, 0)]);
    world.run(ms(300));
    assert_eq!((world.routed(0).len(), world.routed(1).len()), (1, 1));
    assert_eq!(world.decisions.len(), 2, "both are decided, and kept");
    // Busy at the last station: the first stays for what comes next.
    asked(&mut world, 0, 1, 15);
    assert_eq!((world.routed(0).len(), world.routed(1).len()), (1, 1));
    asked(&mut world, 0, 0, 30);
    assert_eq!((world.routed(0).len(), world.routed(1).len()), (0, 0));
}

#[test]
fn a_proxy_that_is_gone_or_silent_asks_for_nothing() {
    let mut world = mesh(auto(0, 2));
    world.ask("proxy", &[("pipeline", 4, 0)]);
    world.run(ms(2_500));
    assert_eq!(world.routed(1).len(), 2);
    world.event(Event::ProxyGone {
        proxy: "proxy".into(),
    });
    world.run(Duration::from_secs(15));
    assert!(world.routed(1).is_empty());
    world.ask("other", &[("pipeline", 1, 0)]);
    world.run(Duration::from_secs(40));
    assert!(world.routed(1).is_empty(), "it was not heard of for 10 s");
}

#[test]
fn a_restart_of_the_controller_takes_no_replica_away() {
    let mut world = mesh(auto(1, 4));
    asked(&mut world, 4, 2, 3);
    assert_eq!(world.routed(1).len(), 3);
    let before = world.placed();
    // The number is not known: whoever reports counts.
    world.restart_controller(external(), auto(1, 4));
    for id in ["a", "b", "c", "p"] {
        world.hello(id);
    }
    world.run(ms(4_000));
    assert_eq!((world.placed(), world.drained), (before.clone(), 0));
    assert_eq!(world.deployment(1).target_replicas, 3);
    // The number is known: nobody is waited for, and a lost one is made again.
    let mut known = auto(1, 4);
    known.targets.insert(("default".into(), "pipeline".into()), 3);
    world.restart_controller(external(), known);
    for id in ["a", "b", "c", "p"] {
        world.hello(id);
    }
    world.run(ms(100));
    assert_eq!((world.placed(), world.routed(1).len()), (before, 3));
}

#[test]
fn what_the_ledger_keeps_of_a_decision_does_not_decide_again() {
    let mut world = mesh(auto(1, 4));
    asked(&mut world, 4, 2, 3);
    let mut late = auto(1, 4);
    late.targets.insert(("default".into(), "pipeline".into()), 1);
    world.intend(late);
    world.run(ms(300));
    assert_eq!(world.routed(1).len(), 3);
}

#[test]
fn target_capacity_bounds_a_scaler() {
    let mut world = mesh(auto(2, 4));
    let mut half = auto(2, 4);
    half.config.options.target_capacity = Some(50.0);
    world.intend(half.clone());
    asked(&mut world, 20, 0, 3);
    assert_eq!(world.deployment(1).target_replicas, 2);
    half.config.options.target_capacity = Some(0.0);
    world.intend(half);
    asked(&mut world, 1, 0, 3);
    assert_eq!(world.routed(1).len(), 0);
    assert!(!world.tables.last().unwrap().applications[0].deployments[1].expected);
}

#[test]
fn requests_wait_for_what_is_scaled_to_nothing_from_outside_and_not_for_what_is_switched_off() {
    let mut outside = schema(2);
    outside.config.applications[0].external_scaler = true;
    let mut world = mesh(outside.clone());
    outside.targets.insert(("default".into(), "pipeline".into()), 0);
    world.intend(outside.clone());
    world.run(ms(300));
    let route = |world: &World| world.tables.last().unwrap().applications[0].deployments[1].clone();
    assert!(world.routed(1).is_empty());
    assert!(route(&world).expected, "{}", route(&world).why_none);
    outside.targets.insert(("default".into(), "pipeline".into()), 2);
    world.intend(outside.clone());
    world.run(ms(300));
    assert_eq!(world.routed(1).len(), 2);
    outside.config.options.target_capacity = Some(0.0);
    world.intend(outside);
    world.run(ms(300));
    assert!(!route(&world).expected);
}

#[test]
fn a_fixed_number_may_become_a_scaled_one_and_back() {
    let mut world = mesh(schema(3));
    world.intend(auto(1, 4));
    world.run(ms(300));
    assert_eq!(world.deployment(1).target_replicas, 3, "from where it is");
    asked(&mut world, 0, 0, 10);
    assert_eq!(world.deployment(1).target_replicas, 1);
    world.intend(schema(2));
    world.run(ms(300));
    let status = world.deployment(1);
    assert_eq!((status.target_replicas, status.scaling), (2, None));
    assert!(matches!(
        world.state.intent.config.applications[0].deployments[1].count,
        Count::Fixed(2)
    ));
    asked(&mut world, 9, 9, 5);
    assert_eq!(world.deployment(1).target_replicas, 2);
}

#[test]
fn an_idle_scaler_asks_for_no_time() {
    let mut world = mesh(auto(1, 4));
    asked(&mut world, 0, 1, 2);
    asked(&mut world, 0, 0, 15);
    world.run(Duration::from_secs(30));
    assert!(world.state.ticks.is_empty(), "{:?}", world.state.ticks);
}
