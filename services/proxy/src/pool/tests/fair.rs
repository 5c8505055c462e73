//! Classes, tenants, and what those are told who wait.

use mobula_serving::{admission::Bound, tick::Class};

use super::*;
use crate::{permit::Permit, pool::Standing};

fn claim(class: Class, tenant: &str) -> Claim {
    Claim {
        class,
        tenant: tenant.into(),
        weight: 1,
    }
}

fn of(pool: &Arc<Pool>, claim: &Claim, rows: u64) -> Place {
    let want = Want {
        claim,
        ..want(rows, None)
    };
    pool.admit(want).unwrap().place
}

/// A row takes a second.
fn slow(pool: &Arc<Pool>) {
    let load = Load {
        row_ns: 1_000_000_000,
        ..Load::default()
    };
    pool.note_load(&pool.replicas()[0], load);
}

/// Lets everybody of these begin to wait, then serves them one after the other; gives the order.
async fn order(first: Permit, places: Vec<(&'static str, Place)>) -> Vec<&'static str> {
    let (told, mut heard) = tokio::sync::mpsc::channel(places.len());
    let mut tasks = tokio::task::JoinSet::new();
    for (name, mut place) in places {
        let told = told.clone();
        tasks.spawn(async move {
            let permit = place.acquire().await.unwrap();
            told.send(name).await.unwrap();
            drop(permit);
        });
        tokio::task::yield_now().await;
    }
    drop((first, told));
    let mut order = Vec::new();
    while let Some(name) = heard.recv().await {
        order.push(name);
    }
    order
}

#[tokio::test(start_paused = true)]
async fn whoever_matters_more_is_served_first() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let mut running = admit(&pool);
    let first = running.acquire().await.unwrap();
    let at = |class| of(&pool, &claim(class, ""), 1);
    let places = vec![
        ("low", at(Class::Low)),
        ("normal", at(Class::Normal)),
        ("high", at(Class::High)),
        ("later", at(Class::Normal)),
    ];
    assert_eq!(order(first, places).await, ["high", "normal", "later", "low"]);
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_by_what_their_requests_cost() {
    let pool = pool(20);
    place(&pool, &["r1"]);
    let mut running = admit(&pool);
    let first = running.acquire().await.unwrap();
    let (a, b) = (claim(Class::Normal, "a"), claim(Class::Normal, "b"));
    let mut places: Vec<_> = (0..6).map(|_| ("a", of(&pool, &a, 10))).collect();
    places.extend((0..2).map(|_| ("b", of(&pool, &b, 20))));
    assert_eq!(
        order(first, places).await,
        ["a", "b", "a", "a", "b", "a", "a", "a"]
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_its_place_when_it_changes() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    slow(&pool);
    let mut running = admit(&pool);
    let first = running.acquire().await.unwrap();
    let (mut second, mut third) = (admit(&pool), of(&pool, &claim(Class::Normal, ""), 5));
    let mut told = Vec::new();
    {
        let mut waiting = Box::pin(second.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut last = Box::pin(third.acquire_telling(Some(|standing| told.push(standing))));
        let wait = tokio::time::timeout(Duration::from_millis(4_500), &mut last);
        assert!(wait.await.is_err());
        drop(first);
        let permit = waiting.await.unwrap();
        let wait = tokio::time::timeout(Duration::from_millis(4_500), &mut last);
        assert!(wait.await.is_err());
        drop(permit);
        assert!(last.await.is_ok());
    }
    let ahead: Vec<_> = told.iter().map(|standing| standing.ahead).collect();
    assert_eq!(ahead, [1, 0], "once each, not every second");
    // One row before it, one at the replica, and its own five.
    let at_first = Standing {
        ahead: 1,
        eta: Some(Duration::from_secs(7)),
    };
    assert_eq!(told[0], at_first);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_done_in_time_any_more_is_not_begun() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    slow(&pool);
    let mut running = admit(&pool);
    let first = running.acquire().await.unwrap();
    let deadline = Some(Deadline::after(Duration::from_secs(20)));
    let mut late = pool.admit(want(10, deadline)).unwrap().place;
    let mut next = admit(&pool);
    let mut late = Box::pin(late.acquire());
    assert!(late.as_mut().now_or_never().is_none());
    let mut next = Box::pin(next.acquire());
    assert!(next.as_mut().now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(16)).await;
    drop(first);
    let error = late.await.unwrap_err();
    assert!(matches!(error, Error::TooLate(_)), "{error}");
    assert!(next.as_mut().now_or_never().unwrap().is_ok(), "it has its turn");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_may_be() {
    let mut settings = settings(10);
    settings.bounds.age = Duration::from_secs(60);
    let pool = Arc::new(Pool::new("app", "pipeline", settings));
    place(&pool, &["r1"]);
    slow(&pool);
    let mut running = admit(&pool);
    let _first = running.acquire().await.unwrap();
    let mut waiting = pool.admit(want(100, None)).unwrap().place;
    let begun = tokio::time::Instant::now();
    let refused = pool.admit(want(100, None));
    assert!(refused.is_ok(), "half of what is predicted is believed");
    let error = pool.admit(want(1, None)).unwrap_err();
    assert!(
        matches!(error, Error::Overloaded { full, .. } if full.bound == Bound::Age),
        "{error}"
    );
    let error = waiting.acquire().await.unwrap_err();
    assert!(matches!(error, Error::WaitedTooLong { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
    assert!(error.retry_after().is_some());
}

/// A deployment with one replica of one request that says how long others may wait.
fn patient(pool: &Arc<Pool>, max_queued: Duration) {
    let route = DeploymentRoute {
        max_ongoing_requests: MAX_ONGOING,
        max_queued_requests: -1,
        max_queued_ms: max_queued.as_millis() as u64,
        replicas: vec![ReplicaEndpoint {
            replica_id: "r1".into(),
            address: "127.0.0.1:1".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    pool.update(&route, &mut Channels::default());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_says_how_long_its_requests_wait_and_those_that_wait_hear_of_it() {
    let mut settings = settings(10);
    settings.bounds.age = Duration::from_secs(60);
    let pool = Arc::new(Pool::new("app", "pipeline", settings));
    for (said, holds) in [(0, 60), (3_600, 60), (20, 20)] {
        patient(&pool, Duration::from_secs(said));
        assert_eq!(pool.longest_wait(), Duration::from_secs(holds), "{said}");
    }
    slow(&pool);
    let mut running = admit(&pool);
    let _first = running.acquire().await.unwrap();
    let mut waiting = pool.admit(want(50, None)).unwrap().place;
    let error = pool.admit(want(1, None)).unwrap_err();
    assert!(
        matches!(error, Error::Overloaded { full, .. } if full.bound == Bound::Age),
        "{error}"
    );
    let begun = tokio::time::Instant::now();
    let mut waiting = Box::pin(waiting.acquire());
    assert!(waiting.as_mut().now_or_never().is_none());
    patient(&pool, Duration::from_secs(5));
    let error = waiting.await.unwrap_err();
    assert!(matches!(error, Error::WaitedTooLong { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert!(error.retry_after().is_some());
}

#[tokio::test(start_paused = true)]
async fn bytes_that_wait_are_bounded_and_given_back() {
    let mut settings = settings(10);
    settings.bounds.bytes = 100;
    let pool = Arc::new(Pool::new("app", "pipeline", settings));
    place(&pool, &["r1"]);
    let heavy = |bytes| Want {
        bytes,
        ..want(1, None)
    };
    let mut running = admit(&pool);
    let first = running.acquire().await.unwrap();
    let mut one = pool.admit(heavy(70)).unwrap().place;
    let error = pool.admit(heavy(31)).unwrap_err();
    assert!(
        matches!(error, Error::Overloaded { full, .. } if full.bound == Bound::Bytes),
        "{error}"
    );
    assert_eq!(error.reason(), "QUEUE_BYTES_FULL");
    let early = pool.expect(want(1, None)).unwrap();
    assert!(
        pool.settle(early, heavy(31)).is_err(),
        "not behind its back either"
    );
    drop(first);
    let _served = one.acquire().await.unwrap();
    assert!(
        pool.admit(heavy(100)).is_ok(),
        "what is at a replica waits no more"
    );
}
