//! Checks that an engine keeps the rules of [`Engine`]; every engine runs it in a test.
//!
//! It uses small pictures and few rows, so that it ends within seconds on real models. It measures nothing.

use std::sync::Arc;

use super::{Batch, Condition, Encoded, Engine, Error, Info, Moments, Shape};

/// A rule that was broken.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// A call that must succeed failed.
    #[error("a valid call of {0} must succeed: {1}")]
    Failed(&'static str, #[source] Error),
    /// Rules 1 and 2.
    #[error("{0}: the same row must give the same bytes, alone and in any company, now and later")]
    Company(&'static str),
    /// Rule 3.
    #[error("timesteps: {0}")]
    Timesteps(&'static str),
    /// Rule 4.
    #[error("a wrong length of {0} must be refused with Error::Contract")]
    Accepted(&'static str),
    /// Rule 5.
    #[error("{what} must give {expected} finite values, gave {got} of which {finite} are finite")]
    Output {
        /// Which call.
        what: &'static str,
        /// Values that should come out.
        expected: usize,
        /// Values that came out.
        got: usize,
        /// Finite ones among them.
        finite: usize,
    },
    /// Rule 6.
    #[error("an empty call of {0} must succeed and give nothing")]
    Empty(&'static str),
    /// The description of the engine makes no sense.
    #[error("info: {0}")]
    Info(&'static str),
}

/// Checks all rules.
///
/// # Errors
/// The first [`Violation`] found.
pub fn check(engine: &mut dyn Engine) -> Result<(), Violation> {
    let info = engine.info().clone();
    check_info(&info)?;
    let conditions = check_encode(engine, &info)?;
    // Two latent shapes: the smallest, and one that is not square.
    let unit = info.multiple / info.scale;
    for (height, width) in [(2 * unit, 2 * unit), (2 * unit, 3 * unit)] {
        let shape = Shape {
            channels: info.channels,
            height,
            width,
        };
        check_denoise(engine, &info, shape, &conditions)?;
        check_decode(engine, &info, shape)?;
        check_encode_images(engine, &info, shape)?;
    }
    check_refusals(engine, &info)?;
    // Rule 4: it works on after the refusals.
    check_encode(engine, &info)?;
    if *engine.info() != info {
        return Err(Violation::Info("it changed"));
    }
    Ok(())
}

fn check_info(info: &Info) -> Result<(), Violation> {
    let encoders: usize = info.encoders.iter().map(|encoder| encoder.width).sum();
    let vocabulary = info.encoders.iter().map(|encoder| encoder.vocabulary).min();
    if info.window == 0 || vocabulary.unwrap_or(0) < 2 || info.channels == 0 || info.scale == 0 {
        return Err(Violation::Info("nothing may be zero"));
    }
    if info.width == 0 || info.width != encoders {
        return Err(Violation::Info(
            "the width must be the sum of the encoders' widths",
        ));
    }
    if ![info.channels, 2 * info.channels + 1].contains(&info.input_channels) {
        return Err(Violation::Info(
            "input channels are those of the latents, or with mask and masked latents twice as many and one",
        ));
    }
    if !(info.scaling.is_finite() && info.scaling > 0.0 && info.shift.is_finite()) {
        return Err(Violation::Info("the VAE's scaling must be a positive number"));
    }
    if info.multiple == 0 || !info.multiple.is_multiple_of(info.scale) {
        return Err(Violation::Info(
            "the size multiple must be a multiple of the scale",
        ));
    }
    Ok(())
}

fn check_encode(engine: &mut dyn Engine, info: &Info) -> Result<Vec<Arc<Condition>>, Violation> {
    let failed = |error| Violation::Failed("encode", error);
    let vocabulary = |encoder: usize| info.encoders[encoder].vocabulary;
    let window = |n: u32| {
        (0..info.ids() as u32).map(move |i| (n * 7919 + i * 31) % vocabulary(i as usize / info.window))
    };
    let ids: Vec<u32> = (0..3).flat_map(window).collect();
    let (mut together, mut alone, mut out) = (Encoded::default(), Encoded::default(), Encoded::default());
    for skip in [0, info.max_clip_skip()] {
        engine.encode(&ids, skip, &mut together).map_err(failed)?;
        complete("encode", &together.states, 3 * info.states())?;
        complete("encode (pooled)", &together.pooled, 3 * info.pooled)?;
        alone.states.clear();
        alone.pooled.clear();
        for one in ids.chunks_exact(info.ids()) {
            engine.encode(one, skip, &mut out).map_err(failed)?;
            alone.states.extend_from_slice(&out.states);
            alone.pooled.extend_from_slice(&out.pooled);
        }
        same("encode", &together.states, &alone.states)?;
        same("encode (pooled)", &together.pooled, &alone.pooled)?;
    }
    engine
        .encode(&[], 0, &mut out)
        .map_err(|_| Violation::Empty("encode"))?;
    if out != Encoded::default() {
        return Err(Violation::Empty("encode"));
    }
    let wave = |n: usize, length: usize| (0..length).map(|i| ((n * 13 + i) as f32).sin()).collect();
    let conditions = (0..3).map(|n| {
        Arc::new(Condition {
            states: together.states[n * info.states()..][..info.states()].into(),
            pooled: together.pooled[n * info.pooled..][..info.pooled].into(),
            time_ids: wave(n, info.time_ids),
            guidance: wave(n + 3, info.guidance),
        })
    });
    Ok(conditions.collect())
}

fn check_denoise(
    engine: &mut dyn Engine,
    info: &Info,
    shape: Shape,
    conditions: &[Arc<Condition>],
) -> Result<(), Violation> {
    // Eleven rows at timesteps all over the range, run in one call, then alone, then in another order.
    let rows: Vec<usize> = (0..11).collect();
    let timestep = |row: usize| {
        if info.mixed_timesteps {
            (row * 97 % 1000) as f32
        } else {
            501.0
        }
    };
    let mut batch = Batch::new(info);
    let mut run = |rows: &[usize]| -> Result<Vec<f32>, Violation> {
        batch.reset(shape, info.window);
        for row in rows {
            let sample = batch.push(timestep(*row), &conditions[row % conditions.len()]);
            let sample = sample.map_err(|error| Violation::Failed("push", error))?;
            noise(*row as u32, sample);
        }
        engine
            .denoise(&mut batch)
            .map_err(|error| Violation::Failed("denoise", error))?;
        complete("denoise", batch.outputs_mut(), rows.len() * shape.values())?;
        Ok(batch.outputs_mut().clone())
    };
    let together = run(&rows)?;
    let mut alone = Vec::new();
    for row in &rows {
        alone.extend(run(&[*row])?);
    }
    same("denoise", &together, &alone)?;
    let reversed: Vec<usize> = rows.iter().rev().copied().collect();
    let backwards: Vec<f32> = run(&reversed)?
        .chunks_exact(shape.values())
        .rev()
        .flatten()
        .copied()
        .collect();
    same("denoise", &together, &backwards)?;
    if info.mixed_timesteps {
        check_timestep_matters(engine, info, shape, conditions)
    } else {
        check_mixing_is_refused(engine, info, shape, conditions)
    }
}

fn check_timestep_matters(
    engine: &mut dyn Engine,
    info: &Info,
    shape: Shape,
    conditions: &[Arc<Condition>],
) -> Result<(), Violation> {
    let mut batch = two_timesteps(info, shape, conditions)?;
    engine
        .denoise(&mut batch)
        .map_err(|error| Violation::Failed("denoise", error))?;
    if batch.output(0) == batch.output(1) {
        return Err(Violation::Timesteps(
            "rows that differ only in their timestep must differ",
        ));
    }
    Ok(())
}

fn check_mixing_is_refused(
    engine: &mut dyn Engine,
    info: &Info,
    shape: Shape,
    conditions: &[Arc<Condition>],
) -> Result<(), Violation> {
    match engine.denoise(&mut two_timesteps(info, shape, conditions)?) {
        Err(Error::Contract { .. }) => Ok(()),
        _ => Err(Violation::Timesteps("a call that mixes them must be refused")),
    }
}

/// Two rows that differ only in their timestep.
fn two_timesteps(info: &Info, shape: Shape, conditions: &[Arc<Condition>]) -> Result<Batch, Violation> {
    let mut batch = Batch::new(info);
    batch.reset(shape, info.window);
    for timestep in [900.0, 100.0] {
        noise(
            1,
            batch
                .push(timestep, &conditions[0])
                .map_err(|error| Violation::Failed("push", error))?,
        );
    }
    Ok(batch)
}

fn check_decode(engine: &mut dyn Engine, info: &Info, shape: Shape) -> Result<(), Violation> {
    let mut latents = vec![0.0; 3 * shape.values()];
    noise(5, &mut latents);
    let (mut together, mut alone, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let failed = |error| Violation::Failed("decode", error);
    engine.decode(&latents, shape, &mut together).map_err(failed)?;
    complete(
        "decode",
        &together,
        3 * 3 * shape.height * shape.width * info.scale * info.scale,
    )?;
    for one in latents.chunks_exact(shape.values()) {
        engine.decode(one, shape, &mut out).map_err(failed)?;
        alone.extend_from_slice(&out);
    }
    same("decode", &together, &alone)?;
    engine
        .decode(&[], shape, &mut out)
        .map_err(|_| Violation::Empty("decode"))?;
    if out.is_empty() {
        Ok(())
    } else {
        Err(Violation::Empty("decode"))
    }
}

fn check_encode_images(engine: &mut dyn Engine, info: &Info, shape: Shape) -> Result<(), Violation> {
    let (width, height) = (shape.width * info.scale, shape.height * info.scale);
    let each = 3 * width * height;
    let mut pixels = vec![0.0; 2 * each];
    noise(6, &mut pixels);
    pixels.iter_mut().for_each(|value| *value /= 2.0);
    let (mut together, mut out) = (Moments::default(), Moments::default());
    let encoded = engine.encode_images(&pixels, width, height, &mut together);
    if !info.encodes_images {
        return match encoded {
            Err(Error::Contract { .. }) => Ok(()),
            _ => Err(Violation::Accepted(
                "pictures for a VAE encoder that is not there",
            )),
        };
    }
    let failed = |error| Violation::Failed("encode_images", error);
    encoded.map_err(failed)?;
    complete("encode_images", &together.mean, 2 * shape.values())?;
    if !together.deviation.is_empty() {
        complete(
            "encode_images (deviation)",
            &together.deviation,
            2 * shape.values(),
        )?;
        for (n, one) in pixels.chunks_exact(each).enumerate() {
            engine
                .encode_images(one, width, height, &mut out)
                .map_err(failed)?;
            let place = n * shape.values()..(n + 1) * shape.values();
            same("encode_images", &together.mean[place.clone()], &out.mean)?;
            same("encode_images", &together.deviation[place], &out.deviation)?;
        }
    }
    if engine
        .encode_images(&pixels[1..], width, height, &mut out)
        .is_ok()
    {
        return Err(Violation::Accepted("pixels"));
    }
    engine
        .encode_images(&[], width, height, &mut out)
        .map_err(|_| Violation::Empty("encode_images"))
}

fn check_refusals(engine: &mut dyn Engine, info: &Info) -> Result<(), Violation> {
    let (mut out, mut planes) = (Encoded::default(), Vec::new());
    let shape = info.latents(info.multiple, info.multiple);
    let refused = |result: Result<(), Error>, what| match result {
        Err(Error::Contract { .. }) => Ok(()),
        _ => Err(Violation::Accepted(what)),
    };
    refused(engine.encode(&vec![0; info.ids() + 1], 0, &mut out), "token ids")?;
    let skip = info.max_clip_skip() + 1;
    refused(engine.encode(&vec![0; info.ids()], skip, &mut out), "clip_skip")?;
    let long = vec![0.0; shape.values() + 1];
    refused(engine.decode(&long, shape, &mut planes).map(|_| ()), "latents")?;
    let foreign = Info {
        channels: info.channels + 1,
        ..info.clone()
    };
    let condition = Arc::new(Condition {
        states: vec![0.0; info.states()].into(),
        pooled: vec![0.0; info.pooled].into(),
        time_ids: vec![0.0; info.time_ids].into(),
        guidance: vec![0.0; info.guidance].into(),
    });
    let mut batch = Batch::new(&foreign);
    batch.reset(foreign.latents(info.multiple, info.multiple), info.window);
    batch
        .push(1.0, &condition)
        .map_err(|error| Violation::Failed("push", error))?;
    refused(engine.denoise(&mut batch), "a batch for another model")?;
    let mut empty = Batch::new(info);
    empty.reset(shape, info.window);
    engine
        .denoise(&mut empty)
        .map_err(|_| Violation::Empty("denoise"))
}

fn complete(what: &'static str, out: &[f32], expected: usize) -> Result<(), Violation> {
    let finite = out.iter().filter(|value| value.is_finite()).count();
    if out.len() == expected && finite == expected {
        return Ok(());
    }
    Err(Violation::Output {
        what,
        expected,
        got: out.len(),
        finite,
    })
}

fn same(what: &'static str, a: &[f32], b: &[f32]) -> Result<(), Violation> {
    let equal = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    if equal {
        Ok(())
    } else {
        Err(Violation::Company(what))
    }
}

/// Values in (-2, 2) that look random; the same for the same `key`.
fn noise(key: u32, out: &mut [f32]) {
    let mut state = key.wrapping_mul(747_796_405).wrapping_add(1);
    for value in out {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = (state >> 8) as f32 / 4_194_304.0 - 2.0;
    }
}
