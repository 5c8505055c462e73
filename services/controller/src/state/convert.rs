//! Between the contract's messages and the state's own types.

use std::sync::Arc;

use mobula_proto::control::v1 as pb;
use mobula_schema::Stage;
use mobula_serving::place::{Amounts, Kind, fraction, units};
use prost::Message;

use super::{
    Time,
    model::{Replica, Spec, weights},
    names::fnv,
};

/// The kind that a message names, if it names one.
pub(super) fn kind_of(kind: pb::WorkerKind) -> Option<Kind> {
    match kind {
        pb::WorkerKind::Unspecified => None,
        pb::WorkerKind::Preprocess => Some(Kind::Preprocess),
        pb::WorkerKind::Inference => Some(Kind::Inference),
    }
}

pub(super) fn kind_to_proto(kind: Kind) -> pb::WorkerKind {
    match kind {
        Kind::Preprocess => pb::WorkerKind::Preprocess,
        Kind::Inference => pb::WorkerKind::Inference,
    }
}

pub(super) fn amounts_of(resources: &pb::Resources) -> Amounts {
    Amounts {
        cpus: units(resources.cpus),
        gpus: units(resources.gpus),
        memory: resources.memory_bytes,
        vram: resources.vram_bytes,
        custom: resources
            .custom
            .iter()
            .map(|(name, amount)| (name.clone(), units(*amount)))
            .collect(),
    }
}

pub(super) fn amounts_to_proto(amounts: &Amounts) -> pb::Resources {
    pb::Resources {
        cpus: fraction(amounts.cpus),
        gpus: fraction(amounts.gpus),
        memory_bytes: amounts.memory,
        custom: amounts
            .custom
            .iter()
            .map(|(name, units)| (name.clone(), fraction(*units)))
            .collect(),
        vram_bytes: amounts.vram,
    }
}

/// Milliseconds that fit a message's field.
pub(super) fn millis32(time: Time) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

pub(super) fn millis(time: Time) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn count32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What a worker is told of a replica that can change while it runs. Its version is a digest of the rest of it alone, so
/// that a change of what workers do not learn, such as the number of replicas, reaches none of them.
pub(super) fn light_config(config: &mobula_schema::Deployment) -> pb::LightConfig {
    let mut light = pb::LightConfig {
        version: String::new(),
        max_ongoing_requests: config.max_ongoing_requests,
        user_config: config
            .user_config
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        health_check_period_ms: millis32(config.health.period),
        health_check_timeout_ms: millis32(config.health.timeout),
        health_check_failures: config.health.threshold,
    };
    light.version = format!("{:016x}", fnv(&light.encode_to_vec()));
    light
}

/// What a worker needs to know to run a replica.
pub(super) fn replica_spec(id: &str, app: &str, replica: &Replica) -> pb::ReplicaSpec {
    let Spec { config, version, .. } = replica.spec.as_ref();
    pb::ReplicaSpec {
        replica_id: id.to_owned(),
        application: app.to_owned(),
        deployment: config.name.clone(),
        kind: kind_to_proto(config.kind).into(),
        model: config.model.clone(),
        engine: config.engine.clone(),
        max_ongoing_requests: config.max_ongoing_requests,
        resources: Some(amounts_to_proto(&config.need)),
        version: version.clone(),
        options: config.options.clone().into_iter().collect(),
        light: Some(light_config(config)),
        models: config.models.clone().into_iter().collect(),
        max_models: config.max_models,
        gpus: gpus_to_proto(&replica.devices),
        stages: stages_to_proto(config.stages),
    }
}

/// Stages, as a message has them.
pub(super) fn stages_to_proto(stages: &[Stage]) -> Vec<i32> {
    let number = |stage: &Stage| match stage {
        Stage::EncodeText => pb::Stage::EncodeText,
        Stage::Denoise => pb::Stage::Denoise,
        Stage::Decode => pb::Stage::Decode,
        Stage::Encode => pb::Stage::Encode,
    };
    stages.iter().map(|stage| number(stage).into()).collect()
}

/// GPUs by number, as a message has them.
pub(super) fn gpus_to_proto(devices: &[usize]) -> Vec<u32> {
    devices.iter().map(|gpu| count32(*gpu)).collect()
}

pub(super) fn devices_of(gpus: &[u32]) -> Vec<usize> {
    gpus.iter().map(|gpu| *gpu as usize).collect()
}

/// What a replica of another version runs, as far as its worker can tell: the rest is as the deployment says now.
pub(super) fn spec_of(reported: &pb::ReplicaSpec, like: &Spec) -> Arc<Spec> {
    let mut config = like.config.clone();
    config.model.clone_from(&reported.model);
    config.engine.clone_from(&reported.engine);
    config.options = reported.options.clone().into_iter().collect();
    config.models = reported.models.clone().into_iter().collect();
    config.max_models = reported.max_models;
    if let Some(resources) = &reported.resources {
        config.need = amounts_of(resources);
    }
    if let Some(light) = &reported.light {
        config.max_ongoing_requests = light.max_ongoing_requests;
    }
    Arc::new(Spec {
        light: light_config(&config).version,
        version: reported.version.clone(),
        weights: weights(&config),
        config,
    })
}
