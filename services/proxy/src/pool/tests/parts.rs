//! Replicas of two models in one deployment, and deployments that others have taken the place of.

use std::collections::BTreeSet;

use super::*;

/// Replicas with room for one request each, and the digests of their models.
fn of(pool: &Arc<Pool>, replicas: &[(&str, &str)]) {
    let endpoint = |(id, digest): &(&str, &str)| ReplicaEndpoint {
        replica_id: (*id).to_owned(),
        address: "127.0.0.1:1".into(),
        model: Some(ModelInfo {
            digest: (*digest).to_owned(),
            ..ModelInfo::default()
        }),
        ..Default::default()
    };
    let route = DeploymentRoute {
        max_ongoing_requests: MAX_ONGOING,
        max_queued_requests: -1,
        replicas: replicas.iter().map(endpoint).collect(),
        expected: true,
        ..Default::default()
    };
    pool.update(&route, &mut Channels::default());
}

fn asks(pool: &Arc<Pool>, digest: &str) -> Place {
    pool.place(want(1, None)).of(digest)
}

#[tokio::test(start_paused = true)]
async fn who_needs_one_model_waits_for_its_replica_and_holds_up_nobody_else() {
    let pool = pool(10);
    of(&pool, &[("a", "old"), ("b", "new")]);
    let (mut first, mut second, mut third) = (asks(&pool, "old"), asks(&pool, "old"), asks(&pool, "new"));
    let old = first.acquire().await.unwrap();
    assert_eq!(old.replica().id, "a");
    let mut waits = Box::pin(second.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    let new = third.acquire().await.unwrap();
    assert_eq!(new.replica().id, "b");
    drop(new);
    assert!(
        waits.as_mut().now_or_never().is_none(),
        "that one is of another model"
    );
    drop(old);
    assert_eq!(waits.await.unwrap().replica().id, "a");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_model_whose_last_replica_leaves_is_told_so_at_once() {
    let pool = pool(10);
    of(&pool, &[("a", "old"), ("b", "new")]);
    let (mut first, mut second) = (asks(&pool, "old"), asks(&pool, "old"));
    let _busy = first.acquire().await.unwrap();
    let mut waits = Box::pin(second.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    of(&pool, &[("b", "new")]);
    let error = waits.as_mut().now_or_never().unwrap().unwrap_err();
    assert!(matches!(error, Error::OtherModel { .. }), "{error}");
    let late = asks(&pool, "old").acquire().await.unwrap_err();
    assert!(matches!(late, Error::OtherModel { .. }), "{late}");
    // Where no replica is, the next one may be of any model.
    of(&pool, &[]);
    let mut place = asks(&pool, "old");
    let mut waits = Box::pin(place.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    of(&pool, &[("c", "old")]);
    assert_eq!(waits.await.unwrap().replica().id, "c");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_other_parts_lack_is_not_drawn_with_while_another_is_whole() {
    let pool = pool(10);
    of(&pool, &[("a", "old"), ("b", "new")]);
    pool.set_whole(Some(BTreeSet::from(["old".to_owned()])));
    let (mut first, mut second) = (admit(&pool), admit(&pool));
    let old = first.acquire().await.unwrap();
    assert_eq!(old.replica().id, "a");
    let mut waits = Box::pin(second.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    pool.set_whole(Some(BTreeSet::from(["old".to_owned(), "new".to_owned()])));
    assert_eq!(waits.await.unwrap().replica().id, "b");
    drop(old);
    // Where no model is whole, whoever draws looks further.
    pool.set_whole(Some(BTreeSet::new()));
    assert!(admit(&pool).acquire().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_waits_where_others_have_taken_the_place_goes_there() {
    let pool = pool(10);
    place(&pool, &["a"]);
    let (mut first, mut second) = (admit(&pool), admit(&pool));
    let _busy = first.acquire().await.unwrap();
    let mut waits = Box::pin(second.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    place(&pool, &[]);
    pool.move_away();
    let error = waits.as_mut().now_or_never().unwrap().unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error}");
    let error = admit(&pool).acquire().await.unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error}");
    pool.serve();
    place(&pool, &["b"]);
    assert_eq!(admit(&pool).acquire().await.unwrap().replica().id, "b");
}

#[tokio::test(start_paused = true)]
async fn who_comes_by_the_table_before_is_sent_on_however_little_may_wait() {
    let pool = pool(10);
    let route = DeploymentRoute {
        max_ongoing_requests: MAX_ONGOING,
        max_queued_requests: 0,
        replicas: vec![ReplicaEndpoint {
            replica_id: "a".into(),
            address: "127.0.0.1:1".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    pool.update(&route, &mut Channels::default());
    let is_full = || matches!(pool.admit(want(1, None)), Err(Error::Overloaded { .. }));
    let mut first = admit(&pool);
    let busy = first.acquire().await.unwrap();
    assert!(is_full());
    pool.retire();
    // The next table is not there yet.
    let (mut one, mut other) = (admit(&pool), admit(&pool));
    let mut waits = Box::pin(one.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    let mut fast = pool.place(Want {
        failfast: true,
        ..want(1, None)
    });
    let mut hurries = Box::pin(fast.acquire());
    assert!(hurries.as_mut().now_or_never().is_none());
    pool.move_away();
    let late = admit(&pool).acquire().await;
    for sent in [waits.await, hurries.await, other.acquire().await, late] {
        assert!(matches!(sent, Err(Error::Moved { .. })), "{sent:?}");
    }
    pool.serve();
    pool.update(&route, &mut Channels::default());
    drop(busy);
    assert!(first.acquire().await.is_ok());
    let _waits = admit(&pool);
    assert!(is_full(), "the table's bounds hold again");
}

#[tokio::test(start_paused = true)]
async fn why_somebody_was_sent_away_stays_true_when_the_next_table_says_otherwise() {
    let pool = pool(10);
    place(&pool, &["a"]);
    let (mut first, mut second, mut third) = (admit(&pool), admit(&pool), asks(&pool, "old"));
    let _busy = first.acquire().await.unwrap();
    let mut waits = Box::pin(second.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    pool.retire();
    pool.move_away();
    pool.serve();
    place(&pool, &["b"]);
    let error = waits.await.unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error}");
    of(&pool, &[("c", "old")]);
    let _busy = admit(&pool);
    let mut other = admit(&pool);
    let _taken = other.acquire().await.unwrap();
    let mut waits = Box::pin(third.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    of(&pool, &[("d", "new")]);
    of(&pool, &[]);
    let error = waits.await.unwrap_err();
    assert!(matches!(error, Error::OtherModel { .. }), "{error}");
}
