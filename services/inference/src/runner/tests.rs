use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use futures::StreamExt;
use mobula_diffusion::{Config, Sampler};
use mobula_proto::inference::v1::Step;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::*;
use crate::engine::fake::{Costs, Fake};
use crate::engine::{Batch, Shape};

/// What an engine was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Windows.
    Encode(usize),
    /// Rows.
    Denoise(usize),
    /// Pictures.
    Decode(usize),
}

/// The fake engine, which tells of every call and, where told so, waits for leave, fails or panics.
struct Scripted {
    fake: Fake,
    calls: UnboundedSender<Call>,
    /// Each UNet call waits for one message; when the other end is gone it waits no more.
    gate: Option<Receiver<()>>,
    /// Latent width whose UNet calls fail; 0 is every one.
    fails_at: Option<usize>,
    /// Which picture of every call of the decoder is spoilt.
    spoils: Option<usize>,
    panics: bool,
}

impl Engine for Scripted {
    fn info(&self) -> &Info {
        self.fake.info()
    }

    fn encode(&mut self, ids: &[u32], states: &mut Vec<f32>) -> Result<(), Error> {
        let _ = self.calls.send(Call::Encode(ids.len() / 77));
        self.fake.encode(ids, states)
    }

    fn denoise(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let _ = self.calls.send(Call::Denoise(batch.rows()));
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        assert!(!self.panics, "as the test wants it");
        if self
            .fails_at
            .is_some_and(|width| width == 0 || width == batch.shape().width)
        {
            return Err(Error::Run {
                part: "unet",
                why: "as the test wants it".into(),
            });
        }
        self.fake.denoise(batch)
    }

    fn decode(&mut self, latents: &[f32], shape: Shape, planes: &mut Vec<f32>) -> Result<(), Error> {
        let _ = self.calls.send(Call::Decode(latents.len() / shape.values()));
        self.fake.decode(latents, shape, planes)?;
        if let Some(picture) = self.spoils {
            let each = planes.len() / (latents.len() / shape.values());
            planes[picture * each] = f32::NAN;
        }
        Ok(())
    }
}

struct Bench {
    runner: Runner,
    calls: UnboundedReceiver<Call>,
    gate: Sender<()>,
}

impl Bench {
    async fn start(change: impl FnOnce(&mut Scripted) + Send + 'static) -> Self {
        let (calls, heard) = unbounded_channel();
        let (gate, waits) = channel();
        let options = Options {
            max_rows: 8,
            native: 8 * 16,
            cache_bytes: 1 << 20,
            latent_rgb: LatentRgb::default(),
        };
        let runner = Runner::start(options, move || {
            let fake = Fake::new(Costs::default());
            let mut engine = Scripted {
                fake,
                calls,
                gate: Some(waits),
                fails_at: None,
                spoils: None,
                panics: false,
            };
            change(&mut engine);
            Ok(Box::new(engine))
        });
        Self {
            runner: runner.await.unwrap(),
            calls: heard,
            gate,
        }
    }

    /// Lets one UNet call go on.
    fn let_one(&self) {
        self.gate.send(()).unwrap();
    }

    /// Waits for the next call of the engine.
    async fn call(&mut self) -> Call {
        self.calls.recv().await.unwrap()
    }

    /// Waits for the next UNet call and says how many rows it has.
    async fn rows(&mut self) -> usize {
        loop {
            if let Call::Denoise(rows) = self.call().await {
                return rows;
            }
        }
    }

    /// Stops the loop; every call from now to the engine's end.
    async fn rest(mut self) -> Vec<Call> {
        // Closed before the gate opens, so that the call behind it is the last.
        self.runner.lock().sender = None;
        drop(self.gate);
        let runner = self.runner;
        tokio::task::spawn_blocking(move || runner.stop()).await.unwrap();
        let mut calls = Vec::new();
        while let Some(call) = self.calls.recv().await {
            calls.push(call);
        }
        calls
    }
}

fn work(prompt: u32, seeds: &[u64], steps: usize) -> Work {
    let config = r#"{"_class_name": "DDIMScheduler", "clip_sample": false}"#;
    let sampler = Sampler::new(&Config::from_json(config).unwrap(), None, steps).unwrap();
    Work {
        request_id: format!("{prompt}"),
        prompt: vec![prompt; 77].into(),
        negative: Some(vec![0; 77].into()),
        shape: Shape {
            channels: 4,
            height: 8,
            width: 8,
        },
        sampler: Arc::new(sampler),
        guidance_scale: 5.0,
        pictures: (0..).zip(seeds.iter().copied()).collect(),
        preview_interval: 0,
        text: vec![],
        deadline: None,
        arrived: Instant::now(),
        span: tracing::Span::none(),
    }
}

async fn events(inbox: Inbox) -> Vec<Result<Event, String>> {
    let read = inbox
        .map(|item| item.map_err(|error| error.to_string()))
        .collect();
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap()
}

fn is_done(events: &[Result<Event, String>]) -> bool {
    matches!(events.last(), Some(Ok(Event::Done(_))))
}

#[tokio::test]
async fn a_lone_request_tells_its_story_in_order() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    let inbox = bench
        .runner
        .submit(Work {
            preview_interval: 2,
            ..work(1, &[3, 4], 5)
        })
        .unwrap();
    let events = events(inbox).await;
    let names = events.iter().map(|event| match event.as_ref().unwrap() {
        Event::Accepted(_) => "accepted".to_owned(),
        Event::Started(_) => "started".to_owned(),
        Event::Step(Step { index, of }) => format!("{index}/{of}"),
        Event::Preview(_) => "preview".to_owned(),
        Event::Image(image) => format!("image {}", image.index),
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
    for _ in 0..40 {
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
        why.contains("vae_decoder failed") && why.contains("not finite"),
        "{told:?}"
    );
    assert!(is_done(&events(good).await));
    bench.runner.health().unwrap();
    assert_eq!(bench.runner.load().queued_rows, 0);
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
    let never = Runner::start(
        Options {
            max_rows: 8,
            native: 8 * 16,
            cache_bytes: 0,
            latent_rgb: LatentRgb::default(),
        },
        || panic!("as the test wants it"),
    );
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
async fn pictures_that_the_caller_has_are_not_drawn() {
    let bench = Bench::start(|engine| engine.gate = None).await;
    assert!(is_done(
        &events(bench.runner.submit(work(1, &[], 3)).unwrap()).await
    ));
    assert!(bench.rest().await.is_empty());
}
