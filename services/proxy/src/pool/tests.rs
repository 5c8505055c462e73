use futures::FutureExt;
use mobula_proto::control::v1::ReplicaEndpoint;

use super::*;

const MAX_ONGOING: u32 = 1;

fn pool(max_queued: usize) -> Arc<Pool> {
    let settings = Settings {
        no_replica_timeout: Duration::from_secs(30),
        max_queued,
        clock: Clock::start(),
        stop: Stop::new(Duration::from_secs(1)),
    };
    Arc::new(Pool::new("app", "pipeline", settings))
}

fn place(pool: &Arc<Pool>, ids: &[&str]) {
    let endpoint = |id: &&str| ReplicaEndpoint {
        replica_id: (*id).to_owned(),
        address: "127.0.0.1:1".into(),
        ..Default::default()
    };
    let route = DeploymentRoute {
        max_ongoing_requests: MAX_ONGOING,
        max_queued_requests: -1,
        replicas: ids.iter().map(endpoint).collect(),
        ..Default::default()
    };
    pool.update(&route, &mut Channels::default());
}

fn admit(pool: &Arc<Pool>) -> Place {
    pool.admit(Cost::rows(1), None).unwrap().place
}

#[tokio::test(start_paused = true)]
async fn a_replica_never_gets_more_than_it_takes_and_the_oldest_is_served_first() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let (mut a, mut b, mut c) = (admit(&pool), admit(&pool), admit(&pool));
    let first = a.acquire(Cost::rows(1)).await.unwrap();
    let mut late = Box::pin(c.acquire(Cost::rows(1)));
    assert!(late.as_mut().now_or_never().is_none());
    let mut early = Box::pin(b.acquire(Cost::rows(1)));
    assert!(early.as_mut().now_or_never().is_none());
    drop(first);
    assert!(late.as_mut().now_or_never().is_none());
    let second = early.as_mut().now_or_never().unwrap().unwrap();
    drop(second);
    assert!(late.as_mut().now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_passes_its_turn_on() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let (mut a, mut b, mut c) = (admit(&pool), admit(&pool), admit(&pool));
    let first = a.acquire(Cost::rows(1)).await.unwrap();
    let mut second = Box::pin(b.acquire(Cost::rows(1)));
    let mut third = Box::pin(c.acquire(Cost::rows(1)));
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none());
    drop(first);
    // Granted already, and left before it was taken.
    drop(second);
    assert!(third.as_mut().now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_appears_serves_those_who_wait() {
    let pool = pool(10);
    let mut waiting = admit(&pool);
    let mut permit = Box::pin(waiting.acquire(Cost::rows(1)));
    assert!(permit.as_mut().now_or_never().is_none());
    place(&pool, &["r1"]);
    assert_eq!(permit.await.unwrap().replica().id, "r1");
}

#[tokio::test(start_paused = true)]
async fn without_a_replica_the_wait_ends_at_its_limit() {
    let pool = pool(10);
    let begun = tokio::time::Instant::now();
    let error = admit(&pool).acquire(Cost::rows(1)).await.unwrap_err();
    assert!(matches!(error, Error::NoReplica { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_full_replica_is_waited_for_beyond_that_limit() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let mut running = admit(&pool);
    let permit = running.acquire(Cost::rows(1)).await.unwrap();
    let mut waiting = admit(&pool);
    let wait = waiting.acquire(Cost::rows(1));
    let soon = tokio::time::timeout(Duration::from_secs(300), wait).await;
    assert!(soon.is_err(), "it still waits");
    drop(permit);
    assert!(waiting.acquire(Cost::rows(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lost_replica_is_left_alone_for_a_moment_and_then_tried_again() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let mut request = admit(&pool);
    let permit = request.acquire(Cost::rows(1)).await.unwrap();
    permit.failed();
    drop(permit);
    let begun = tokio::time::Instant::now();
    assert!(request.acquire(Cost::rows(1)).await.is_ok());
    let waited = begun.elapsed();
    assert!(
        (Duration::from_millis(90)..Duration::from_millis(200)).contains(&waited),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_never_reached_does_not_hold_a_request_for_ever() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let mut request = admit(&pool);
    let begun = tokio::time::Instant::now();
    let error = loop {
        match request.acquire(Cost::rows(1)).await {
            Ok(permit) => permit.failed(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoReplica { .. }), "{error}");
    assert!(
        (30..45).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_says_when_to_come_back() {
    let pool = pool(2);
    place(&pool, &["r1"]);
    let _admitted: Vec<_> = (0..3).map(|_| admit(&pool)).collect();
    let error = pool.admit(Cost::rows(1), None).unwrap_err();
    assert!(
        matches!(error, Error::Overloaded(full) if full.waiting == 2),
        "{error}"
    );
    assert!(error.retry_after().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_the_work_alone_would_miss_is_refused_at_the_door() {
    let pool = pool(2);
    place(&pool, &["r1"]);
    let second = 1_000_000_000;
    pool.note_load(
        &pool.replicas()[0],
        Load {
            row_ns: second,
            ..Load::default()
        },
    );
    let deadline = Some(Deadline::after(Duration::from_secs(10)));
    let error = pool.admit(Cost::rows(40), deadline).unwrap_err();
    assert!(matches!(error, Error::TooLate(_)), "{error}");
    let admitted = pool.admit(Cost::rows(5), deadline).unwrap();
    assert_eq!(admitted.eta, Some(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_burst_after_a_quiet_time_is_judged_by_its_work() {
    let pool = pool(100);
    place(&pool, &["r1"]);
    let load = Load {
        row_ns: 1_000_000,
        ..Load::default()
    };
    pool.note_load(&pool.replicas()[0], load);
    for _ in 0..3 {
        drop(admit(&pool).acquire(Cost::ROW).await.unwrap());
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    // Fifty requests of 10 ms each, and half a second for all.
    let deadline = Some(Deadline::after(Duration::from_millis(500)));
    let burst: Vec<_> = (0..50)
        .map(|_| pool.admit(Cost::rows(10), deadline).unwrap())
        .collect();
    let last = burst.last().unwrap();
    assert_eq!(last.ahead, 48);
    assert_eq!(last.eta, Some(Duration::from_millis(490)));
    let hopeless = Some(Deadline::after(Duration::from_millis(200)));
    assert!(pool.admit(Cost::rows(10), hopeless).is_err());
}
