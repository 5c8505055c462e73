//! A model's scheduler_config.json, and what it means to one scheduler class.
//!
//! Every key that the class knows is honoured or refused by name; keys that diffusers ignores for that class are ignored too and
//! listed. When another class than the model's is asked for, keys carry over as `Other.from_config(pipe.scheduler.config)` carries
//! them: those the new class knows are taken, the rest has the new class's defaults.

use serde_json::{Map, Value};

use super::flow::Growth;
use super::keys::quote_infinities;
use super::levels::Levels;
use super::settings::Settings;
use super::{Ask, Choice, Class, Kind, Sampler, Schedule};
use crate::Error;

/// What the model's output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity (Salimans and Ho 2022, arXiv 2202.00512).
    Velocity,
    /// The picture itself.
    Sample,
    /// The flow from picture to noise, `noise - picture` (Lipman et al. 2022, arXiv 2210.02747).
    Flow,
}

impl Prediction {
    /// The word in scheduler_config.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
            Self::Sample => "sample",
            Self::Flow => "flow_prediction",
        }
    }
}

/// A model's scheduler_config.json.
#[derive(Debug, Clone)]
pub struct Config {
    class: Class,
    kind: Kind,
    schedule: Option<Schedule>,
    prediction: Prediction,
    growth: Option<Growth>,
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
            .find(|known| known.name() == name)
            .ok_or_else(|| Error::Value {
                key: "_class_name",
                value: name.chars().take(80).collect(),
                expected: Class::ALL.map(Class::name).join(", "),
            })?;
        let settings = Settings::read(&own(&keys, class), class)?;
        Ok(Self {
            class,
            kind: settings.kind,
            schedule: settings.levels.schedule(),
            prediction: settings.prediction,
            growth: settings.growth(),
            ignored: settings.ignored,
            keys,
        })
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

    /// The exponent of a dynamic shift for a picture of `tokens` tokens (latent pixels over the model's patch), as diffusers'
    /// pipelines compute it for [`Options::mu`](super::Options); absent where the model has no dynamic shift.
    #[must_use]
    pub fn mu(&self, tokens: usize) -> Option<f32> {
        self.growth.map(|growth| growth.mu(tokens) as f32)
    }

    /// What the model's output is.
    #[must_use]
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The name of the model's own scheduler, as a request would give it.
    #[must_use]
    pub fn name(&self) -> String {
        self.own().to_string()
    }

    /// The names of the schedulers that work with this model, its own first.
    ///
    /// Each is tried with as many steps as users take.
    #[must_use]
    pub fn choices(&self) -> Vec<String> {
        let own = self.own();
        let all = Kind::ALL.into_iter().flat_map(|kind| {
            let schedules = kind.class().schedules().iter().copied().map(Some);
            [None].into_iter().chain(schedules).map(move |schedule| Choice {
                kind: Some(kind),
                schedule,
            })
        });
        [own]
            .into_iter()
            .chain(all.filter(|choice| *choice != own && self.works(*choice)))
            .map(|choice| choice.to_string())
            .collect()
    }

    /// Model calls that a whole schedule takes beyond [`Sampler::calls_per_step`] for each step, by the kinds that take any: more in
    /// PNDM's first steps, one less in the last step of a solver of second order. They are the same for any number of steps from 4.
    #[must_use]
    pub fn extra_calls(&self) -> Vec<(Kind, i32)> {
        let extra = |kind: Kind| {
            let choice = Choice {
                kind: Some(kind),
                schedule: None,
            };
            let sampler = self.usual(choice)?;
            let extra = sampler.calls() as i32 - (sampler.steps() * sampler.calls_per_step()) as i32;
            (extra != 0).then_some((kind, extra))
        };
        Kind::ALL.into_iter().filter_map(extra).collect()
    }

    /// Whether a sampler can be made with a usual number of steps.
    fn works(&self, choice: Choice) -> bool {
        self.usual(choice).is_some()
    }

    /// The sampler of a usual number of steps, if it can be made.
    fn usual(&self, choice: Choice) -> Option<Sampler> {
        const STEPS: usize = 20;
        const DISTILLED_STEPS: usize = 4;
        let mut ask = Ask::steps(match choice.kind {
            Some(Kind::Lcm | Kind::Tcd) => DISTILLED_STEPS,
            Some(_) | None => STEPS,
        });
        ask.choice = choice;
        // Any will do to tell whether it works; a request's is of its picture's size.
        ask.options.mu = Some(1.0);
        match Sampler::new(self, &ask) {
            Ok(sampler) => Some(sampler),
            // A model of fewer training timesteps than that.
            Err(Error::Steps { max, .. }) => {
                ask.steps = max;
                Sampler::new(self, &ask).ok()
            }
            Err(_) => None,
        }
    }

    /// The model's own scheduler as a choice.
    fn own(&self) -> Choice {
        Choice {
            kind: Some(self.kind),
            schedule: self.schedule,
        }
    }

    /// Reads the keys for what a request chose; a kind without a schedule spreads by timesteps, whatever the model's own does.
    pub(super) fn read(&self, choice: Choice) -> Result<Settings, Error> {
        let own_choice = self.own();
        let kind = choice.kind.unwrap_or(self.kind);
        let schedule = match choice.kind {
            None => choice.schedule.or(self.schedule),
            Some(_) => choice.schedule,
        };
        let asked = Choice {
            kind: Some(kind),
            schedule,
        };
        if asked == own_choice {
            return Settings::read(&own(&self.keys, self.class), self.class);
        }
        asked.check()?;
        self.check_family(asked)?;
        let mut settings = Settings::read(&self.carried(kind, schedule), kind.class())?;
        settings.kind = kind;
        if let Some(levels) = schedule.and_then(Levels::of_request) {
            settings.levels = levels;
        }
        Ok(settings)
    }

    /// Refuses a kind of another family than the model's: what it makes of the output would be no picture.
    fn check_family(&self, asked: Choice) -> Result<(), Error> {
        let kind = asked.kind.unwrap_or(self.kind);
        let class = kind.class();
        if let (Prediction::Flow, true, Some(schedule)) = (self.prediction, class.has_flow(), asked.schedule)
        {
            return Err(Error::Schedule {
                schedule: schedule.to_string(),
                kind: kind.to_string(),
                accepted: "none, because this model predicts a flow and has levels of its own".to_owned(),
            });
        }
        let flows = class.has_flow() || class == Class::FlowEuler;
        let edm = (self.class == Class::EdmEuler, class == Class::EdmEuler);
        let reason = match (self.prediction, edm) {
            (_, (true, false)) => "the model's own scheduler has a preconditioning that others have not",
            (_, (false, true)) => "it has a preconditioning that this model was not trained with",
            (Prediction::Flow, _) if !flows => "diffusers has no step of it for models that predict a flow",
            (Prediction::Epsilon | Prediction::Velocity | Prediction::Sample, _)
                if class == Class::FlowEuler =>
            {
                "it is for models that predict a flow"
            }
            _ => return Ok(()),
        };
        let (key, value) = match edm {
            (true, false) | (false, true) => ("_class_name", self.class.name()),
            _ => ("prediction_type", self.prediction.name()),
        };
        Err(Error::Incompatible {
            kind: kind.to_string(),
            key,
            value: value.to_owned(),
            reason,
        })
    }

    /// The keys as `from_config(pipe.scheduler.config)` of another class sees them: corrected where the file has them.
    fn carried(&self, kind: Kind, schedule: Option<Schedule>) -> Map<String, Value> {
        let mut keys = self.keys.clone();
        if let Some(offset) = keys.get_mut("steps_offset") {
            *offset = 1.into();
        }
        if keys.get("clip_sample") == Some(&Value::Bool(true)) {
            keys.insert("clip_sample".into(), false.into());
        }
        // The name says how levels are spread, whatever the model's configuration says.
        for other in FLAGS {
            keys.remove(other);
        }
        if self.prediction == Prediction::Flow {
            // From flow matching's own class to the others and back the same things have other names.
            let shift = |from: &str| self.keys.get(from).cloned().unwrap_or_else(|| 1.into());
            if self.class == Class::FlowEuler {
                keys.insert("flow_shift".into(), shift("shift"));
                keys.insert("prediction_type".into(), Prediction::Flow.name().into());
                keys.insert("use_flow_sigmas".into(), true.into());
            } else if kind == Kind::FlowEuler {
                keys.insert("shift".into(), shift("flow_shift"));
            }
        }
        for (key, value) in kind.keys() {
            keys.insert(key.into(), value);
        }
        if let Some(schedule) = schedule {
            for (key, value) in schedule.keys(kind.class()) {
                keys.insert(key.into(), value);
            }
        }
        keys
    }
}

/// The flags of which a named schedule leaves at most its own.
const FLAGS: [&str; 4] = [
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
];

/// The keys as StableDiffusionPipeline corrects them when it is made with this scheduler.
fn own(keys: &Map<String, Value>, class: Class) -> Map<String, Value> {
    let mut keys = keys.clone();
    // diffusers' pipeline overrides an outdated `steps_offset`, absent or not, and a true or absent `clip_sample`.
    if class.has_spacing() {
        keys.insert("steps_offset".into(), 1.into());
    }
    let clip = keys.get("clip_sample");
    if clip == Some(&Value::Bool(true)) || (clip.is_none() && class.clips_by_default()) {
        keys.insert("clip_sample".into(), false.into());
    }
    keys
}

#[cfg(test)]
mod tests;
