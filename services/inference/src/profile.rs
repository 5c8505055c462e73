//! How long UNet calls take by their rows: measured with an engine, kept in a model's manifest, read by the tick loop.
//!
//! It measures and stores; what a batch is allowed to cost is decided in `mobula_serving`. Invariant: a measurement ends within
//! its budget and one call more, and a curve has whole rows in rising order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::engine::{Batch, Condition, Engine, Info, Shape};
use crate::error::Error;

/// Rows of the calls that are measured.
pub const ROWS: [usize; 5] = [1, 2, 4, 8, 16];
/// Runs of each call; the fastest counts, because what others do on the machine only adds.
const RUNS: usize = 3;
/// Curves in a manifest at most, in all.
const MAX_CURVES: usize = 1024;

/// Pairs of rows and microseconds, by rising rows.
pub type Curve = Vec<(usize, u64)>;

/// Measured latencies of a model's UNet: by who computes ([`Info::computes`]), then by `<h>x<w>x<tokens>` (latent rows, latent columns, text tokens).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Profile(BTreeMap<String, BTreeMap<String, Curve>>);

impl Profile {
    /// The curve of who computes for latents of a shape and a prompt of so many tokens.
    #[must_use]
    pub fn curve(&self, computes: &str, shape: Shape, tokens: usize) -> Option<&[(usize, u64)]> {
        let curve = self.0.get(computes)?.get(&key(shape, tokens))?;
        Some(curve)
    }

    /// All curves of who computes, with the latent rows, latent columns and tokens they were measured with.
    pub fn curves(&self, computes: &str) -> impl Iterator<Item = ([usize; 3], &Curve)> {
        let curves = self.0.get(computes).into_iter().flatten();
        curves.filter_map(|(key, curve)| {
            let mut sides = key.split('x').map(str::parse);
            let mut side = || sides.next()?.ok().filter(|side| *side > 0);
            Some(([side()?, side()?, side()?], curve))
        })
    }

    /// Puts a curve in, in place of one that was there.
    pub fn put(&mut self, computes: &str, shape: Shape, tokens: usize, curve: Curve) {
        let curves = self.0.entry(computes.to_owned()).or_default();
        curves.insert(key(shape, tokens), curve);
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses what no measurement writes.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.0.values().map(BTreeMap::len).sum::<usize>() > MAX_CURVES {
            return Err(format!("profile has more than {MAX_CURVES} curves"));
        }
        for (key, curve) in self.0.values().flatten() {
            let rising = curve.windows(2).all(|pair| pair[0].0 < pair[1].0);
            if !rising || curve.iter().any(|(rows, micros)| *rows == 0 || *micros == 0) {
                return Err(format!(
                    "profile of {key} is {curve:?}, expected [rows, microseconds] by rising rows"
                ));
            }
        }
        Ok(())
    }
}

fn key(shape: Shape, tokens: usize) -> String {
    format!("{}x{}x{tokens}", shape.height, shape.width)
}

/// Measures calls of 1, 2, 4, 8 and 16 rows, up to `max_rows`, until the budget is spent; at least the first is measured.
///
/// # Errors
/// What the engine says; running out of memory with many rows ends the curve instead.
pub fn measure(
    engine: &mut dyn Engine,
    shape: Shape,
    tokens: usize,
    max_rows: usize,
    budget: Duration,
) -> Result<Curve, Error> {
    let info = engine.info().clone();
    let condition = Arc::new(probe(&info, tokens));
    let mut batch = Batch::new(&info);
    let started = Instant::now();
    let mut curve = Curve::new();
    for rows in ROWS.into_iter().filter(|rows| *rows <= max_rows.max(1)) {
        let mut best: Option<Duration> = None;
        for _ in 0..RUNS {
            match one(engine, &mut batch, shape, rows, &condition) {
                Ok(took) => best = Some(best.map_or(took, |best| best.min(took))),
                Err(error) if curve.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(rows, %error, "a UNet call of so many rows fails; the profile ends before it");
                    return Ok(curve);
                }
            }
            if started.elapsed() > budget {
                break;
            }
        }
        if let Some(best) = best {
            curve.push((rows, u64::try_from(best.as_micros()).unwrap_or(u64::MAX).max(1)));
        }
        // The next call takes about twice as long as the last one.
        let next = best.map_or(Duration::ZERO, |best| 2 * best);
        if started.elapsed() + next > budget {
            break;
        }
    }
    Ok(curve)
}

fn one(
    engine: &mut dyn Engine,
    batch: &mut Batch,
    shape: Shape,
    rows: usize,
    condition: &Arc<Condition>,
) -> Result<Duration, Error> {
    batch.reset(shape, condition.tokens(engine.info())?);
    for row in 0..rows {
        let sample = batch.push(501.0, condition)?;
        // As guidance has them: two rows of one picture.
        let picture = row / 2;
        for (index, value) in sample.iter_mut().enumerate() {
            *value = ((index + picture) as f32 * 0.7).sin();
        }
    }
    let started = Instant::now();
    engine.denoise(batch)?;
    Ok(started.elapsed())
}

/// A condition of the right form.
fn probe(info: &Info, tokens: usize) -> Condition {
    let wave = |length: usize| (0..length).map(|i| (i as f32 * 0.3).sin()).collect();
    Condition {
        states: wave(tokens * info.width),
        pooled: wave(info.pooled),
        time_ids: (0..info.time_ids).map(|_| 512.0).collect(),
        guidance: wave(info.guidance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{Costs, Fake};

    #[test]
    fn a_curve_has_the_rows_that_the_budget_allows_and_is_found_again() {
        let mut engine = Fake::new(Costs::default());
        let info = engine.info().clone();
        let shape = info.latents(2 * info.multiple, info.multiple);
        let curve = measure(&mut engine, shape, info.window, 8, Duration::from_secs(10)).unwrap();
        assert_eq!(
            curve.iter().map(|(rows, _)| *rows).collect::<Vec<_>>(),
            [1, 2, 4, 8]
        );
        let short = measure(&mut engine, shape, info.window, 8, Duration::ZERO).unwrap();
        assert_eq!(short.len(), 1);
        let mut profile = Profile::default();
        profile.put("CPUExecutionProvider", shape, info.window, curve.clone());
        assert!(profile.check().is_ok());
        let text = serde_json::to_string(&profile).unwrap();
        let read: Profile = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read.curve("CPUExecutionProvider", shape, info.window),
            Some(&curve[..])
        );
        assert_eq!(read.curve("CUDAExecutionProvider", shape, info.window), None);
    }

    #[test]
    fn a_curve_that_nobody_measured_is_refused() {
        for wrong in ["[[2, 5], [1, 9]]", "[[0, 5]]", "[[1, 0]]"] {
            let text = format!(r#"{{"CPUExecutionProvider": {{"8x8x77": {wrong}}}}}"#);
            let profile: Profile = serde_json::from_str(&text).unwrap();
            assert!(profile.check().unwrap_err().contains("8x8x77"));
        }
    }
}
