//! Which models there are by the protocol's names, what each takes and gives, and whether it takes requests. Pure.
//!
//! An application is a model by its name; one of those that it serves on demand is `application:model`, as over OpenAI's API;
//! and each of their stages is `model.stage`.

use std::sync::Arc;

use mobula_proto::oip::{
    ModelConfig, ModelDynamicBatching, ModelInput, ModelMetadataResponse, ModelOutput, ModelParameter,
    ModelQueuePolicy, ModelStatistics, ModelTransactionPolicy, ModelVersionPolicy,
    model_metadata_response::TensorMetadata,
    model_version_policy::{Latest, PolicyChoice},
    repository_index_response::ModelIndex,
};

use super::{
    ask::VERSION,
    pipeline::PRIORITIES,
    spec::{self, Spec},
    stage::Stage,
    tensor::{shown, wrong},
};
use crate::{
    Error,
    caller::Caller,
    pool::Pool,
    table::{Application, NAME_SHOWN, Table},
};

/// Between an application and one of its models.
const SEPARATOR: char = ':';
/// What kind of model a pipeline is, where its class is not known yet.
const PLATFORM: &str = "mobula";

/// A model that a name means.
#[derive(Debug, Clone)]
pub(crate) struct Which {
    pub(crate) application: Arc<Application>,
    /// Which of its models on demand; empty is its own.
    pub(crate) model_id: String,
    /// One of its stages; none is all of them.
    pub(crate) stage: Option<Stage>,
}

impl Which {
    /// Finds the model that a name means; `version` may be empty.
    ///
    /// # Errors
    /// [`Error::NoRoutes`], [`Error::UnknownModel`], [`Error::UnknownVersion`], [`Error::ModelNotNamed`] where no name is
    /// given, and [`Error::Closed`] for what the caller's key does not open, whether there is such a model or not.
    pub(crate) fn find(asks: (&Table, &Caller), name: &str, version: &str) -> Result<Self, Error> {
        Self::find_or(asks, (name, ""), version)
    }

    /// The same; where the name does not say which of an application's models on demand is meant, `model_id` does, unless it
    /// is empty.
    ///
    /// # Errors
    /// As [`Which::find`].
    pub(crate) fn find_or(
        (table, caller): (&Table, &Caller),
        (name, model_id): (&str, &str),
        version: &str,
    ) -> Result<Self, Error> {
        if !table.is_populated {
            return Err(Error::NoRoutes);
        }
        if name.is_empty() {
            let known = known(table, caller);
            return Err(Error::ModelNotNamed { known });
        }
        let whole = by_name(table, name).map(|found| (found, None));
        let found = whole.or_else(|| {
            let (model, stage) = Stage::split(name)?;
            Some((by_name(table, model)?, Some(stage)))
        });
        let Some(((application, named), stage)) = found else {
            // The same words as for one of this name that is there.
            let model = Stage::split(name).map_or(name, |(model, _)| model);
            if !caller.opens(name) && !caller.opens(model) {
                let (application, named) = model.split_once(SEPARATOR).unwrap_or((model, ""));
                caller.check(application, if named.is_empty() { model_id } else { named })?;
            }
            return Err(Error::UnknownModel {
                name: name.chars().take(NAME_SHOWN).collect(),
                known: known(table, caller),
            });
        };
        let model_id = if named.is_empty() { model_id } else { named };
        caller.check(&application.name, model_id)?;
        if !version.is_empty() && version != VERSION {
            return Err(Error::UnknownVersion {
                name: name.chars().take(NAME_SHOWN).collect(),
                version: version.chars().take(NAME_SHOWN).collect(),
            });
        }
        Ok(Self {
            application: Arc::clone(application),
            model_id: model_id.to_owned(),
            stage,
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        let model = match self.model_id.as_str() {
            "" => self.application.name.clone(),
            id => format!("{}{SEPARATOR}{id}", self.application.name),
        };
        match self.stage {
            None => model,
            Some(stage) => stage.of(&model),
        }
    }

    /// What it takes and gives.
    fn specs(&self) -> (&'static [Spec], &'static [Spec]) {
        match self.stage {
            None => (spec::INPUTS, spec::OUTPUTS),
            Some(stage) => (stage.inputs(), stage.outputs()),
        }
    }

    /// Why it takes no requests now; none where it does. One that was scaled to zero is woken by a request, and takes it.
    pub(crate) fn reason(&self) -> Option<String> {
        let application = &self.application;
        let missing = |part: &str| Some(format!("{} has no {part} deployment yet", application.name));
        let Some(preprocess) = &application.preprocess else {
            return missing("preprocess");
        };
        let Some(pipeline) = &application.pipeline else {
            return missing("pipeline");
        };
        let is_known = application.model.is_some() || !self.model_id.is_empty();
        let idle = |pool: &Arc<Pool>| !pool.has_replicas() && (pool.refusal().is_some() || !is_known);
        let pool = [preprocess, pipeline].into_iter().find(|pool| idle(pool))?;
        let refusal = pool.refusal().map(|error| error.to_string());
        Some(refusal.unwrap_or_else(|| format!("{} has no replica yet", application.name)))
    }

    /// What it takes and gives, in words.
    pub(crate) fn metadata(&self) -> ModelMetadataResponse {
        let (inputs, outputs) = self.specs();
        ModelMetadataResponse {
            name: self.name(),
            versions: vec![VERSION.to_owned()],
            platform: self.platform(),
            inputs: inputs.iter().map(metadata).collect(),
            outputs: outputs.iter().map(metadata).collect(),
        }
    }

    /// Its configuration, as Triton writes it.
    pub(crate) fn config(&self) -> ModelConfig {
        let (inputs, outputs) = self.specs();
        let latest = Latest { num_versions: 1 };
        let input = |spec: &Spec| ModelInput {
            name: spec.name.to_owned(),
            data_type: spec.datatype.configured().into(),
            dims: spec.shape.to_vec(),
            optional: spec.is_optional,
        };
        let output = |spec: &Spec| ModelOutput {
            name: spec.name.to_owned(),
            data_type: spec.datatype.configured().into(),
            dims: spec.shape.to_vec(),
        };
        ModelConfig {
            name: self.name(),
            platform: self.platform(),
            backend: PLATFORM.to_owned(),
            version_policy: Some(ModelVersionPolicy {
                policy_choice: Some(PolicyChoice::Latest(latest)),
            }),
            // Sides are all there is: a row of prompts is no batch of requests.
            max_batch_size: 0,
            input: inputs.iter().map(input).collect(),
            output: outputs.iter().map(output).collect(),
            dynamic_batching: Some(ModelDynamicBatching {
                priority_levels: PRIORITIES,
                default_priority_level: PRIORITIES.div_ceil(2),
                default_queue_policy: Some(ModelQueuePolicy {
                    allow_timeout_override: true,
                    default_timeout_microseconds: self.patience_us(),
                    ..ModelQueuePolicy::default()
                }),
            }),
            parameters: self.parameters().collect(),
            // Only who asks for several answers gets them.
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
            ..ModelConfig::default()
        }
    }

    /// What its requests have come to.
    pub(crate) fn statistics(&self) -> ModelStatistics {
        let key = (self.model_id.as_str(), self.stage.map_or("", Stage::name));
        self.application.statistics.of(self.name(), key)
    }

    /// Its line in the list of all.
    pub(crate) fn index(&self) -> ModelIndex {
        let reason = self.reason();
        ModelIndex {
            name: self.name(),
            version: VERSION.to_owned(),
            state: if reason.is_none() { "READY" } else { "UNAVAILABLE" }.to_owned(),
            reason: reason.unwrap_or_default(),
        }
    }

    fn info(&self) -> Option<Arc<mobula_proto::control::v1::ModelInfo>> {
        match self.model_id.as_str() {
            "" => self.application.model.clone(),
            id => self.application.pipeline.as_ref()?.model(id)?.1,
        }
    }

    /// How long a request may wait for a replica, microseconds; 0 is any time.
    fn patience_us(&self) -> u64 {
        let pool = self.application.pipeline.as_ref();
        let longest = pool.map(|pool| pool.longest_wait().as_micros());
        longest
            .and_then(|longest| u64::try_from(longest).ok())
            .unwrap_or(0)
    }

    fn platform(&self) -> String {
        let class = self.info().map(|info| info.pipeline_class.clone());
        class
            .filter(|class| !class.is_empty())
            .unwrap_or_else(|| PLATFORM.to_owned())
    }

    /// What requests take that say nothing, and what they may say.
    fn parameters(&self) -> impl Iterator<Item = (String, ModelParameter)> {
        let told = self.info().map(|info| {
            [
                ("digest", info.digest.clone()),
                ("default_width", info.default_width.to_string()),
                ("default_height", info.default_height.to_string()),
                ("default_steps", info.default_steps.to_string()),
                ("default_guidance_scale", info.default_guidance_scale.to_string()),
                ("default_scheduler", info.default_scheduler.clone()),
                ("schedulers", info.schedulers.join(",")),
                ("size_multiple", info.size_multiple.to_string()),
                ("max_size", info.max_size.to_string()),
                ("max_steps", info.max_steps.to_string()),
            ]
        });
        told.into_iter().flatten().map(|(name, value)| {
            let parameter = ModelParameter { string_value: value };
            (name.to_owned(), parameter)
        })
    }
}

fn metadata(spec: &Spec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.to_owned(),
        datatype: spec.datatype.name().to_owned(),
        shape: spec.shape.to_vec(),
    }
}

/// The application, and which of its models on demand, that a name without a stage means.
fn by_name<'a>(table: &'a Table, name: &'a str) -> Option<(&'a Arc<Application>, &'a str)> {
    if let Ok(application) = table.by_name(name) {
        return Some((application, ""));
    }
    let (application, id) = name.split_once(SEPARATOR).filter(|(name, _)| !name.is_empty())?;
    let application = table.by_name(application).ok()?;
    let pool = application.pipeline.as_ref()?;
    pool.model(id).map(|_| (application, id))
}

/// The names of all models that are open to a caller, without their stages.
fn known(table: &Table, caller: &Caller) -> Vec<String> {
    let all = all(table, caller);
    let whole = all.iter().filter(|which| which.stage.is_none());
    whole.map(Which::name).collect()
}

/// All models that are open to a caller.
pub(crate) fn all(table: &Table, caller: &Caller) -> Vec<Which> {
    let mut models = Vec::new();
    for application in table.applications() {
        let which = |model_id: String| {
            let stages = Stage::ALL.into_iter().map(Some);
            let stages = std::iter::once(None).chain(stages);
            stages.map(move |stage| Which {
                application: Arc::clone(application),
                model_id: model_id.clone(),
                stage,
            })
        };
        let on_demand = application
            .pipeline
            .as_ref()
            .map(|pool| pool.models())
            .unwrap_or_default();
        // Its own model may not be known yet; that there is none is known once replicas serve others.
        if application.model.is_some() || on_demand.is_empty() {
            models.extend(which(String::new()));
        }
        models.extend(on_demand.into_keys().flat_map(which));
    }
    models.retain(|which| caller.may_use(&which.application.name, &which.model_id));
    models
}

/// Refuses parameters of a load.
///
/// # Errors
/// [`Error::Invalid`] with each of them.
pub(crate) fn load_as_it_is(names: &[String]) -> Result<(), Error> {
    let why = "cannot be given here; how a model is loaded is said when its application is deployed";
    let problem = |name: &String| wrong(shown(name.clone()), why);
    match names {
        [] => Ok(()),
        names => Err(Error::Invalid(names.iter().map(problem).collect())),
    }
}
