//! The loop around an engine that tells of every call and waits for leave.

mod ends;
mod stages;
mod story;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use futures::StreamExt;
use mobula_diffusion::random::Source;
use mobula_diffusion::scheduler::{Ask, Choice};
use mobula_diffusion::{Config, Guidance, Sampler, Spec, Trajectory, trajectory};
use mobula_proto::inference::v1::Step;
use mobula_serving::tick::Class;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::*;
use crate::engine::fake::{Costs, Fake};
use crate::engine::{Batch, Decoded, Encoded, Interrupt, Moments, Shape};

/// What an engine was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Windows.
    Encode(usize),
    /// Rows.
    Denoise(usize),
    /// Pictures.
    Decode(usize),
    /// Pictures, and what masks leave of them.
    Picture(usize),
}

/// The fake engine, which tells of every call and, where told so, waits for leave, fails or panics.
struct Scripted {
    fake: Fake,
    /// The fake engine's, but for what a test changes.
    info: Info,
    calls: UnboundedSender<Call>,
    /// Each UNet call waits for one message; when the other end is gone it waits no more.
    gate: Option<Receiver<()>>,
    /// Latent width whose UNet calls fail; 0 is every one.
    fails_at: Option<usize>,
    /// Which picture of every call of the decoder is spoilt.
    spoils: Option<usize>,
    /// Which row of every UNet call is spoilt.
    blots: Option<usize>,
    panics: bool,
    trims: Arc<AtomicUsize>,
    interrupts: Arc<Interrupts>,
}

impl Engine for Scripted {
    fn info(&self) -> &Info {
        &self.info
    }

    fn encode(&mut self, ids: &[u32], skip: usize, out: &mut Encoded) -> Result<(), Error> {
        let _ = self.calls.send(Call::Encode(ids.len() / 77));
        self.fake.encode(ids, skip, out)
    }

    fn denoise(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let _ = self.calls.send(Call::Denoise(batch.rows()));
        let told = self.interrupts.told.load(Ordering::Relaxed);
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        if self.interrupts.told.load(Ordering::Relaxed) > told {
            return Err(Error::Interrupted);
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
        self.fake.denoise(batch)?;
        let values = batch.shape().values();
        if let Some(row) = self.blots.filter(|row| *row < batch.rows()) {
            batch.outputs_mut()[row * values] = f32::NAN;
        }
        Ok(())
    }

    fn decode(&mut self, latents: &[f32], shape: Shape, planes: &mut Vec<f32>) -> Result<Decoded, Error> {
        let _ = self.calls.send(Call::Decode(latents.len() / shape.values()));
        let decoded = self.fake.decode(latents, shape, planes)?;
        if let Some(picture) = self.spoils {
            let each = planes.len() / (latents.len() / shape.values());
            planes[picture * each] = f32::NAN;
        }
        Ok(decoded)
    }

    fn encode_images(
        &mut self,
        pixels: &[f32],
        width: usize,
        height: usize,
        out: &mut Moments,
    ) -> Result<(), Error> {
        let _ = self
            .calls
            .send(Call::Picture(pixels.len() / (3 * width * height)));
        self.fake.encode_images(pixels, width, height, out)
    }

    fn trim(&mut self) {
        self.trims.fetch_add(1, Ordering::Relaxed);
    }

    fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        Some(Arc::clone(&self.interrupts) as Arc<dyn Interrupt>)
    }
}

/// Opens a gate of its own, as a run does that is told to end.
#[derive(Default)]
struct Interrupts {
    told: AtomicUsize,
    gate: Mutex<Option<Sender<()>>>,
}

impl Interrupt for Interrupts {
    fn interrupt(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
        if let Some(gate) = self.gate.lock().unwrap().as_ref() {
            let _ = gate.send(());
        }
    }
}

struct Bench {
    runner: Runner,
    calls: UnboundedReceiver<Call>,
    gate: Sender<()>,
    trims: Arc<AtomicUsize>,
    interrupts: Arc<Interrupts>,
}

impl Bench {
    async fn start(change: impl FnOnce(&mut Scripted) + Send + 'static) -> Self {
        let (calls, heard) = unbounded_channel();
        let (gate, waits) = channel();
        let (trims, interrupts) = (Arc::<AtomicUsize>::default(), Arc::<Interrupts>::default());
        *interrupts.gate.lock().unwrap() = Some(gate.clone());
        let (their_trims, their_interrupts) = (Arc::clone(&trims), Arc::clone(&interrupts));
        let runner = Runner::start(options(1 << 20), move || {
            let fake = Fake::new(Costs::default());
            let mut engine = Scripted {
                info: fake.info().clone(),
                fake,
                calls,
                gate: Some(waits),
                fails_at: None,
                spoils: None,
                blots: None,
                panics: false,
                trims: their_trims,
                interrupts: their_interrupts,
            };
            change(&mut engine);
            Ok((Box::new(engine) as Box<dyn Engine>, vec![]))
        });
        Self {
            runner: runner.await.unwrap(),
            calls: heard,
            gate,
            trims,
            interrupts,
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
        self.interrupts.gate.lock().unwrap().take();
        let runner = self.runner;
        tokio::task::spawn_blocking(move || runner.stop()).await.unwrap();
        let mut calls = Vec::new();
        while let Some(call) = self.calls.recv().await {
            calls.push(call);
        }
        calls
    }
}

fn options(cache_bytes: usize) -> Options {
    Options {
        max_rows: 8,
        native: 8 * 16,
        cache_bytes,
        latent_rgb: LatentRgb::default(),
        zeros_for_empty: false,
        policy: Policy::default(),
        device: Device::new(),
        place: Place::default(),
    }
}

fn prompt(id: u32) -> Prompt {
    let window = Window {
        ids: vec![id; 77].into(),
        weights: None,
    };
    Prompt {
        stretches: vec![Stretch {
            until: None,
            variants: vec![Variant {
                share: 1.0,
                windows: vec![window],
            }],
        }],
        emphasis: Emphasis::None,
        is_empty: false,
    }
}

fn work(prompt: u32, seeds: &[u64], steps: usize) -> Work {
    let config = r#"{"_class_name": "DDIMScheduler", "clip_sample": false}"#;
    let sampler = Sampler::new(&Config::from_json(config).unwrap(), &Ask::steps(steps)).unwrap();
    let draw = Draw {
        prompt: self::prompt(prompt),
        negative: Some(self::prompt(0)),
        clip_skip: [0, 0],
        time_ids: [Arc::default(), Arc::default()],
        sampler: Arc::new(sampler),
        guidance: Guidance {
            scale: 5.0,
            rescale: 0.0,
            interval: None,
            embedded: false,
        },
        source: Source::Cpu,
        origin: Origin::Noise,
        latents: false,
        preview_interval: 0,
        texts: HashMap::new(),
    };
    Work {
        request_id: format!("{prompt}"),
        task: Task::Draw(Arc::new(draw)),
        shape: Shape {
            channels: 4,
            height: 8,
            width: 8,
        },
        class: Class::Normal,
        fast: false,
        pictures: (0..).zip(seeds.iter().copied()).collect(),
        format: crate::encode::Format::Png,
        text: vec![],
        deadline: None,
        arrived: Instant::now(),
        span: tracing::Span::none(),
    }
}

/// What a work draws.
fn drawn(work: &Work) -> Arc<Draw> {
    match &work.task {
        Task::Draw(draw) => Arc::clone(draw),
        other @ (Task::Decode(_) | Task::Texts(_) | Task::Picture { .. }) => panic!("{other:?}"),
    }
}

/// The same work, drawn otherwise.
fn changed(mut work: Work, change: impl FnOnce(&mut Draw)) -> Work {
    let mut draw = (*drawn(&work)).clone();
    change(&mut draw);
    work.task = Task::Draw(Arc::new(draw));
    work
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
