//! Models on demand.

use super::*;
use crate::permit::Permit;

/// Replicas that serve the models `hot` and `rare` on demand; with what each holds.
fn on_demand(pool: &Arc<Pool>, replicas: &[(&str, &[&str])], max_ongoing: u32) {
    let held = |id: &&str| pb::HeldModel {
        model_id: (*id).to_owned(),
        info: Some(ModelInfo::default()),
    };
    let endpoint = |(id, models): &(&str, &[&str])| ReplicaEndpoint {
        replica_id: (*id).to_owned(),
        address: "127.0.0.1:1".into(),
        models: models.iter().map(held).collect(),
        ..Default::default()
    };
    let route = DeploymentRoute {
        kind: WorkerKind::Inference.into(),
        max_ongoing_requests: max_ongoing,
        max_queued_requests: -1,
        models: vec!["hot".into(), "rare".into()],
        replicas: replicas.iter().map(endpoint).collect(),
        ..Default::default()
    };
    pool.update(&route, &mut Channels::default());
}

/// A request for a model that takes so many seconds.
fn of_model(pool: &Arc<Pool>, model_id: &str, seconds: u64) -> Place {
    let model_id = Arc::from(model_id);
    let want = Want {
        model_id: Some(&model_id),
        ..want(seconds, None)
    };
    pool.admit(want).unwrap().place
}

/// Every row takes a second.
fn slow(pool: &Arc<Pool>) {
    let load = Load {
        row_ns: 1_000_000_000,
        ..Load::default()
    };
    pool.note_load(&pool.replicas()[0], load);
}

#[tokio::test(start_paused = true)]
async fn a_model_is_asked_of_whoever_holds_it_until_a_load_would_be_sooner() {
    let pool = pool(100);
    on_demand(&pool, &[("a", &["hot"]), ("b", &[])], 4);
    slow(&pool);
    let mut places: Vec<_> = (0..4).map(|_| of_model(&pool, "hot", 6)).collect();
    let mut permits = Vec::new();
    for place in &mut places {
        permits.push(place.acquire().await.unwrap());
    }
    let at: Vec<_> = permits.iter().map(|permit| permit.replica().id.clone()).collect();
    // After two of them 12 seconds are ahead there, and a load is taken to need 10.
    assert_eq!(
        at,
        ["a", "a", "b", "a"],
        "the fourth does better to wait there than for the load"
    );
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_busy_model_do_not_hold_up_the_others() {
    let pool = pool(100);
    on_demand(&pool, &[("a", &["hot"]), ("b", &["rare"])], 1);
    slow(&pool);
    let mut first = of_model(&pool, "hot", 2);
    let running = first.acquire().await.unwrap();
    assert_eq!(running.replica().id, "a");
    let (mut second, mut third) = (of_model(&pool, "hot", 2), of_model(&pool, "rare", 2));
    let mut waits = Box::pin(second.acquire());
    assert!(
        waits.as_mut().now_or_never().is_none(),
        "it is sooner there than a load"
    );
    let other = third.acquire().now_or_never().unwrap().unwrap();
    assert_eq!(other.replica().id, "b");
    drop(other);
    assert!(waits.as_mut().now_or_never().is_none(), "still");
    drop(running);
    assert_eq!(waits.now_or_never().unwrap().unwrap().replica().id, "a");
}

#[tokio::test(start_paused = true)]
async fn a_long_line_for_one_model_spreads_it_to_a_second_replica() {
    let pool = pool(100);
    on_demand(&pool, &[("a", &["hot"]), ("b", &[])], 1);
    slow(&pool);
    let mut first = of_model(&pool, "hot", 4);
    let running = first.acquire().await.unwrap();
    let mut places: Vec<_> = (0..3).map(|_| of_model(&pool, "hot", 4)).collect();
    let mut waits: Vec<_> = places.iter_mut().map(|place| Box::pin(place.acquire())).collect();
    let mut granted = Vec::new();
    for (i, wait) in waits.iter_mut().enumerate() {
        if let Some(permit) = wait.as_mut().now_or_never() {
            granted.push((i, permit.unwrap()));
        }
    }
    // 4 seconds run, 8 wait: the third of them would begin after 12.
    let at: Vec<_> = granted
        .iter()
        .map(|(i, permit)| (*i, permit.replica().id.as_str()))
        .collect();
    assert_eq!(at, [(2, "b")]);
    drop(running);
    assert!(
        waits[0].as_mut().now_or_never().is_some(),
        "the oldest is next where it is held"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_loads_a_model_counts_as_one_that_holds_it() {
    let pool = pool(100);
    on_demand(&pool, &[("a", &[]), ("b", &[]), ("c", &[])], 4);
    slow(&pool);
    let mut places: Vec<_> = (0..3).map(|_| of_model(&pool, "rare", 1)).collect();
    let mut permits = Vec::new();
    for place in &mut places {
        permits.push(place.acquire().await.unwrap());
    }
    let first = permits[0].replica().id.clone();
    assert!(permits.iter().all(|permit| permit.replica().id == first));
    // It takes them; the table does not know of it yet.
    permits.iter_mut().for_each(Permit::accepted);
    drop(permits);
    on_demand(&pool, &[("a", &[]), ("b", &[]), ("c", &[])], 4);
    let next = of_model(&pool, "rare", 1).acquire().await.unwrap();
    assert_eq!(next.replica().id, first);
    next.refused();
    drop(next);
    tokio::time::advance(Duration::from_secs(11)).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let mut place = of_model(&pool, "rare", 1);
        let permit = place.acquire().await.unwrap();
        seen.insert(permit.replica().id.clone());
    }
    assert_eq!(seen.len(), 3, "what it refused it does not hold");
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_room_for_a_model_serves_those_that_it_holds() {
    let pool = pool(100);
    on_demand(&pool, &[("a", &["hot"])], 4);
    slow(&pool);
    let mut rare = of_model(&pool, "rare", 1);
    let permit = rare.acquire().await.unwrap();
    permit.refused();
    drop(permit);
    let begun = tokio::time::Instant::now();
    let mut again = Box::pin(rare.acquire());
    assert!(
        again.as_mut().now_or_never().is_none(),
        "it is left alone for a moment"
    );
    let mut hot = of_model(&pool, "hot", 1);
    assert!(hot.acquire().now_or_never().unwrap().is_ok());
    again.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_millis(20),
        "{:?}",
        begun.elapsed()
    );
    // Full for what it holds means full for all.
    let permit = hot.acquire().await.unwrap();
    permit.refused();
    drop(permit);
    let mut own = admit(&pool);
    assert!(own.acquire().now_or_never().is_none());
}
