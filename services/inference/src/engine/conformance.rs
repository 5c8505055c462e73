//! Checks that an engine keeps the rules of [`Engine`]; every engine runs it in a test.
//!
//! It uses small pictures and few rows, so that it ends within seconds on real models. It measures nothing.

use std::sync::Arc;

use super::{Batch, Engine, Error, Info, Shape};

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
    let windows = check_encode(engine, &info)?;
    // Two latent shapes: the smallest, and one that is not square.
    let unit = info.multiple / info.scale;
    for (height, width) in [(2 * unit, 2 * unit), (2 * unit, 3 * unit)] {
        let shape = Shape {
            channels: info.channels,
            height,
            width,
        };
        check_denoise(engine, &info, shape, &windows)?;
        check_decode(engine, &info, shape)?;
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
    let Info {
        window,
        vocabulary,
        width,
        channels,
        scale,
        multiple,
        mixed_timesteps: _,
    } = *info;
    if window == 0 || vocabulary < 2 || width == 0 || channels == 0 || scale == 0 {
        return Err(Violation::Info("nothing may be zero"));
    }
    if multiple == 0 || !multiple.is_multiple_of(scale) {
        return Err(Violation::Info(
            "the size multiple must be a multiple of the scale",
        ));
    }
    Ok(())
}

fn check_encode(engine: &mut dyn Engine, info: &Info) -> Result<Vec<Arc<[f32]>>, Violation> {
    let window = |n: u32| (0..info.window as u32).map(move |i| (n * 7919 + i * 31) % info.vocabulary);
    let ids: Vec<u32> = (0..3).flat_map(window).collect();
    let (mut together, mut alone, mut out) = (Vec::new(), Vec::new(), Vec::new());
    engine
        .encode(&ids, &mut together)
        .map_err(|error| Violation::Failed("encode", error))?;
    complete("encode", &together, 3 * info.states())?;
    for one in ids.chunks_exact(info.window) {
        engine
            .encode(one, &mut out)
            .map_err(|error| Violation::Failed("encode", error))?;
        alone.extend_from_slice(&out);
    }
    same("encode", &together, &alone)?;
    engine
        .encode(&[], &mut out)
        .map_err(|_| Violation::Empty("encode"))?;
    if !out.is_empty() {
        return Err(Violation::Empty("encode"));
    }
    Ok(together.chunks_exact(info.states()).map(Arc::from).collect())
}

fn check_denoise(
    engine: &mut dyn Engine,
    info: &Info,
    shape: Shape,
    windows: &[Arc<[f32]>],
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
        batch.reset(shape);
        for row in rows {
            let sample = batch.push(timestep(*row), &windows[row % windows.len()]);
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
        check_timestep_matters(engine, info, shape, windows)
    } else {
        check_mixing_is_refused(engine, info, shape, windows)
    }
}

fn check_timestep_matters(
    engine: &mut dyn Engine,
    info: &Info,
    shape: Shape,
    windows: &[Arc<[f32]>],
) -> Result<(), Violation> {
    let mut batch = two_timesteps(info, shape, windows)?;
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
    windows: &[Arc<[f32]>],
) -> Result<(), Violation> {
    match engine.denoise(&mut two_timesteps(info, shape, windows)?) {
        Err(Error::Contract { .. }) => Ok(()),
        _ => Err(Violation::Timesteps("a call that mixes them must be refused")),
    }
}

/// Two rows that differ only in their timestep.
fn two_timesteps(info: &Info, shape: Shape, windows: &[Arc<[f32]>]) -> Result<Batch, Violation> {
    let mut batch = Batch::new(info);
    batch.reset(shape);
    for timestep in [900.0, 100.0] {
        noise(
            1,
            batch
                .push(timestep, &windows[0])
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

fn check_refusals(engine: &mut dyn Engine, info: &Info) -> Result<(), Violation> {
    let mut out = Vec::new();
    let shape = info.latents(info.multiple, info.multiple);
    if !matches!(
        engine.encode(&vec![0; info.window + 1], &mut out),
        Err(Error::Contract { .. })
    ) {
        return Err(Violation::Accepted("token ids"));
    }
    if !matches!(
        engine.decode(&vec![0.0; shape.values() + 1], shape, &mut out),
        Err(Error::Contract { .. })
    ) {
        return Err(Violation::Accepted("latents"));
    }
    let foreign = Info {
        channels: info.channels + 1,
        ..info.clone()
    };
    let mut batch = Batch::new(&foreign);
    batch.reset(foreign.latents(info.multiple, info.multiple));
    let states: Arc<[f32]> = vec![0.0; info.states()].into();
    batch
        .push(1.0, &states)
        .map_err(|error| Violation::Failed("push", error))?;
    if !matches!(engine.denoise(&mut batch), Err(Error::Contract { .. })) {
        return Err(Violation::Accepted("a batch for another model"));
    }
    let mut empty = Batch::new(info);
    empty.reset(shape);
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
