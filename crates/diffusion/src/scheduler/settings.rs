//! A configuration as one class reads it: what the classes share, and each class's own part.

use serde_json::{Map, Value};

use super::alphas::{Betas, Training};
use super::class::{Class, Spacing};
use super::keys::Keys;
use super::kind::Kind;
use super::levels::Levels;
use super::{Prediction, ddim, ddpm, dpm_multistep, edm, euler, flow, lcm, pndm, tcd};
use super::{deis, dpm_sde, dpm_singlestep, heun, kdpm2, lms, unipc};
use crate::Error;

/// Largest `num_train_timesteps` that is accepted; models have 1000, and every table is this long.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

/// What the noise level after the last step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalSigma {
    Zero,
    SigmaMin,
}

/// The keys of flow matching in DPM-Solver and its relatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flow {
    /// Latents are mixed as flow matching mixes them.
    pub(super) on: bool,
    pub(super) shift: f64,
    /// The shift is `exp(mu)`, where mu comes with the request.
    pub(super) dynamic: bool,
}

/// A configuration as one class reads it.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) kind: Kind,
    pub(super) training: Training,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
    pub(super) levels: Levels,
    pub(super) flow: Flow,
    pub(super) class: ClassSettings,
    pub(super) ignored: Vec<String>,
}

/// The keys that only one class (or two) has.
#[derive(Debug)]
pub(super) enum ClassSettings {
    Ddim(ddim::Settings),
    Pndm(pndm::Settings),
    Euler(euler::Settings),
    EulerAncestral,
    Ddpm(ddpm::Settings),
    Lcm(lcm::Settings),
    Tcd(tcd::Settings),
    EdmEuler(edm::Settings),
    FlowEuler(flow::Settings),
    DpmMultistep(dpm_multistep::Settings),
    Lms(lms::Settings),
    Heun(heun::Settings),
    Kdpm2(kdpm2::Settings),
    DpmSinglestep(dpm_singlestep::Settings),
    DpmSde(dpm_sde::Settings),
    Deis(deis::Settings),
    UniPc(unipc::Settings),
}

impl Settings {
    /// How the shift of a flow matching model grows with the picture, where it does.
    pub(super) fn growth(&self) -> Option<flow::Growth> {
        if let ClassSettings::FlowEuler(settings) = &self.class {
            settings.growth()
        } else {
            None
        }
    }

    /// Reads everything one class knows.
    pub(super) fn read(map: &Map<String, Value>, class: Class) -> Result<Self, Error> {
        let mut keys = Keys::new(map);
        let training = read_training(&mut keys, class)?;
        let prediction = read_prediction(&mut keys, class)?;
        let (spacing, steps_offset) = read_spacing(&mut keys, class, &training)?;
        let mut levels = read_levels(&mut keys, class)?;
        let flow = read_flow(&mut keys, class)?;
        let (own, kind) = match class {
            Class::Ddim => (ClassSettings::Ddim(ddim::Settings::read(&mut keys)?), Kind::Ddim),
            Class::Pndm => (ClassSettings::Pndm(pndm::Settings::read(&mut keys)?), Kind::Pndm),
            Class::Euler => (
                ClassSettings::Euler(euler::Settings::read(&mut keys)?),
                Kind::Euler,
            ),
            Class::EulerAncestral => (ClassSettings::EulerAncestral, Kind::EulerAncestral),
            Class::DpmMultistep => {
                let settings = dpm_multistep::Settings::read(&mut keys)?;
                let kind = settings.kind();
                (ClassSettings::DpmMultistep(settings), kind)
            }
            Class::Ddpm => (ClassSettings::Ddpm(ddpm::Settings::read(&mut keys)?), Kind::Ddpm),
            Class::Lcm => (ClassSettings::Lcm(lcm::Settings::read(&mut keys)?), Kind::Lcm),
            Class::Tcd => (ClassSettings::Tcd(tcd::Settings::read(&mut keys)?), Kind::Tcd),
            Class::EdmEuler => {
                let settings = edm::Settings::read(&mut keys)?;
                levels = settings.levels;
                (ClassSettings::EdmEuler(settings), Kind::EdmEuler)
            }
            Class::FlowEuler => (
                ClassSettings::FlowEuler(flow::Settings::read(&mut keys)?),
                Kind::FlowEuler,
            ),
            Class::Lms => (ClassSettings::Lms(lms::Settings::read(&mut keys)?), Kind::Lms),
            Class::Heun => (ClassSettings::Heun(heun::Settings::read(&mut keys)?), Kind::Heun),
            Class::Kdpm2 => (
                ClassSettings::Kdpm2(kdpm2::Settings::read(&mut keys, false)?),
                Kind::Kdpm2,
            ),
            Class::Kdpm2Ancestral => (
                ClassSettings::Kdpm2(kdpm2::Settings::read(&mut keys, true)?),
                Kind::Kdpm2Ancestral,
            ),
            Class::DpmSinglestep => (
                ClassSettings::DpmSinglestep(dpm_singlestep::Settings::read(&mut keys)?),
                Kind::DpmppTwoS,
            ),
            Class::DpmSde => (
                ClassSettings::DpmSde(dpm_sde::Settings::read(&mut keys)?),
                Kind::DpmppSde,
            ),
            Class::Deis => (ClassSettings::Deis(deis::Settings::read(&mut keys)?), Kind::Deis),
            Class::UniPc => (
                ClassSettings::UniPc(unipc::Settings::read(&mut keys)?),
                Kind::UniPc,
            ),
        };
        let mut ignored = keys.unread();
        ignored.sort();
        Ok(Self {
            kind,
            training,
            prediction,
            spacing,
            steps_offset,
            levels,
            flow,
            class: own,
            ignored,
        })
    }
}

/// Reads the noise schedule the model was trained with.
fn read_training(keys: &mut Keys<'_>, class: Class) -> Result<Training, Error> {
    const BETA: (f64, f64) = (f64::MIN_POSITIVE, 0.999_999);
    let timesteps = keys.whole("num_train_timesteps", 1000, (1, MAX_TRAIN_TIMESTEPS))?;
    let (start, end, scaled) = class.betas();
    if !class.has_betas() {
        return Ok(Training {
            timesteps,
            betas: Betas::Linear { start, end },
            trained: None,
            zero_snr: false,
        });
    }
    let start = keys.number("beta_start", start, BETA)?;
    let end = keys.number("beta_end", end, BETA)?;
    let (linear, scaled_linear) = (Betas::Linear { start, end }, Betas::ScaledLinear { start, end });
    let mut known = vec![
        ("linear", linear),
        ("scaled_linear", scaled_linear),
        ("squaredcos_cap_v2", Betas::SquaredCosine),
    ];
    if class == Class::Heun {
        known.push(("exp", Betas::Exponential));
    }
    if class == Class::Ddpm {
        known.extend([
            ("sigmoid", Betas::Sigmoid { start, end }),
            ("laplace", Betas::Laplace),
        ]);
    }
    let schedule = keys.choice(
        "beta_schedule",
        if scaled { scaled_linear } else { linear },
        &known,
    )?;
    let trained = keys.numbers("trained_betas")?;
    if let Some(betas) = &trained
        && betas.len() != timesteps
    {
        return Err(Error::Value {
            key: "trained_betas",
            value: format!("a list of {}", betas.len()),
            expected: format!("as many numbers as num_train_timesteps, {timesteps}"),
        });
    }
    // Classes without the key ignore it, as in diffusers.
    let zero_snr = class.has_zero_snr() && keys.flag("rescale_betas_zero_snr", false)?;
    Ok(Training {
        timesteps,
        betas: schedule,
        trained,
        zero_snr,
    })
}

/// Reads what the model's output is.
fn read_prediction(keys: &mut Keys<'_>, class: Class) -> Result<Prediction, Error> {
    let epsilon = ("epsilon", Prediction::Epsilon);
    let velocity = ("v_prediction", Prediction::Velocity);
    let sample = ("sample", Prediction::Sample);
    let flow = ("flow_prediction", Prediction::Flow);
    let all = [epsilon, velocity, sample, flow];
    if class == Class::FlowEuler {
        // It has no such key: what it steps with is always a flow.
        return Ok(Prediction::Flow);
    }
    let known = match (class == Class::EdmEuler, class.has_flow()) {
        (true, _) => &all[..2],
        (false, true) => &all[..],
        (false, false) => &all[..3],
    };
    keys.choice("prediction_type", Prediction::Epsilon, known)
}

/// Reads where the timesteps lie.
fn read_spacing(keys: &mut Keys<'_>, class: Class, training: &Training) -> Result<(Spacing, usize), Error> {
    if !class.has_spacing() {
        return Ok((class.spacing(), 0));
    }
    let spacing = keys.choice(
        "timestep_spacing",
        class.spacing(),
        &[
            ("linspace", Spacing::Linspace),
            ("leading", Spacing::Leading),
            ("trailing", Spacing::Trailing),
        ],
    )?;
    let offset = keys.whole("steps_offset", 0, (0, training.timesteps - 1))?;
    Ok((spacing, offset))
}

/// Reads how noise levels are spread; of three ways at most one may be switched on, and two more give way to them.
fn read_levels(keys: &mut Keys<'_>, class: Class) -> Result<Levels, Error> {
    if !class.has_levels() {
        return Ok(Levels::Timesteps);
    }
    let mut on = None;
    for (key, levels) in [
        ("use_karras_sigmas", Levels::Karras),
        ("use_exponential_sigmas", Levels::Exponential),
        ("use_beta_sigmas", Levels::Beta),
    ] {
        if keys.flag(key, false)? && on.replace(levels).is_some() {
            return Err(Error::Value {
                key,
                value: "true".into(),
                expected: "only one of use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas".into(),
            });
        }
    }
    let lu = class == Class::DpmMultistep && keys.flag("use_lu_lambdas", false)?;
    if lu && on != Some(Levels::Karras) {
        on = Some(Levels::Lu);
    }
    let flow = class.has_flow() && keys.flag("use_flow_sigmas", false)?;
    Ok(on.unwrap_or(if flow { Levels::Flow } else { Levels::Timesteps }))
}

/// Reads how the levels of flow matching are shifted.
fn read_flow(keys: &mut Keys<'_>, class: Class) -> Result<Flow, Error> {
    let mut flow = Flow {
        on: false,
        shift: 1.0,
        dynamic: false,
    };
    if class.has_flow() {
        flow.on = keys.flag("use_flow_sigmas", false)?;
        flow.shift = keys.number("flow_shift", 1.0, (1e-3, 1e3))?;
        flow.dynamic = keys.flag("use_dynamic_shifting", false)?;
        let exponential = keys.choice(
            "time_shift_type",
            true,
            &[("exponential", true), ("linear", false)],
        )?;
        if flow.dynamic && !exponential {
            return Err(Error::Unsupported {
                key: "time_shift_type",
                value: "\"linear\"".into(),
                reason: "diffusers shifts this class's levels exponentially only",
            });
        }
    }
    Ok(flow)
}

/// Reads the noise level after the last step.
pub(super) fn read_final_sigma(keys: &mut Keys<'_>) -> Result<FinalSigma, Error> {
    keys.choice(
        "final_sigmas_type",
        FinalSigma::Zero,
        &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)],
    )
}
