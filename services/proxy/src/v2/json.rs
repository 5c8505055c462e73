//! Descriptions and counts as Triton writes them in JSON: its messages by their fields' names, whole numbers as numbers. Pure.

use mobula_proto::oip::{
    DataType, ModelConfig, ModelMetadataResponse, ModelStatistics, StatisticDuration,
    model_metadata_response::TensorMetadata, repository_index_response::ModelIndex,
};
use serde_json::{Map, Value, json};

/// Which tensors a model takes and gives.
pub(crate) fn metadata(told: &ModelMetadataResponse) -> Value {
    let tensors = |tensors: &[TensorMetadata]| -> Vec<Value> {
        let tensor = |t: &TensorMetadata| json!({ "name": t.name, "datatype": t.datatype, "shape": t.shape });
        tensors.iter().map(tensor).collect()
    };
    json!({
        "name": told.name,
        "versions": told.versions,
        "platform": told.platform,
        "inputs": tensors(&told.inputs),
        "outputs": tensors(&told.outputs),
    })
}

/// A model's configuration.
pub(crate) fn config(told: &ModelConfig) -> Value {
    let name = |number: i32| DataType::try_from(number).unwrap_or_default().as_str_name();
    let input = told.input.iter().map(|input| {
        json!({
            "name": input.name,
            "data_type": name(input.data_type),
            "format": "FORMAT_NONE",
            "dims": input.dims,
            "optional": input.optional,
        })
    });
    let output = told.output.iter().map(
        |output| json!({ "name": output.name, "data_type": name(output.data_type), "dims": output.dims }),
    );
    let mut parameters: Vec<_> = told.parameters.iter().collect();
    parameters.sort_by_key(|(name, _)| name.as_str());
    let parameters = parameters.into_iter().map(|(name, parameter)| {
        let value = json!({ "string_value": parameter.string_value });
        (name.clone(), value)
    });
    let batching = told.dynamic_batching.as_ref().map(|batching| {
        let policy = batching.default_queue_policy.unwrap_or_default();
        json!({
            "priority_levels": batching.priority_levels,
            "default_priority_level": batching.default_priority_level,
            "default_queue_policy": {
                "timeout_action": policy.timeout_action().as_str_name(),
                "default_timeout_microseconds": policy.default_timeout_microseconds,
                "allow_timeout_override": policy.allow_timeout_override,
                "max_queue_size": policy.max_queue_size,
            },
        })
    });
    let decoupled = told
        .model_transaction_policy
        .is_some_and(|policy| policy.decoupled);
    json!({
        "name": told.name,
        "platform": told.platform,
        "backend": told.backend,
        "version_policy": { "latest": { "num_versions": 1 } },
        "max_batch_size": told.max_batch_size,
        "input": input.collect::<Vec<_>>(),
        "output": output.collect::<Vec<_>>(),
        "instance_group": [],
        "dynamic_batching": batching,
        "parameters": parameters.collect::<Map<_, _>>(),
        "model_transaction_policy": { "decoupled": decoupled },
    })
}

/// A line of the list of all models.
pub(crate) fn index(told: &ModelIndex) -> Value {
    json!({ "name": told.name, "version": told.version, "state": told.state, "reason": told.reason })
}

/// What models have done.
pub(crate) fn statistics(all: impl Iterator<Item = ModelStatistics>) -> Value {
    json!({ "model_stats": all.map(|one| model(&one)).collect::<Vec<_>>() })
}

fn model(told: &ModelStatistics) -> Value {
    let parts = told.inference_stats.unwrap_or_default();
    let sizes = told.batch_stats.iter().map(|size| {
        json!({
            "batch_size": size.batch_size,
            "compute_input": sum(size.compute_input),
            "compute_infer": sum(size.compute_infer),
            "compute_output": sum(size.compute_output),
        })
    });
    json!({
        "name": told.name,
        "version": told.version,
        "last_inference": told.last_inference,
        "inference_count": told.inference_count,
        "execution_count": told.execution_count,
        "inference_stats": {
            "success": sum(parts.success),
            "fail": sum(parts.fail),
            "queue": sum(parts.queue),
            "compute_input": sum(parts.compute_input),
            "compute_infer": sum(parts.compute_infer),
            "compute_output": sum(parts.compute_output),
            "cache_hit": sum(parts.cache_hit),
            "cache_miss": sum(parts.cache_miss),
        },
        "response_stats": {},
        "batch_stats": sizes.collect::<Vec<_>>(),
        "memory_usage": [],
    })
}

fn sum(told: Option<StatisticDuration>) -> Value {
    let told = told.unwrap_or_default();
    json!({ "count": told.count, "ns": told.ns })
}
