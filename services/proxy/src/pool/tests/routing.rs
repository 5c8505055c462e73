//! Which replica is asked: not one that fails what it takes, seldom one that is new, the near ones first.

use super::*;
use crate::permit::Permit;

/// Replicas in zones, with room for many requests; a row takes a millisecond.
fn many(pool: &Arc<Pool>, replicas: &[(&str, &str)]) {
    many_of(pool, WorkerKind::Unspecified, replicas);
}

fn many_of(pool: &Arc<Pool>, kind: WorkerKind, replicas: &[(&str, &str)]) {
    let endpoint = |(id, zone): &(&str, &str)| ReplicaEndpoint {
        replica_id: (*id).to_owned(),
        address: "127.0.0.1:1".into(),
        zone: (*zone).to_owned(),
        load: Some(Load {
            row_ns: 1_000_000,
            ..Load::default()
        }),
        ..Default::default()
    };
    let route = DeploymentRoute {
        max_ongoing_requests: 100,
        max_queued_requests: -1,
        kind: kind.into(),
        replicas: replicas.iter().map(endpoint).collect(),
        ..Default::default()
    };
    pool.update(&route, &mut Channels::default());
}

/// Requests of forty rows that run at the same time, and which replicas have them.
async fn running(pool: &Arc<Pool>, count: usize) -> (Vec<(Permit, Place)>, Vec<String>) {
    let mut running = Vec::new();
    for _ in 0..count {
        let mut place = pool.admit(want(40, None)).unwrap().place;
        running.push((place.acquire().await.unwrap(), place));
    }
    let at = running
        .iter()
        .map(|(permit, _)| permit.replica().id.clone())
        .collect();
    (running, at)
}

/// A request that its replica takes and fails, until some replica `id` has failed one.
async fn fail(pool: &Arc<Pool>, id: &str, times: u32) {
    let mut failed = 0;
    for _ in 0..1_000 {
        let mut place = pool.admit(want(40, None)).unwrap().place;
        let mut permit = place.acquire().await.unwrap();
        permit.accepted();
        if permit.replica().id == id {
            permit.broke();
            failed += 1;
        } else {
            permit.drawn(Duration::from_millis(40));
        }
        if failed == times {
            return;
        }
    }
    panic!("{id} is not asked");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_fails_what_it_takes_is_left_out_and_comes_back_slowly() {
    let pool = pool(100);
    many(&pool, &[("good", "a"), ("bad", "a")]);
    fail(&pool, "bad", 5).await;
    let (held, at) = running(&pool, 20).await;
    assert!(at.iter().all(|id| id == "good"), "{at:?}");
    drop(held);
    tokio::time::advance(Duration::from_millis(5_100)).await;
    let (held, at) = running(&pool, 20).await;
    let back = at.iter().filter(|id| *id == "bad").count();
    assert!((1..=3).contains(&back), "{back}");
    drop(held);
    tokio::time::advance(Duration::from_secs(10)).await;
    let (_held, at) = running(&pool, 20).await;
    assert_eq!(at.iter().filter(|id| *id == "bad").count(), 10);
}

#[tokio::test(start_paused = true)]
async fn small_calls_do_not_hide_that_pictures_fail_and_count_where_there_is_nothing_else() {
    for (kind, is_out) in [(WorkerKind::Inference, true), (WorkerKind::Preprocess, false)] {
        let pool = pool(100);
        many_of(&pool, kind, &[("good", "a"), ("bad", "a")]);
        for _ in 0..5 {
            fail(&pool, "bad", 1).await;
            // Two calls of every three go well.
            for _ in 0..2 {
                let bad = pool
                    .lock()
                    .replicas
                    .iter()
                    .find(|replica| replica.id == "bad")
                    .cloned();
                pool.helped(&bad.unwrap());
            }
        }
        let (_held, at) = running(&pool, 20).await;
        assert_eq!(at.iter().all(|id| id == "good"), is_out, "{kind:?}: {at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_replica_and_more_than_half_are_never_left_out() {
    let pool = pool(100);
    many(&pool, &[("only", "a")]);
    fail(&pool, "only", 20).await;
    assert_eq!(running(&pool, 1).await.1, ["only"]);
    many(&pool, &[("only", "a"), ("x", "a"), ("y", "a")]);
    tokio::time::advance(Duration::from_secs(20)).await;
    fail(&pool, "x", 5).await;
    fail(&pool, "y", 20).await;
    let (_held, at) = running(&pool, 20).await;
    assert!(
        at.iter().any(|id| id == "y") && at.iter().all(|id| id != "x"),
        "{at:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn when_nobody_else_can_be_reached_those_left_out_are_asked_after_all() {
    let pool = pool(100);
    many(&pool, &[("good", "a"), ("bad", "a")]);
    fail(&pool, "bad", 5).await;
    let (held, at) = running(&pool, 1).await;
    assert_eq!(at, ["good"]);
    held[0].0.failed();
    assert_eq!(running(&pool, 1).await.1, ["bad"]);
    drop(held);
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(running(&pool, 1).await.1, ["good"], "it can be reached again");
}

#[tokio::test(start_paused = true)]
async fn a_new_replica_gets_its_share_bit_by_bit() {
    let pool = pool(100);
    many(&pool, &[("old", "a")]);
    many(&pool, &[("old", "a"), ("new", "a")]);
    let (held, at) = running(&pool, 20).await;
    let first = at.iter().filter(|id| *id == "new").count();
    assert!((1..=3).contains(&first), "{first}");
    drop(held);
    tokio::time::advance(Duration::from_secs(10)).await;
    let (_held, at) = running(&pool, 20).await;
    assert_eq!(at.iter().filter(|id| *id == "new").count(), 10);
}

#[tokio::test(start_paused = true)]
async fn replicas_of_the_zone_come_first_until_they_are_busier_by_a_request() {
    let pool = pool(100);
    many(&pool, &[("far", "b"), ("near", "a")]);
    let (_held, at) = running(&pool, 6).await;
    assert_eq!(at[..2], ["near", "near"]);
    let near = at.iter().filter(|id| *id == "near").count();
    assert!((3..=4).contains(&near), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_is_refused_where_nobody_can_be_reached() {
    let pool = pool(100);
    let fast = Want {
        failfast: true,
        ..want(1, None)
    };
    let error = pool.admit(fast).unwrap().place.acquire().await.unwrap_err();
    assert!(
        matches!(&error, Error::NoReplica { waited, .. } if waited.is_zero()),
        "{error}"
    );
    place(&pool, &["r1"]);
    let mut first = pool.admit(fast).unwrap().place;
    let permit = first.acquire().await.unwrap();
    let mut second = pool.admit(fast).unwrap().place;
    let mut waiting = Box::pin(second.acquire());
    assert!(
        waiting.as_mut().now_or_never().is_none(),
        "a full one is waited for"
    );
    drop(permit);
    let permit = waiting.await.unwrap();
    permit.failed();
    drop(permit);
    assert!(first.acquire().await.is_err(), "it is left alone after its fault");
}
