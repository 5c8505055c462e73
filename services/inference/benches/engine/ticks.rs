//! What a tick costs beside the model, and what it allocates: the loop itself, turned on this thread, around an engine whose calls
//! take no time.

use anyhow::{Context, Result};
use mobula_inference::Error;
use mobula_inference::bench::Bench;
use mobula_inference::engine::fake::{Costs, Fake};
use mobula_inference::engine::{Batch, Decoded, Encoded, Engine, Info, Moments, Shape};
use mobula_proto::inference::v1::GenerateRequest;
use tokio::time::Instant;

use crate::median;
use crate::report::Tick;
use crate::service::{request, with_seed};

/// Guided pictures, each a request of its own: 64 rows.
const PICTURES: usize = 32;
/// Ticks after which every buffer has grown: a queue of events of a reader that is behind has 66, some steps take two ticks.
const WARM: usize = 200;
/// Ticks that are measured.
const TICKS: usize = 600;
/// Schedulers whose steps are of different kinds, at a size where the loop's own work shows: latents of one position.
const SCHEDULERS: [&str; 6] = ["ddim", "euler", "dpmpp_2m", "unipc", "pndm", "heun"];
const SMALL: u32 = 8;
/// Where other work is the most of it: drawing noise, and copying and stepping latents of 64 by 64.
const OTHERS: [(u32, &str); 3] = [(SMALL, "euler_a"), (64, "ddim"), (512, "ddim")];

/// The fake engine with UNet calls that answer zeros at once.
struct Free(Fake);

impl Engine for Free {
    fn info(&self) -> &Info {
        self.0.info()
    }

    fn encode(&mut self, ids: &[u32], clip_skip: usize, out: &mut Encoded) -> Result<(), Error> {
        self.0.encode(ids, clip_skip, out)
    }

    fn denoise(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let values = batch.rows() * batch.shape().values();
        batch.outputs_mut().resize(values, 0.0);
        Ok(())
    }

    fn decode(&mut self, latents: &[f32], shape: Shape, planes: &mut Vec<f32>) -> Result<Decoded, Error> {
        self.0.decode(latents, shape, planes)
    }

    fn encode_images(
        &mut self,
        pixels: &[f32],
        width: usize,
        height: usize,
        out: &mut Moments,
    ) -> Result<(), Error> {
        self.0.encode_images(pixels, width, height, out)
    }
}

/// Measures ticks.
pub(crate) fn measure() -> Result<Vec<Tick>> {
    let mut all = Vec::new();
    for (size, scheduler) in SCHEDULERS.map(|name| (SMALL, name)).into_iter().chain(OTHERS) {
        all.push(run(size, scheduler).with_context(|| format!("{scheduler} at {size} pixels"))?);
    }
    Ok(all)
}

fn run(size: u32, scheduler: &str) -> Result<Tick> {
    let mut bench = Bench::new(Box::new(Free(Fake::new(Costs::default()))), 2 * PICTURES)?;
    let template = GenerateRequest {
        scheduler: scheduler.to_owned(),
        ..request("bench", size, (WARM + TICKS + 50) as u32)
    };
    for seed in 0..PICTURES as u64 {
        bench.submit(with_seed(&template, seed))?;
    }
    for _ in 0..WARM {
        bench.turn()?;
    }
    let (mut took, mut failed, mut rows) = (Vec::with_capacity(TICKS), None, 0);
    let counted = allocation_counter::measure(|| {
        for _ in 0..TICKS {
            let begun = Instant::now();
            match bench.turn() {
                Ok(last) => rows = last,
                Err(error) => failed = Some(error),
            }
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    Ok(Tick {
        scheduler: scheduler.to_owned(),
        size,
        rows,
        microseconds: median(&took),
        allocations: counted.count_total as f64 / TICKS as f64,
        asked: size == SMALL && SCHEDULERS.contains(&scheduler),
    })
}
