//! Single stages beside whole requests: they share calls, are freed when nobody wants them, and give the same numbers.

use super::*;

fn texts(ids: &[u32]) -> Work {
    let windows = ids.iter().map(|id| (vec![*id; 77].into(), 0));
    Work {
        task: Task::Texts(windows.collect()),
        pictures: Vec::new(),
        ..work(0, &[], 1)
    }
}

async fn answer(inbox: Inbox) -> Result<Output, String> {
    let answer = inbox.answer();
    let answer = tokio::time::timeout(Duration::from_secs(60), answer)
        .await
        .unwrap();
    answer
        .map(|answer| answer.result)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn texts_of_stages_and_of_requests_share_a_call_and_those_of_who_left_are_not_encoded() {
    let mut bench = Bench::start(|_| {}).await;
    let first = bench.runner.submit(work(1, &[1], 2)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let (other, leaves) = (texts(&[5, 6, 5]), texts(&[7, 8, 9]));
    let (other, leaves) = (
        bench.runner.submit(other).unwrap(),
        bench.runner.submit(leaves).unwrap(),
    );
    let second = bench.runner.submit(work(10, &[2], 1)).unwrap();
    drop(leaves);
    bench.let_one();
    // Two of the one, one of the other: its negative prompt is known already.
    assert_eq!(bench.call().await, Call::Encode(3));
    let Ok(Output::Texts(states)) = answer(other).await else {
        panic!("no texts")
    };
    assert_eq!(states.len(), 3);
    assert!(states[0] == states[2] && states[0] != states[1]);
    for _ in 0..4 {
        bench.let_one();
    }
    assert!(is_done(&events(first).await) && is_done(&events(second).await));
    assert_eq!(bench.runner.load().queued_rows, 0);
}

#[tokio::test]
async fn latents_of_two_calls_are_decoded_together_and_a_reader_that_leaves_costs_no_call() {
    let mut bench = Bench::start(|_| {}).await;
    let first = bench.runner.submit(work(1, &[1], 2)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let decode = |seeds: &[u64]| {
        let latents = seeds
            .iter()
            .map(|seed| vec![*seed as f32 / 10.0; 4 * 8 * 8].into());
        Work {
            task: Task::Decode(latents.collect()),
            ..work(0, seeds, 1)
        }
    };
    let kept: Vec<_> = [&[1, 2][..], &[3]]
        .iter()
        .map(|seeds| bench.runner.submit(decode(seeds)).unwrap())
        .collect();
    drop(bench.runner.submit(decode(&[4])).unwrap());
    bench.let_one();
    assert_eq!(bench.call().await, Call::Decode(3));
    for (inbox, pictures) in kept.into_iter().zip([2, 1]) {
        let told = events(inbox).await;
        let images = told.iter().filter(|event| matches!(event, Ok(Event::Image(_))));
        assert_eq!(images.count(), pictures);
        let Some(Ok(Event::Done(done))) = told.last() else {
            panic!("{told:?}")
        };
        let timings = done.timings.unwrap();
        assert_eq!((timings.denoise_us, timings.ticks), (0, 0));
    }
    bench.let_one();
    assert!(is_done(&events(first).await));
}

#[tokio::test]
async fn a_replica_without_a_denoiser_counts_its_load_in_what_it_has() {
    let bench = Bench::start(|engine| {
        engine.gate = None;
        engine.info.stages = crate::engine::Stages::DECODE;
    })
    .await;
    let latents = vec![vec![0.5; 4 * 8 * 8].into(); 3];
    let decode = Work {
        task: Task::Decode(latents),
        ..work(0, &[1, 2, 3], 1)
    };
    assert_eq!(decode.cost(Unit::Pictures), 3);
    assert_eq!(work(1, &[1, 2], 5).cost(Unit::Rows), 20);
    assert_eq!(texts(&[1, 2]).cost(Unit::Windows), 2);
    assert_eq!(texts(&[1, 2]).cost(Unit::Rows), 0);
    assert!(is_done(&events(bench.runner.submit(decode).unwrap()).await));
    let load = bench.runner.load();
    assert!(load.row_ns > 0 && load.queued_rows == 0, "{load:?}");
}

#[tokio::test]
async fn an_answer_that_fails_says_why() {
    let mut bench = Bench::start(|engine| engine.fails_at = Some(8)).await;
    let draws = bench.runner.submit(work(1, &[1], 2)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let deadline = Instant::now() + Duration::from_millis(1);
    let late = Work {
        deadline: Some(deadline),
        ..texts(&[9])
    };
    let late = bench.runner.submit(late).unwrap();
    while Instant::now() <= deadline {
        tokio::task::yield_now().await;
    }
    bench.let_one();
    bench.let_one();
    bench.let_one();
    assert_eq!(
        answer(late).await.unwrap_err(),
        "the deadline passed before the first step"
    );
    assert!(!is_done(&events(draws).await));
}
