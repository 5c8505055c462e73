use futures::FutureExt;
use mobula_kit::Deadline;
use mobula_proto::control::v1::ReplicaEndpoint;
use mobula_serving::fair::Claim;

use super::*;
use crate::{Error, place::Place};

mod fair;
mod models;
mod parts;
mod routing;

const MAX_ONGOING: u32 = 1;

fn settings(max_queued: usize) -> Settings {
    Settings {
        proxy_id: "proxy".into(),
        no_replica_timeout: Duration::from_secs(30),
        bounds: Bounds {
            requests: max_queued,
            ..Bounds::default()
        },
        slow_start: Duration::from_secs(10),
        node: "here".into(),
        zone: "a".into(),
        clock: Clock::start(),
        stop: Stop::new(Duration::from_secs(1)),
        signal: Arc::default(),
    }
}

fn pool(max_queued: usize) -> Arc<Pool> {
    Arc::new(Pool::new("app", "pipeline", settings(max_queued)))
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

fn want(rows: u64, deadline: Option<Deadline>) -> Want<'static> {
    static NOBODY: std::sync::LazyLock<Claim> = std::sync::LazyLock::new(Claim::default);
    Want {
        cost: Cost::rows(rows),
        deadline,
        model_id: None,
        claim: &NOBODY,
        bytes: 0,
        failfast: false,
    }
}

fn admit(pool: &Arc<Pool>) -> Place {
    pool.admit(want(1, None)).unwrap().place
}

#[tokio::test(start_paused = true)]
async fn a_replica_never_gets_more_than_it_takes_and_the_oldest_is_served_first() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let (mut a, mut b, mut c) = (admit(&pool), admit(&pool), admit(&pool));
    let first = a.acquire().await.unwrap();
    let mut late = Box::pin(c.acquire());
    assert!(late.as_mut().now_or_never().is_none());
    let mut early = Box::pin(b.acquire());
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
    let first = a.acquire().await.unwrap();
    let mut second = Box::pin(b.acquire());
    let mut third = Box::pin(c.acquire());
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
    let mut permit = Box::pin(waiting.acquire());
    assert!(permit.as_mut().now_or_never().is_none());
    place(&pool, &["r1"]);
    assert_eq!(permit.await.unwrap().replica().id, "r1");
}

#[tokio::test(start_paused = true)]
async fn without_a_replica_the_wait_ends_at_its_limit() {
    let pool = pool(10);
    let begun = tokio::time::Instant::now();
    let error = admit(&pool).acquire().await.unwrap_err();
    assert!(matches!(error, Error::NoReplica { .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_full_replica_is_waited_for_beyond_that_limit() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let mut running = admit(&pool);
    let permit = running.acquire().await.unwrap();
    let mut waiting = admit(&pool);
    let wait = waiting.acquire();
    let soon = tokio::time::timeout(Duration::from_secs(300), wait).await;
    assert!(soon.is_err(), "it still waits");
    drop(permit);
    assert!(waiting.acquire().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lost_replica_is_left_alone_for_a_moment_and_then_tried_again() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let mut request = admit(&pool);
    let permit = request.acquire().await.unwrap();
    permit.failed();
    drop(permit);
    let begun = tokio::time::Instant::now();
    assert!(request.acquire().await.is_ok());
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
        match request.acquire().await {
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
    let error = pool.admit(want(1, None)).unwrap_err();
    assert!(
        matches!(error, Error::Overloaded { full, status: 503 } if full.waiting == 2),
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
    let error = pool.admit(want(40, deadline)).unwrap_err();
    assert!(matches!(error, Error::TooLate(_)), "{error}");
    let admitted = pool.admit(want(5, deadline)).unwrap();
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
        drop(admit(&pool).acquire().await.unwrap());
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    // Fifty requests of 10 ms each, and half a second for all.
    let deadline = Some(Deadline::after(Duration::from_millis(500)));
    let burst: Vec<_> = (0..50).map(|_| pool.admit(want(10, deadline)).unwrap()).collect();
    let last = burst.last().unwrap();
    assert_eq!(last.ahead, 48);
    assert_eq!(last.eta, Some(Duration::from_millis(490)));
    let hopeless = Some(Deadline::after(Duration::from_millis(200)));
    assert!(pool.admit(want(10, hopeless)).is_err());
}

#[tokio::test(start_paused = true)]
async fn while_a_replica_is_expected_a_request_waits_without_a_limit() {
    let pool = pool(10);
    let expected = DeploymentRoute {
        expected: true,
        max_queued_requests: -1,
        ..Default::default()
    };
    pool.update(&expected, &mut Channels::default());
    let mut waiting = admit(&pool);
    let mut wait = Box::pin(waiting.acquire());
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, &mut wait).await.is_err());
    place(&pool, &["r1"]);
    assert!(wait.await.is_ok());
    assert_eq!(waiting.take_without(), Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_where_nobody_is_served_any_more_are_told_at_once() {
    let pool = pool(10);
    let mut waiting = admit(&pool);
    let mut permit = Box::pin(waiting.acquire());
    assert!(permit.as_mut().now_or_never().is_none());
    pool.close();
    let error = permit.await.unwrap_err();
    assert!(
        error.to_string().ends_with("its application was deleted"),
        "{error}"
    );
    let late = admit(&pool).acquire().now_or_never().unwrap().unwrap_err();
    assert_eq!(late.to_string(), error.to_string(), "at once");
}

#[tokio::test(start_paused = true)]
async fn the_bytes_that_are_shown_are_those_of_requests_that_wait() {
    let handle = mobula_kit::metrics::install();
    let shown = |bytes: u64| {
        let page = mobula_kit::metrics::render(&handle);
        let mut lines = page
            .lines()
            .filter(|line| line.starts_with("mobula_proxy_queue_bytes{"));
        lines
            .next()
            .is_some_and(|line| line.ends_with(&format!(" {bytes}")))
    };
    let pool = pool(10);
    let big = Want {
        bytes: 1_000,
        ..want(1, None)
    };
    let (mut one, mut other) = (pool.admit(big).unwrap().place, pool.admit(big).unwrap().place);
    assert!(shown(2_000));
    let mut waits = Box::pin(one.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(shown(2_000), "in line as on the way to it");
    drop(waits);
    assert!(shown(1_000));
    let mut waits = Box::pin(other.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    pool.close();
    assert!(shown(0));
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_once_through_its_line_its_replica_and_its_loss() {
    let pool = pool(10);
    assert_eq!(pool.demand(), None);
    place(&pool, &["r1"]);
    let counted = || {
        let demand = pool.demand().unwrap();
        (demand.queued, demand.running)
    };
    let mut request = admit(&pool);
    assert_eq!(counted(), (1, 0), "it prepares");
    let permit = request.acquire().await.unwrap();
    assert_eq!(counted(), (0, 1));
    // The replica leaves the table, and works on.
    pool.update(&DeploymentRoute::default(), &mut Channels::default());
    assert_eq!(counted(), (0, 1));
    permit.failed();
    drop(permit);
    assert_eq!(counted(), (1, 0), "it starts again");
    drop(request);
    assert_eq!(counted(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_bound_of_the_line_changes_for_those_who_come_next() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let route = |max_queued| DeploymentRoute {
        max_ongoing_requests: MAX_ONGOING,
        max_queued_requests: max_queued,
        replicas: vec![ReplicaEndpoint {
            replica_id: "r1".into(),
            address: "127.0.0.1:1".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let _two = [admit(&pool), admit(&pool)];
    pool.update(&route(1), &mut Channels::default());
    assert!(pool.admit(want(1, None)).is_err());
    pool.update(&route(2), &mut Channels::default());
    let _third = admit(&pool);
    assert!(pool.admit(want(1, None)).is_err());
    pool.update(&route(-1), &mut Channels::default());
    let _others: Vec<_> = (0..8).map(|_| admit(&pool)).collect();
    assert!(pool.admit(want(1, None)).is_err(), "the proxy's own bound holds");
}

#[tokio::test(start_paused = true)]
async fn an_estimate_that_is_too_high_heals_by_requests_with_deadlines_alone() {
    let pool = pool(10);
    place(&pool, &["r1"]);
    let measured = |row_ns| {
        let load = Load {
            row_ns,
            ..Load::default()
        };
        pool.note_load(&pool.replicas()[0], load);
    };
    // Something else had the machine for a while: a second for what takes a millisecond.
    measured(1_000_000_000);
    let ask = || pool.admit(want(40, Some(Deadline::after(Duration::from_secs(2)))));
    assert!(matches!(ask(), Err(Error::TooLate(_))));
    tokio::time::advance(Duration::from_secs(10)).await;
    // The table repeats what the replica measured; that makes it no newer.
    measured(1_000_000_000);
    let mut first = ask().unwrap().place;
    assert!(ask().is_err(), "one at a time");
    let permit = first.acquire().await.unwrap();
    assert!(ask().is_err(), "it has measured nothing yet");
    measured(1_000_000);
    drop(permit);
    assert!(ask().is_ok());
}
