//! Replicas that proxies send less than their share: what a proxy said of them holds for as long as it said.

use mobula_proto::control::v1::{self as pb, WorkerKind};

use super::{super::*, world::*};

/// What the status says that a proxy said.
fn told(world: &World) -> Vec<pb::RestrainedReplica> {
    let proxies = world.state.status(world.now).proxies;
    proxies.into_iter().flat_map(|proxy| proxy.restrained).collect()
}

fn says(world: &mut World, restrained: Vec<pb::RestrainedReplica>) {
    let request = pb::ReportDemandRequest {
        proxy_id: "p".into(),
        restrained,
        ..Default::default()
    };
    world.event(Event::Demand {
        proxy: "p".into(),
        request,
    });
}

#[test]
fn what_a_proxy_says_of_replicas_holds_for_so_long_and_until_it_says_otherwise_or_leaves() {
    let mut world = World::new(external(), schema(1));
    world.run(HEARTBEAT * 3);
    world.add("t", WorkerKind::Preprocess, 8.0);
    world.add("a", WorkerKind::Inference, 2.0);
    world.run(ms(300));
    let proxy = pb::ProxyStatus {
        proxy_id: "p".into(),
        ..Default::default()
    };
    world.event(Event::Watched { watch: 1, proxy });
    let id = world.deployment(1).replicas[0].replica_id.clone();
    let restrained = |id: &str, ejected_ms, ejections, slow_start_ms| pb::RestrainedReplica {
        replica_id: id.into(),
        ejected_ms,
        ejections,
        slow_start_ms,
    };
    says(
        &mut world,
        vec![
            restrained(&id, 5_000, 2, 15_000),
            restrained("nobody", 5_000, 1, 5_000),
        ],
    );
    assert_eq!(
        told(&world),
        [restrained(&id, 5_000, 2, 15_000)],
        "of what is there"
    );
    world.now += ms(4_000);
    assert_eq!(told(&world), [restrained(&id, 1_000, 2, 11_000)]);
    world.now += ms(2_000);
    assert_eq!(told(&world), [restrained(&id, 0, 0, 9_000)]);
    says(&mut world, Vec::new());
    assert!(told(&world).is_empty(), "it is over sooner");
    says(&mut world, vec![restrained(&id, u64::MAX, 1, u64::MAX)]);
    assert_eq!(told(&world)[0].ejected_ms, 3_600_000, "no longer than can be");
    world.event(Event::ProxyGone { proxy: "p".into() });
    assert!(told(&world).is_empty());
}
