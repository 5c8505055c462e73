//! How requests end that are not finished: cancelled, late, failed, refused.

use super::*;

#[tokio::test]
async fn a_reader_that_leaves_frees_its_rows_within_one_tick() {
    let mut bench = Bench::start(|_| {}).await;
    let leaving = bench.runner.submit(work(1, &[1, 2], 50)).unwrap();
    assert_eq!(bench.rows().await, 4);
    let staying = bench.runner.submit(work(2, &[3], 2)).unwrap();
    drop(leaving);
    bench.let_one();
    assert_eq!(bench.rows().await, 2);
    assert_eq!(bench.runner.load().ongoing_requests, 1);
    bench.let_one();
    bench.let_one();
    assert!(is_done(&events(staying).await));
}

#[tokio::test]
async fn a_request_whose_time_is_over_has_no_row_in_the_next_tick() {
    let mut bench = Bench::start(|_| {}).await;
    let other = bench.runner.submit(work(1, &[1], 2)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let deadline = Instant::now() + Duration::from_millis(1);
    let late = bench
        .runner
        .submit(Work {
            deadline: Some(deadline),
            ..work(1, &[2], 2)
        })
        .unwrap();
    while Instant::now() <= deadline {
        tokio::task::yield_now().await;
    }
    bench.let_one();
    assert_eq!(bench.rows().await, 2);
    bench.let_one();
    let told = events(late).await;
    assert_eq!(
        told.last().unwrap().as_ref().unwrap_err(),
        "the deadline passed before the first step"
    );
    assert!(is_done(&events(other).await));
    let past = Work {
        deadline: Some(Instant::now()),
        ..work(1, &[1], 50)
    };
    assert!(matches!(
        bench.runner.submit(past),
        Err(Error::DeadlinePassed { started: false })
    ));
}

#[tokio::test]
async fn a_failed_run_fails_its_requests_and_no_other() {
    let mut bench = Bench::start(|engine| engine.fails_at = Some(16)).await;
    let wide = Shape {
        channels: 4,
        height: 8,
        width: 16,
    };
    let good = bench.runner.submit(work(1, &[1], 2)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let bad = bench
        .runner
        .submit(Work {
            shape: wide,
            ..work(2, &[2], 2)
        })
        .unwrap();
    for _ in 0..9 {
        bench.let_one();
    }
    let told = events(bad).await;
    assert!(
        told.last().unwrap().as_ref().unwrap_err().contains("unet failed"),
        "{told:?}"
    );
    assert!(is_done(&events(good).await));
    bench.runner.health().unwrap();
    assert_eq!(bench.runner.load().queued_rows, 0);
}

#[tokio::test]
async fn a_picture_that_is_no_numbers_fails_its_request_and_no_other() {
    let mut bench = Bench::start(|engine| engine.spoils = Some(1)).await;
    let first = bench.runner.submit(work(1, &[1], 2)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let good = bench.runner.submit(work(2, &[2], 2)).unwrap();
    let bad = bench.runner.submit(work(3, &[3], 2)).unwrap();
    drop(first);
    for _ in 0..9 {
        bench.let_one();
    }
    let told = events(bad).await;
    let why = told.last().unwrap().as_ref().unwrap_err();
    assert!(
        why.starts_with("the VAE decoder's values are not finite"),
        "{told:?}"
    );
    assert!(is_done(&events(good).await));
    bench.runner.health().unwrap();
    assert_eq!(bench.runner.load().queued_rows, 0);
}

#[tokio::test]
async fn latents_that_are_no_numbers_fail_their_request_before_the_decoder_sees_them() {
    let mut bench = Bench::start(|engine| engine.blots = Some(3)).await;
    let first = bench.runner.submit(work(1, &[1], 2)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let good = bench.runner.submit(work(2, &[2], 2)).unwrap();
    let bad = bench.runner.submit(work(3, &[3], 2)).unwrap();
    drop(first);
    // The first request's call, the one in which the third is lost, and the second's last: no row is spent on what is lost.
    for _ in 0..3 {
        bench.let_one();
    }
    let told = events(bad).await;
    let why = told.last().unwrap().as_ref().unwrap_err();
    assert!(
        why.starts_with("the sample is not finite (NaN or infinity) after step 1 of 2"),
        "{told:?}"
    );
    assert!(is_done(&events(good).await));
    bench.runner.health().unwrap();
    let calls = bench.rest().await;
    let decodes: Vec<_> = calls
        .iter()
        .filter(|call| matches!(call, Call::Decode(_)))
        .collect();
    assert_eq!(decodes, [&Call::Decode(1)]);
}

#[tokio::test]
async fn an_engine_that_fails_its_self_check_is_dead() {
    let bench = Bench::start(|engine| (engine.gate, engine.fails_at) = (None, Some(0))).await;
    let told = events(bench.runner.submit(work(1, &[1], 2)).unwrap()).await;
    assert!(told.last().unwrap().is_err());
    let runner = bench.runner.clone();
    bench.rest().await;
    assert!(matches!(runner.health(), Err(Error::Failed(_))));
    assert!(matches!(runner.submit(work(1, &[1], 2)), Err(Error::Failed(_))));
}

#[tokio::test]
async fn a_panic_of_the_engine_is_a_failure_and_no_reader_hangs() {
    let bench = Bench::start(|engine| (engine.gate, engine.panics) = (None, true)).await;
    let told = events(bench.runner.submit(work(1, &[1], 2)).unwrap()).await;
    assert!(
        told.last().unwrap().as_ref().unwrap_err().contains("panicked"),
        "{told:?}"
    );
    let runner = bench.runner.clone();
    bench.rest().await;
    assert!(runner.health().unwrap_err().to_string().contains("panicked"));
    let never = Runner::start(options(0), || panic!("as the test wants it"));
    assert!(matches!(never.await, Err(Error::Failed(_))));
}

#[tokio::test]
async fn stopping_fails_what_is_left_and_stopping_again_does_nothing() {
    let mut bench = Bench::start(|_| {}).await;
    let running = bench.runner.submit(work(1, &[1], 50)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let waiting = bench.runner.submit(work(2, &[1], 50)).unwrap();
    let runner = bench.runner.clone();
    bench.rest().await;
    for inbox in [running, waiting] {
        assert_eq!(
            events(inbox).await.last().unwrap().as_ref().unwrap_err(),
            "the replica is stopping"
        );
    }
    runner.stop();
    assert!(matches!(runner.submit(work(1, &[1], 1)), Err(Error::Stopping)));
    assert_eq!(
        (runner.load().ongoing_requests, runner.load().queued_rows),
        (0, 0)
    );
    runner.health().unwrap();
}

#[tokio::test]
async fn a_replica_takes_no_more_pictures_than_it_can_hold() {
    let mut bench = Bench::start(|_| {}).await;
    let seeds: Vec<u64> = (0..64).collect();
    let mut taken = Vec::new();
    for n in 0..MAX_PICTURES / 64 {
        taken.push(bench.runner.submit(work(n as u32, &seeds, 9)).unwrap());
    }
    assert!(bench.rows().await > 0);
    assert!(matches!(
        bench.runner.submit(work(1, &[1], 1)),
        Err(Error::Overloaded {
            pictures: MAX_PICTURES
        })
    ));
    // The places are free once the engine thread has seen that the readers are gone.
    drop(taken);
    bench.interrupts.gate.lock().unwrap().take();
    drop(bench.gate);
    let runner = bench.runner;
    let again = async {
        loop {
            match runner.submit(work(1, &[1], 1)) {
                Ok(inbox) => break inbox,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let inbox = tokio::time::timeout(Duration::from_secs(60), again)
        .await
        .unwrap();
    assert!(is_done(&events(inbox).await));
}

#[tokio::test]
async fn a_call_in_which_nobody_is_left_is_ended_and_one_with_a_reader_is_not() {
    let mut bench = Bench::start(|_| {}).await;
    let alone = bench.runner.submit(work(1, &[1, 2], 50)).unwrap();
    assert_eq!(bench.rows().await, 4);
    // Both wait at the door before the call ends, so that they share the next one.
    let [staying, leaving] = [3, 4].map(|n| bench.runner.submit(work(n, &[1], 1)).unwrap());
    // Nobody opens the gate: only the interruption can end this call.
    drop(alone);
    assert_eq!(bench.rows().await, 4);
    assert_eq!(bench.interrupts.told.load(Ordering::Relaxed), 1);
    drop(leaving);
    assert_eq!(bench.interrupts.told.load(Ordering::Relaxed), 1);
    bench.let_one();
    assert!(is_done(&events(staying).await));
    bench.runner.health().unwrap();
}
