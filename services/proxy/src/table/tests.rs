use mobula_kit::Stop;
use mobula_proto::control::v1::{ApplicationRoute, DeploymentRoute, ReplicaEndpoint, WorkerKind};
use mobula_serving::{admission::Bounds, fair::Claim};

use super::*;
use crate::{clock::Clock, pool::Want};

fn fleet() -> Fleet {
    Fleet::new(Settings {
        proxy_id: "proxy".into(),
        no_replica_timeout: Duration::from_secs(1),
        bounds: Bounds {
            requests: 10,
            ..Bounds::default()
        },
        slow_start: Duration::ZERO,
        node: "".into(),
        zone: "".into(),
        clock: Clock::start(),
        stop: Stop::new(Duration::from_secs(1)),
        signal: Arc::default(),
    })
}

fn replica(id: &str) -> ReplicaEndpoint {
    let model = ModelInfo {
        digest: "d".into(),
        ..ModelInfo::default()
    };
    ReplicaEndpoint {
        replica_id: id.into(),
        address: "127.0.0.1:1".into(),
        model: Some(model),
        ..Default::default()
    }
}

fn application(name: &str, prefix: &str, replicas: &[&str]) -> ApplicationRoute {
    let deployment = DeploymentRoute {
        name: "pipeline".into(),
        kind: WorkerKind::Inference.into(),
        max_ongoing_requests: 1,
        replicas: replicas.iter().map(|id| replica(id)).collect(),
        ..Default::default()
    };
    ApplicationRoute {
        name: name.into(),
        route_prefix: prefix.into(),
        deployments: vec![deployment],
        ..Default::default()
    }
}

fn routes(controller: &str, applications: &[ApplicationRoute]) -> WatchRoutesResponse {
    WatchRoutesResponse {
        version: 1,
        controller_id: controller.into(),
        applications: applications.to_vec(),
        ..Default::default()
    }
}

fn ids(fleet: &Fleet, name: &str) -> Vec<String> {
    let table = Arc::clone(&fleet.table.borrow());
    let pool = table.by_name(name).unwrap().pipeline.clone().unwrap();
    pool.replicas().iter().map(|replica| replica.id.clone()).collect()
}

#[tokio::test]
async fn the_longest_prefix_of_whole_segments_wins() {
    let fleet = fleet();
    fleet.apply(&routes(
        "c",
        &[
            application("root", "/", &[]),
            application("a", "/a", &[]),
            application("ab", "/a/b", &[]),
            application("hidden", "", &[]),
        ],
    ));
    let table = Arc::clone(&fleet.table.borrow());
    let find = |path| table.by_path(path).map(|(a, rest)| (a.name.clone(), rest));
    assert_eq!(find("/imagine"), Some(("root".into(), "/imagine")));
    assert_eq!(find("/a/imagine"), Some(("a".into(), "/imagine")));
    assert_eq!(find("/a/b/imagine"), Some(("ab".into(), "/imagine")));
    assert_eq!(find("/ab/imagine"), Some(("root".into(), "/ab/imagine")));
    assert_eq!(find("/a"), Some(("a".into(), "/")));
}

#[tokio::test]
async fn a_name_may_be_left_out_when_there_is_one() {
    let fleet = fleet();
    assert!(matches!(fleet.table.borrow().by_name(""), Err(Error::NoRoutes)));
    fleet.apply(&routes("c", &[application("only", "/", &[])]));
    assert_eq!(fleet.table.borrow().by_name("").unwrap().name, "only");
    assert!(
        matches!(fleet.table.borrow().by_name("x"), Err(Error::UnknownModel { known, .. }) if known == ["only"])
    );
    fleet.apply(&routes(
        "c",
        &[application("b", "/b", &[]), application("a", "/a", &[])],
    ));
    assert!(
        matches!(fleet.table.borrow().by_name(""), Err(Error::ModelNotNamed { known }) if known == ["a", "b"])
    );
}

#[tokio::test]
async fn the_model_of_an_application_outlives_its_replicas() {
    let fleet = fleet();
    fleet.apply(&routes("c", &[application("a", "/", &["r1"])]));
    fleet.apply(&routes("c", &[application("a", "/", &[])]));
    assert_eq!(ids(&fleet, "a"), Vec::<String>::new());
    assert!(fleet.table.borrow().by_name("a").unwrap().model.is_some());
}

#[tokio::test]
async fn what_is_known_of_a_replica_lives_on_from_table_to_table() {
    let fleet = fleet();
    fleet.apply(&routes("c", &[application("a", "/", &["r1", "r2"])]));
    let pool = fleet
        .table
        .borrow()
        .by_name("a")
        .unwrap()
        .pipeline
        .clone()
        .unwrap();
    let first = pool.replicas()[0].clone();
    fleet.apply(&routes("c", &[application("a", "/", &["r3", "r1"])]));
    assert_eq!(ids(&fleet, "a"), ["r3", "r1"]);
    assert!(Arc::ptr_eq(&first, &pool.replicas()[1]));
}

#[tokio::test(start_paused = true)]
async fn who_has_looked_before_an_application_is_served_by_others_is_sent_to_them() {
    let fleet = fleet();
    let named = |name: &str, replicas: &[&str]| {
        let mut application = application("a", "/", replicas);
        application.deployments[0].name = name.into();
        application
    };
    let pool = || {
        let table = Arc::clone(&fleet.table.borrow());
        table.by_name("a").unwrap().pipeline.clone().unwrap()
    };
    let claim = Claim::default();
    let sent_on = async |pool: &Arc<Pool>| {
        let mut place = pool.admit(Want::least((&claim, false), None)).unwrap().place;
        matches!(place.acquire().await, Err(Error::Moved { .. }))
    };
    fleet.apply(&routes("c", &[named("one", &["r1"])]));
    let one = pool();
    fleet.apply(&routes("c", &[named("other", &["r2"])]));
    assert!(sent_on(&one).await);
    // The other stays in the table, without a replica and behind one that has some.
    let other = pool();
    let mut both = named("other", &[]);
    both.deployments.extend(named("one", &["r3"]).deployments);
    fleet.apply(&routes("c", &[both]));
    assert!(sent_on(&other).await);
    let one = pool();
    assert_eq!(one.replicas().len(), 1);
    // And comes back.
    fleet.apply(&routes("c", &[named("other", &["r4"])]));
    assert!(sent_on(&one).await);
    assert!(Arc::ptr_eq(&pool(), &other));
    assert_eq!(ids(&fleet, "a"), ["r4"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_controller_takes_nothing_away_until_it_knows() {
    let fleet = fleet();
    assert_eq!(
        fleet.apply(&routes("c1", &[application("a", "/", &["r1", "r2"])])),
        None
    );
    let next = routes("c2", &[application("a", "/", &["r3"])]);
    let left = fleet.apply(&next).unwrap();
    assert_eq!(ids(&fleet, "a"), ["r3", "r1", "r2"]);
    tokio::time::advance(left).await;
    assert_eq!(fleet.apply(&next), None);
    assert_eq!(ids(&fleet, "a"), ["r3"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_controller_takes_away_at_once() {
    let fleet = fleet();
    fleet.apply(&routes("c1", &[application("a", "/", &["r1", "r2"])]));
    fleet.apply(&routes("c1", &[application("a", "/", &["r2"])]));
    assert_eq!(ids(&fleet, "a"), ["r2"]);
}

/// What [`merge`] is to come to, looked for by hand.
fn merged_by_hand(before: &WatchRoutesResponse, next: &WatchRoutesResponse) -> (WatchRoutesResponse, bool) {
    let mut merged = next.clone();
    for old in &before.applications {
        let Some(new) = merged.applications.iter_mut().find(|a| a.name == old.name) else {
            merged.applications.push(old.clone());
            continue;
        };
        let (new, old) = (&mut new.deployments[0], &old.deployments[0]);
        for replica in &old.replicas {
            if new.replicas.iter().all(|r| r.replica_id != replica.replica_id) {
                new.replicas.push(replica.clone());
            }
        }
    }
    let kept = merged != *next;
    (merged, kept)
}

proptest::proptest! {
    #[test]
    fn a_merged_table_has_what_the_new_one_says_and_what_the_old_one_has_besides(
        tables in proptest::array::uniform2(proptest::collection::btree_map(
            0..9_u8, proptest::collection::btree_set(0..9_u8, 0..6), 0..9,
        )),
    ) {
        let [before, next] = tables.map(|table| {
            let application = |(name, ids): (u8, std::collections::BTreeSet<u8>)| {
                let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                application(&name.to_string(), "/", &ids)
            };
            routes("c", &table.into_iter().map(application).collect::<Vec<_>>())
        });
        proptest::prop_assert_eq!(merge(&before, &next), merged_by_hand(&before, &next));
    }
}

#[tokio::test]
async fn what_is_measured_of_an_application_ends_with_its_place_in_the_table_and_its_last_request() {
    let handle = mobula_kit::metrics::install();
    let page = || mobula_kit::metrics::render(&handle);
    let lines = |of: &str| page().lines().filter(|line| line.contains(of)).count();
    let fleet = fleet();
    let table = || Arc::clone(&fleet.table.borrow());
    fleet.apply(&routes("c", &[application("brief", "/brief", &["brief#1"])]));
    let count = |path: &str| {
        let table = table();
        let (application, _) = table.by_path(path).unwrap();
        application
            .ingress
            .called(tonic::Code::Unavailable, tokio::time::Instant::now());
        Arc::clone(application)
    };
    drop(count("/brief"));
    assert!(lines(r#"replica_id="brief#1""#) == 1, "{}", page());
    // Replicas, one after the other, leave nothing behind.
    for id in ["brief#2", "brief#3"] {
        fleet.apply(&routes("c", &[application("brief", "/moved", &[id])]));
        assert_eq!(lines("replica_id=\"brief#"), 1, "{}", page());
        assert_eq!(lines(&format!("replica_id=\"{id}\"")), 1, "{}", page());
        assert_eq!(lines("route=\"/brief\""), 0, "{}", page());
    }
    let runs = count("/moved");
    fleet.apply(&routes("c", &[]));
    assert!(lines("application=\"brief\"") > 0, "{}", page());
    drop(runs);
    assert_eq!(lines("application=\"brief\""), 0, "{}", page());
}
