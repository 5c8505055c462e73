//! Requests in time when more comes than can be done: batched step by step, and by whole requests first come first served.
//!
//! An open loop: requests come whenever they like (Poisson, with fixed seeds), whatever became of those before, as a mix of 4, 20
//! and 50 steps. Both sides get the same arrivals. A deadline is a multiple of what a request of its length takes alone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use mobula_proto::inference::v1::GenerateRequest;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Request;

use crate::random::Random;
use crate::report::Deadlines;
use crate::service::{Worker, request, with_seed};
use crate::subject::Subject;
use crate::{Args, median};

/// Steps of the mix, each as often.
const MIX: [u32; 3] = [4, 20, 50];
/// Lone requests of each length; the median counts.
const LONE: usize = 5;
/// Arrivals with other seeds; the median gain counts.
const SEEDS: [u64; 3] = [1, 2, 3];
/// A small model on a fast device: a call of 16 rows takes 12 ms, a decoding 3 ms.
const COSTS: [(&str, &str); 3] = [("base_us", "2000"), ("row_us", "600"), ("decode_us", "3000")];

/// What comes: when, of which length, and when it must be done.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Duration,
    length: usize,
    seed: u64,
    limit: Duration,
}

/// An engine with a replica for each policy.
struct Scene {
    name: &'static str,
    steps: GenerateRequest,
    fifo: GenerateRequest,
    /// Both at the same time: they have a device each.
    beside: bool,
}

/// Measures the fake engine and the demo model.
pub(crate) async fn measure(args: &Args, worker: &Arc<Worker>) -> Result<Vec<Deadlines>> {
    let mut all = Vec::new();
    for model in [None, Some(Subject::Demo)] {
        let (name, size) = model.map_or(("fake", 64), |model| (model.name(), model.size()));
        let mut scene = Scene {
            name,
            steps: request(&format!("{name}-steps"), size, 0),
            fifo: request(&format!("{name}-fifo"), size, 0),
            beside: model.is_none(),
        };
        for (side, policy) in [(&mut scene.steps, "steps"), (&mut scene.fifo, "fifo")] {
            let costs = if model.is_none() { &COSTS[..] } else { &[] };
            let options: Vec<_> = [("scheduling", policy)]
                .into_iter()
                .chain(costs.iter().copied())
                .collect();
            worker.load(&side.replica_id, model, &options).await?;
        }
        all.push(scene.measure(args, worker).await?);
    }
    Ok(all)
}

impl Scene {
    async fn measure(&self, args: &Args, worker: &Arc<Worker>) -> Result<Deadlines> {
        let mut lone = [Duration::ZERO; MIX.len()];
        for (lone, steps) in lone.iter_mut().zip(MIX) {
            *lone = self.lone(worker, steps).await?;
        }
        let (mut steps, mut fifo, mut gains, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for seed in SEEDS {
            let seconds = args.seconds as f64;
            let can = worker
                .closed(&self.steps, &MIX, (2 * args.callers, seconds))
                .await?;
            let mean = f64::from(2 * MIX.iter().sum::<u32>()) / MIX.len() as f64;
            let capacity = can.rows / can.seconds / mean;
            let arrivals = arrivals(args, args.load * capacity, seed, &lone);
            let (a, b) = if self.beside {
                tokio::join!(
                    in_time(worker, &self.steps, &arrivals),
                    in_time(worker, &self.fifo, &arrivals)
                )
            } else {
                (
                    in_time(worker, &self.steps, &arrivals).await,
                    in_time(worker, &self.fifo, &arrivals).await,
                )
            };
            let came = MIX.map(|steps| arrivals.iter().filter(|one| MIX[one.length] == steps).count());
            println!(
                "{}: {:.2} requests/s of {capacity:.2}: in time {a:?} by steps, {b:?} by whole requests, of {came:?} of {MIX:?} steps",
                self.name,
                args.load * capacity
            );
            let share = |done: [usize; 3]| 100.0 * done.iter().sum::<usize>() as f64 / arrivals.len() as f64;
            steps.push(share(a));
            fifo.push(share(b));
            gains.push(share(a) - share(b));
            rates.push(capacity);
        }
        Ok(Deadlines {
            engine: self.name.to_owned(),
            load: args.load,
            patience: args.patience,
            capacity: median(&rates),
            lone_ms: lone.map(|lone| lone.as_secs_f64() * 1e3),
            steps: median(&steps),
            fifo: median(&fifo),
            gain: median(&gains),
            gains,
        })
    }

    /// What a request of so many steps takes alone.
    async fn lone(&self, worker: &Arc<Worker>, steps: u32) -> Result<Duration> {
        let mut took = Vec::new();
        for seed in 0..LONE as u64 {
            let asked = GenerateRequest {
                steps,
                ..with_seed(&self.steps, seed)
            };
            let begun = Instant::now();
            worker.draw(Request::new(asked), |_| {}).await?;
            took.push(begun.elapsed().as_secs_f64());
        }
        Ok(Duration::from_secs_f64(median(&took)))
    }
}

/// What comes at a rate, the same for the same seed.
fn arrivals(args: &Args, rate: f64, seed: u64, lone: &[Duration; 3]) -> Vec<Arrival> {
    let (mut random, mut all, mut at) = (Random::new(seed), Vec::new(), 0.0);
    loop {
        at += random.pause(rate);
        if at > args.arrivals as f64 {
            return all;
        }
        let length = random.below(MIX.len());
        all.push(Arrival {
            at: Duration::from_secs_f64(at),
            length,
            seed: (seed << 32) + all.len() as u64,
            limit: lone[length].mul_f64(args.patience),
        });
    }
}

/// Sends everything when it comes; gives how many of each length were done in time.
async fn in_time(worker: &Arc<Worker>, template: &GenerateRequest, arrivals: &[Arrival]) -> [usize; 3] {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for arrival in arrivals.iter().copied() {
        let (worker, template) = (Arc::clone(worker), template.clone());
        tasks.spawn(async move {
            let at = begun + arrival.at;
            sleep_until(at).await;
            let mut asked = Request::new(GenerateRequest {
                steps: MIX[arrival.length],
                ..with_seed(&template, arrival.seed)
            });
            // The worker lets go of it when its time is over, as it does for everybody who sends a deadline.
            asked.set_timeout(arrival.limit);
            let drawn = timeout_at(at + arrival.limit, worker.draw(asked, |_| {})).await;
            (arrival.length, matches!(drawn, Ok(Ok(()))))
        });
    }
    let mut done = [0; 3];
    while let Some(Ok((length, in_time))) = tasks.join_next().await {
        done[length] += usize::from(in_time);
    }
    done
}
