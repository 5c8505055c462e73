//! What runs when, and what callers hear of it.

use super::*;

#[tokio::test]
async fn a_lone_request_tells_its_story_in_order() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    let inbox = bench
        .runner
        .submit(changed(work(1, &[3, 4], 5), |draw| draw.preview_interval = 2))
        .unwrap();
    let events = events(inbox).await;
    let names = events.iter().map(|event| match event.as_ref().unwrap() {
        Event::Accepted(_) => "accepted".to_owned(),
        Event::Started(_) => "started".to_owned(),
        Event::Step(Step { index, of }) => format!("{index}/{of}"),
        Event::Preview(_) => "preview".to_owned(),
        Event::Image(image) => format!("image {}", image.index),
        Event::Latents(latents) => format!("latents {}", latents.index),
        Event::Done(_) => "done".to_owned(),
    });
    let story: Vec<_> = names.filter(|name| name != "preview").collect();
    assert_eq!(
        story,
        [
            "accepted", "started", "1/5", "2/5", "3/5", "4/5", "5/5", "image 0", "image 1", "done"
        ]
    );
    let Some(Ok(Event::Done(done))) = events.last() else {
        panic!("{events:?}")
    };
    let timings = done.timings.unwrap();
    assert_eq!(timings.ticks, 5);
    assert!(
        timings.total_us >= timings.denoise_us + timings.decode_us,
        "{timings:?}"
    );
    assert_eq!(bench.runner.load().queued_rows, 0);
    // The text encoder saw both texts in one call, and four rows went through each tick.
    let calls = bench.rest().await;
    let mut expected = vec![Call::Encode(2)];
    expected.extend([Call::Denoise(4); 5]);
    expected.push(Call::Decode(2));
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn requests_join_and_leave_between_ticks() {
    let mut bench = Bench::start(|_| {}).await;
    let first = bench.runner.submit(work(1, &[1], 4)).unwrap();
    assert_eq!(bench.rows().await, 2);
    let second = bench.runner.submit(work(2, &[2, 3], 2)).unwrap();
    bench.let_one();
    // The second request stands at another step and shares the call.
    assert_eq!(bench.rows().await, 6);
    bench.let_one();
    assert_eq!(bench.rows().await, 6);
    bench.let_one();
    // It is finished, and the first goes on alone.
    assert_eq!(bench.rows().await, 2);
    bench.let_one();
    assert!(is_done(&events(first).await) && is_done(&events(second).await));
}

#[tokio::test]
async fn texts_that_were_seen_are_not_encoded_again() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    for prompt in [1, 1, 2] {
        assert!(is_done(
            &events(bench.runner.submit(work(prompt, &[1], 1)).unwrap()).await
        ));
    }
    let calls = bench.rest().await;
    let encodes: Vec<_> = calls
        .iter()
        .filter(|call| matches!(call, Call::Encode(_)))
        .collect();
    assert_eq!(encodes, [&Call::Encode(2), &Call::Encode(1)]);
}

#[tokio::test]
async fn between_two_ticks_there_is_at_most_one_other_call_while_rows_wait() {
    let mut bench = Bench::start(|_| {}).await;
    let long = bench.runner.submit(work(1, &[1], 40)).unwrap();
    assert_eq!(bench.rows().await, 2);
    // Many requests of one step: each needs a text and a decoding, and they all come at once.
    let short: Vec<_> = (10..40)
        .map(|n| bench.runner.submit(work(n, &[1], 1)).unwrap())
        .collect();
    // The short ones go first where they fill a call, so the long one needs more ticks than it has steps.
    for _ in 0..80 {
        bench.let_one();
    }
    for inbox in short.into_iter().chain([long]) {
        assert!(is_done(&events(inbox).await));
    }
    let calls = bench.rest().await;
    let last_tick = calls
        .iter()
        .rposition(|call| matches!(call, Call::Denoise(_)))
        .unwrap();
    let in_between = calls[..last_tick].split(|call| matches!(call, Call::Denoise(_)));
    assert!(in_between.clone().all(|others| others.len() <= 1), "{calls:?}");
    assert!(
        in_between
            .clone()
            .any(|others| matches!(others, [Call::Encode(_)]))
    );
    assert!(
        in_between
            .clone()
            .any(|others| matches!(others, [Call::Decode(_)]))
    );
}

/// Digests of a request's pictures, by their index.
fn digests(events: &[Result<Event, String>]) -> Vec<(u32, String)> {
    let digest = |event: &Result<Event, String>| match event {
        Ok(Event::Image(image)) => Some((image.index, image.digest.clone())),
        _ => None,
    };
    let mut all: Vec<_> = events.iter().filter_map(digest).collect();
    all.sort();
    all
}

#[tokio::test]
async fn where_kernels_are_chosen_by_the_batch_strict_calls_are_always_the_same_size() {
    let plain = Bench::start(|engine| engine.gate = None).await;
    let expected = events(plain.runner.submit(work(1, &[1, 2, 3], 3)).unwrap()).await;
    assert_eq!(digests(&expected).len(), 3);
    let bucket = Bench::start(|engine| (engine.gate, engine.info.bucket) = (None, Some(4))).await;
    let told = events(bucket.runner.submit(work(1, &[1, 2, 3], 3)).unwrap()).await;
    assert_eq!(digests(&told), digests(&expected));
    let calls = bucket.rest().await;
    let count = |wanted: Call| calls.iter().filter(|call| **call == wanted).count();
    // Two texts one by one, three steps of two and of one picture at least, three pictures one by one.
    assert_eq!((count(Call::Encode(1)), count(Call::Decode(1))), (2, 3));
    assert!(count(Call::Denoise(4)) >= 5, "{calls:?}");
    assert_eq!(count(Call::Denoise(4)) + 5, calls.len(), "{calls:?}");
}

#[tokio::test]
async fn where_kernels_are_chosen_by_the_batch_fast_requests_share_calls_of_any_size() {
    let bench = Bench::start(|engine| (engine.gate, engine.info.bucket) = (None, Some(4))).await;
    let fast = Work {
        fast: true,
        ..work(1, &[1, 2, 3], 2)
    };
    assert!(is_done(&events(bench.runner.submit(fast).unwrap()).await));
    // Texts are kept for strict requests too.
    let mut expected = vec![Call::Encode(1); 2];
    expected.extend([Call::Denoise(6); 2]);
    expected.push(Call::Decode(3));
    assert_eq!(bench.rest().await, expected);
}

#[tokio::test]
async fn pictures_that_the_caller_has_are_not_drawn() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    assert!(is_done(
        &events(bench.runner.submit(work(1, &[], 3)).unwrap()).await
    ));
    assert!(bench.rest().await.is_empty());
}

#[tokio::test]
async fn a_picture_to_start_from_is_encoded_once_for_all_seeds() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    for mask in [None, Some(vec![255; 64 * 64].into())] {
        let origin = Origin::Picture {
            rgb: vec![100; 64 * 64 * 3].into(),
            mask,
        };
        let work = changed(work(1, &[1, 2, 3], 2), |draw| draw.origin = origin);
        assert!(is_done(&events(bench.runner.submit(work).unwrap()).await));
    }
    let pictures: Vec<_> = bench
        .rest()
        .await
        .into_iter()
        .filter(|call| matches!(call, Call::Picture(_)))
        .collect();
    assert_eq!(pictures, [Call::Picture(1), Call::Picture(2)]);
}

#[tokio::test]
async fn latents_go_out_as_they_are_where_they_are_asked_for() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    let work = changed(work(1, &[1, 2], 2), |draw| draw.latents = true);
    let told = events(bench.runner.submit(work).unwrap()).await;
    let latents: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Ok(Event::Latents(done)) => done.latents.as_ref(),
            _ => None,
        })
        .collect();
    assert_eq!(latents.len(), 2);
    assert!(latents.iter().all(|latents| latents.data.len() == 4 * 4 * 8 * 8));
    assert_ne!(latents[0].data, latents[1].data);
    assert!(is_done(&told));
    assert!(
        !bench
            .rest()
            .await
            .iter()
            .any(|call| matches!(call, Call::Decode(_)))
    );
}

#[tokio::test]
async fn a_long_prompt_starts_even_when_nothing_is_cached() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    let long = changed(work(1, &[1], 1), |draw| {
        for prompt in [Some(&mut draw.prompt), draw.negative.as_mut()]
            .into_iter()
            .flatten()
        {
            let windows = (0..40).map(|n| Window {
                ids: vec![n; 77].into(),
                weights: None,
            });
            prompt.stretches[0].variants[0].windows = windows.collect();
        }
    });
    assert!(is_done(&events(bench.runner.submit(long).unwrap()).await));
    let calls = bench.rest().await;
    let encodes: Vec<_> = calls
        .iter()
        .filter(|call| matches!(call, Call::Encode(_)))
        .collect();
    assert_eq!(encodes, [&Call::Encode(16), &Call::Encode(16), &Call::Encode(8)]);
    // Both prompts are the same, so one row is both.
    assert!(calls.contains(&Call::Denoise(1)), "{calls:?}");
}

#[tokio::test]
async fn memory_is_given_back_once_when_there_is_nothing_to_do() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    for _ in 0..2 {
        assert!(is_done(
            &events(bench.runner.submit(work(1, &[1], 2)).unwrap()).await
        ));
    }
    let trims = Arc::clone(&bench.trims);
    while trims.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.rest().await;
    let trims = trims.load(Ordering::Relaxed);
    assert!((1..=2).contains(&trims), "{trims}");
}

#[tokio::test]
async fn steps_are_counted_as_asked_for_whatever_calls_they_take() {
    for (kind, calls) in [("heun", 9), ("pndm", 6), ("ddim", 5)] {
        let bench = Bench::start(|engine| engine.gate = None).await;
        let config = Config::from_json(r#"{"_class_name": "DDIMScheduler", "clip_sample": false}"#).unwrap();
        let ask = Ask {
            choice: Choice::parse(kind, "").unwrap(),
            ..Ask::steps(5)
        };
        let config = if kind == "pndm" {
            Config::from_json(r#"{"_class_name": "PNDMScheduler", "skip_prk_steps": true}"#).unwrap()
        } else {
            config
        };
        let sampler = Arc::new(Sampler::new(&config, &ask).unwrap());
        assert_eq!(sampler.calls(), calls, "{kind}");
        let work = changed(work(1, &[3], 5), |draw| draw.sampler = sampler);
        let told = events(bench.runner.submit(work).unwrap()).await;
        let steps: Vec<_> = told
            .iter()
            .filter_map(|event| match event {
                Ok(Event::Step(step)) => Some((step.index, step.of)),
                _ => None,
            })
            .collect();
        assert_eq!(steps, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)], "{kind}");
    }
}

#[tokio::test]
async fn progress_is_told_of_all_pictures_together_though_they_are_drawn_one_after_the_other() {
    // Two rows in a call: one guided picture at a time.
    let bench = Bench::start(|engine| (engine.gate, engine.info.bucket) = (None, Some(2))).await;
    let told = events(bench.runner.submit(work(1, &[1, 2, 3], 4)).unwrap()).await;
    let story: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Ok(Event::Step(step)) => Some((step.index, step.of)),
            Ok(Event::Image(_)) => Some((0, 0)),
            _ => None,
        })
        .collect();
    let steps: Vec<_> = story.iter().copied().filter(|(index, _)| *index > 0).collect();
    assert_eq!(steps, [(1, 4), (2, 4), (3, 4), (4, 4)]);
    // The first step is told while the first picture is drawn, not with the last one.
    assert_eq!(story[0], (1, 4), "{story:?}");
    assert!(story[1..].iter().filter(|(index, _)| *index == 0).count() == 3);
}

/// A sampler of a kind, with a model's PNDM configuration.
fn sampler(kind: &str, skip_prk: bool, steps: usize) -> Arc<Sampler> {
    let text = format!(r#"{{"_class_name": "PNDMScheduler", "skip_prk_steps": {skip_prk}}}"#);
    let ask = Ask {
        choice: Choice::parse(kind, "").unwrap(),
        ..Ask::steps(steps)
    };
    Arc::new(Sampler::new(&Config::from_json(&text).unwrap(), &ask).unwrap())
}

#[test]
fn a_prompt_changes_with_the_step_that_is_told_whatever_calls_the_step_takes() {
    let info = Fake::new(Costs::default()).info().clone();
    for (kind, skip_prk, calls) in [
        ("ddim", true, 1),
        ("heun", true, 2),
        ("pndm", true, 2),
        ("pndm", false, 4),
    ] {
        let mut prompt = self::prompt(1);
        let later = self::prompt(2).stretches;
        prompt.stretches[0].until = Some(1);
        prompt.stretches.extend(later);
        let work = changed(work(0, &[3], 5), |draw| {
            (draw.sampler, draw.prompt) = (sampler(kind, skip_prk, 5), prompt);
        });
        let draw = drawn(&work);
        let encoded = |(ids, _): &cache::Text| Encoded {
            states: vec![ids[0] as f32; info.states()],
            pooled: vec![0.0; info.pooled],
        };
        let found = draw.windows().map(|text| {
            let states = Arc::new(encoded(&text));
            (text, states)
        });
        let texts = compose::texts(&draw, &info, false, &found.collect()).unwrap();
        let spec = Spec {
            channels: work.shape.channels,
            height: work.shape.height,
            width: work.shape.width,
            guidance: draw.guidance,
            seed: 3,
            source: draw.source,
            start: trajectory::Start::Noise,
        };
        let trajectory = Trajectory::new(spec, Arc::clone(&draw.sampler)).unwrap();
        let zeros = vec![0.0; work.shape.values()];
        let (outbox, _inbox) = outbox::channel(&Arc::default());
        let job = Arc::new(Job::new(work, outbox, Arc::default(), 0));
        let order = track::Order {
            request: 0,
            picture: 0,
        };
        let mut track = track::Track::new((&job, &draw), 0, trajectory, &Arc::new(texts), order);
        let mut before = 0;
        while !track.trajectory.is_done() {
            let Some(track::Rows::Two(_, cond)) = track.rows() else {
                panic!("{kind}: {:?}", track.rows())
            };
            let is_first = cond.states[0] < 1.5;
            let done = draw.steps_done(track.trajectory.step() as u32);
            assert_eq!(is_first, done == 0, "{kind}");
            before += usize::from(is_first);
            track.trajectory.accept(Some(&zeros), &zeros).unwrap();
        }
        assert_eq!(before, calls, "{kind}");
    }
}
