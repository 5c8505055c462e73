//! A model's scheduler_config.json, and what it means to one scheduler class.
//!
//! Every key that the class knows is honoured or refused by name; keys that diffusers ignores for that class are ignored too and
//! listed. When another class than the model's is asked for, keys carry over as `Other.from_config(pipe.scheduler.config)` carries
//! them: those the new class knows are taken, the rest has the new class's defaults.

use serde_json::{Map, Value};

use super::alphas::{Betas, Training};
use super::keys::{Keys, quote_infinities};
use super::kind::Kind;
use super::{ddim, dpm_multistep, euler, pndm};
use crate::Error;

/// Largest `num_train_timesteps` that is accepted; models have 1000, and every table is this long.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

/// The diffusers scheduler classes that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// `PNDMScheduler`
    Pndm,
    /// `DDIMScheduler`
    Ddim,
    /// `EulerDiscreteScheduler`
    Euler,
    /// `EulerAncestralDiscreteScheduler`
    EulerAncestral,
    /// `DPMSolverMultistepScheduler`
    DpmMultistep,
}

impl Class {
    const ALL: [(&'static str, Self); 5] = [
        ("PNDMScheduler", Self::Pndm),
        ("DDIMScheduler", Self::Ddim),
        ("EulerDiscreteScheduler", Self::Euler),
        ("EulerAncestralDiscreteScheduler", Self::EulerAncestral),
        ("DPMSolverMultistepScheduler", Self::DpmMultistep),
    ];
}

/// What the model's output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity (Salimans and Ho 2022, arXiv 2202.00512).
    Velocity,
    /// The picture itself.
    Sample,
}

impl Prediction {
    /// The word in scheduler_config.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
            Self::Sample => "sample",
        }
    }
}

/// How timesteps are laid over the training timesteps (Lin et al. 2023, arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

/// What the noise level after the last step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalSigma {
    Zero,
    SigmaMin,
}

/// How noise levels are spread between the largest and the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Levels {
    /// As the timesteps lie.
    Timesteps,
    Karras,
    Exponential,
    /// Uniform in log-SNR (Lu et al. 2022, arXiv 2206.00927).
    Lu,
}

/// A configuration as one class reads it.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) kind: Kind,
    pub(super) training: Training,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
    pub(super) class: ClassSettings,
    pub(super) ignored: Vec<String>,
}

/// The keys that only one class (or two) has.
#[derive(Debug)]
pub(super) enum ClassSettings {
    Pndm(pndm::Settings),
    Ddim(ddim::Settings),
    Euler(euler::Settings),
    EulerAncestral,
    DpmMultistep(dpm_multistep::Settings),
}

/// A model's scheduler_config.json.
#[derive(Debug, Clone)]
pub struct Config {
    class: Class,
    kind: Kind,
    prediction: Prediction,
    ignored: Vec<String>,
    keys: Map<String, Value>,
}

impl Config {
    /// Reads the text of a scheduler_config.json and checks all of it for the model's own class.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Missing`] (`_class_name`), [`Error::Value`] for a key with a value its class does not take, and
    /// [`Error::Unsupported`] for a class or a value that diffusers knows and this crate does not serve.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let keys: Map<String, Value> =
            serde_json::from_str(&quote_infinities(text)).map_err(|error| Error::Json {
                reason: error.to_string(),
            })?;
        let name = keys
            .get("_class_name")
            .and_then(Value::as_str)
            .ok_or(Error::Missing { key: "_class_name" })?;
        let class = Class::ALL
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, class)| class)
            .ok_or_else(|| Error::Value {
                key: "_class_name",
                value: name.chars().take(80).collect(),
                expected: Class::ALL.map(|(known, _)| known).join(", "),
            })?;
        let kind = Kind::of(class, false);
        let mut config = Self {
            class,
            kind,
            prediction: Prediction::Epsilon,
            ignored: Vec::new(),
            keys,
        };
        let settings = config.read(None)?;
        config.kind = settings.kind;
        config.prediction = settings.prediction;
        config.ignored = settings.ignored;
        Ok(config)
    }

    /// The scheduler that the model itself names, which a request gets when it names none.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The model's own scheduler class.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Keys in the file that have no meaning to the model's own class; diffusers ignores them too, with a warning.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// What the model's output is.
    #[must_use]
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Reads the keys for `kind`, or for the model's own scheduler.
    pub(super) fn read(&self, kind: Option<Kind>) -> Result<Settings, Error> {
        let foreign = kind.filter(|kind| *kind != self.kind);
        let map = match foreign {
            None => self.own(),
            Some(kind) => self.carried(kind),
        };
        let class = foreign.map_or(self.class, Kind::class);
        let mut settings = read_class(&map, class)?;
        settings.ignored.sort();
        Ok(settings)
    }

    /// The keys as StableDiffusionPipeline corrects them when it is made with this scheduler.
    fn own(&self) -> Map<String, Value> {
        let mut keys = self.keys.clone();
        // diffusers' pipeline overrides an outdated `steps_offset`, absent or not, and a true or absent `clip_sample`.
        keys.insert("steps_offset".into(), 1.into());
        let clip = keys.get("clip_sample");
        if clip == Some(&Value::Bool(true)) || (clip.is_none() && self.class == Class::Ddim) {
            keys.insert("clip_sample".into(), false.into());
        }
        keys
    }

    /// The keys as `from_config(pipe.scheduler.config)` of another class sees them: corrected where the file has them.
    fn carried(&self, kind: Kind) -> Map<String, Value> {
        let mut keys = self.keys.clone();
        if let Some(offset) = keys.get_mut("steps_offset") {
            *offset = 1.into();
        }
        if keys.get("clip_sample") == Some(&Value::Bool(true)) {
            keys.insert("clip_sample".into(), false.into());
        }
        // A name says with or without Karras, whatever the model's configuration says.
        if matches!(kind.class(), Class::Euler | Class::DpmMultistep) {
            keys.insert("use_karras_sigmas".into(), kind.karras().into());
        }
        if kind.karras() {
            for other in ["use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"] {
                keys.remove(other);
            }
        }
        keys
    }
}

/// Reads everything one class knows.
fn read_class(map: &Map<String, Value>, class: Class) -> Result<Settings, Error> {
    let mut keys = Keys::new(map);
    let training = read_training(&mut keys, class)?;
    let prediction = keys.choice(
        "prediction_type",
        Prediction::Epsilon,
        &[
            ("epsilon", Prediction::Epsilon),
            ("v_prediction", Prediction::Velocity),
            ("sample", Prediction::Sample),
        ],
    )?;
    let default_spacing = match class {
        Class::Pndm | Class::Ddim => Spacing::Leading,
        Class::Euler | Class::EulerAncestral | Class::DpmMultistep => Spacing::Linspace,
    };
    let spacing = keys.choice(
        "timestep_spacing",
        default_spacing,
        &[
            ("linspace", Spacing::Linspace),
            ("leading", Spacing::Leading),
            ("trailing", Spacing::Trailing),
        ],
    )?;
    let steps_offset = keys.whole("steps_offset", 0, (0, training.timesteps - 1))?;
    let (class_settings, karras) = match class {
        Class::Pndm => (ClassSettings::Pndm(pndm::Settings::read(&mut keys)?), false),
        Class::Ddim => (ClassSettings::Ddim(ddim::Settings::read(&mut keys)?), false),
        Class::EulerAncestral => (ClassSettings::EulerAncestral, false),
        Class::Euler => {
            let settings = euler::Settings::read(&mut keys)?;
            let karras = settings.levels == Levels::Karras;
            (ClassSettings::Euler(settings), karras)
        }
        Class::DpmMultistep => {
            let settings = dpm_multistep::Settings::read(&mut keys)?;
            let karras = settings.levels == Levels::Karras;
            (ClassSettings::DpmMultistep(settings), karras)
        }
    };
    Ok(Settings {
        kind: Kind::of(class, karras),
        training,
        prediction,
        spacing,
        steps_offset,
        class: class_settings,
        ignored: keys.unread(),
    })
}

/// Reads the noise schedule the model was trained with.
fn read_training(keys: &mut Keys<'_>, class: Class) -> Result<Training, Error> {
    const BETA: (f64, f64) = (f64::MIN_POSITIVE, 0.999_999);
    let timesteps = keys.whole("num_train_timesteps", 1000, (1, MAX_TRAIN_TIMESTEPS))?;
    let start = keys.number("beta_start", 0.0001, BETA)?;
    let end = keys.number("beta_end", 0.02, BETA)?;
    let schedule = keys.choice(
        "beta_schedule",
        Betas::Linear { start, end },
        &[
            ("linear", Betas::Linear { start, end }),
            ("scaled_linear", Betas::ScaledLinear { start, end }),
            ("squaredcos_cap_v2", Betas::SquaredCosine),
        ],
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
    // PNDM has no such key, and diffusers ignores it there.
    let zero_snr = class != Class::Pndm && keys.flag("rescale_betas_zero_snr", false)?;
    Ok(Training {
        timesteps,
        betas: schedule,
        trained,
        zero_snr,
    })
}

/// Reads how noise levels are spread; at most one way may be switched on.
pub(super) fn read_levels(keys: &mut Keys<'_>) -> Result<Levels, Error> {
    keys.refuse_flag(
        "use_beta_sigmas",
        "noise levels by the beta distribution are not available",
    )?;
    let karras = keys.flag("use_karras_sigmas", false)?;
    let exponential = keys.flag("use_exponential_sigmas", false)?;
    match (karras, exponential) {
        (false, false) => Ok(Levels::Timesteps),
        (true, false) => Ok(Levels::Karras),
        (false, true) => Ok(Levels::Exponential),
        (true, true) => Err(Error::Value {
            key: "use_exponential_sigmas",
            value: "true".into(),
            expected: "only one of use_karras_sigmas and use_exponential_sigmas".into(),
        }),
    }
}

/// Reads the noise level after the last step.
pub(super) fn read_final_sigma(keys: &mut Keys<'_>) -> Result<FinalSigma, Error> {
    keys.choice(
        "final_sigmas_type",
        FinalSigma::Zero,
        &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)],
    )
}

#[cfg(test)]
mod tests;
