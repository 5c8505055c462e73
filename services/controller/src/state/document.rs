//! A deployment's config as a document, in Ray's words, with everything at its default written out.

use std::time::Duration;

use mobula_schema::{Count, Deployment};
use mobula_serving::{place::fraction, scale};
use serde_json::{Map, Value, json};

/// The config as a `DeploymentSchema` has it, with what Ray lacks under our own names.
pub(super) fn document(config: &Deployment) -> Value {
    let Deployment {
        name,
        kind,
        count,
        max_ongoing_requests,
        max_queued_requests,
        max_queued,
        need,
        placing,
        grace,
        health,
        user_config,
        rollout,
        backpressure,
        model,
        models,
        max_models,
        engine,
        options,
        stages,
    } = config;
    let mut document = json!({
        "name": name,
        "kind": kind.to_string(),
        "max_ongoing_requests": max_ongoing_requests,
        "max_queued_requests": max_queued_requests,
        "max_queued_s": max_queued.map(|longest| longest.as_secs_f64()),
        "user_config": user_config,
        "graceful_shutdown_timeout_s": grace.as_secs_f64(),
        "health_check_period_s": health.period.as_secs_f64(),
        "health_check_timeout_s": health.timeout.as_secs_f64(),
        "health_check_failure_threshold": health.threshold,
        "max_replicas_per_node": placing.per_node,
        "rolling_update_percentage": rollout.percentage,
        "max_failures": rollout.max_failures,
        "backpressure": {
            "status": backpressure.status,
            "retry_after_s": backpressure.retry_after.map(|after| after.as_secs_f64()),
        },
        "ray_actor_options": {
            "num_cpus": fraction(need.cpus),
            "num_gpus": fraction(need.gpus),
            "memory": need.memory,
            "vram_bytes": need.vram,
            "resources": need.custom.iter()
                .map(|(name, amount)| (name.clone(), json!(fraction(*amount))))
                .collect::<Map<_, _>>(),
            "label_selector": placing.selector.0.iter()
                .map(|(name, wanted)| (name.clone(), json!(wanted.to_string())))
                .collect::<Map<_, _>>(),
        },
        "placement_strategy": placing.strategy.to_string(),
        "gang_size": placing.gang,
        "model": model,
        "models": models,
        "max_num_models_per_replica": max_models,
        "engine": engine,
        "options": options,
    });
    if !stages.is_empty() {
        document["stages"] = stages.iter().map(|stage| stage.name()).collect();
    }
    match count {
        Count::Fixed(count) => document["num_replicas"] = json!(count),
        Count::Auto(config) => document["autoscaling_config"] = autoscaling(config),
    }
    // What is not set is left out: Ray's models take null for some fields and not for others.
    if let Value::Object(fields) = &mut document {
        fields.retain(|_, value| !value.is_null());
    }
    document
}

fn autoscaling(config: &scale::Config) -> Value {
    let seconds = |time: Duration| time.as_secs_f64();
    let policy = match config.policy {
        scale::Policy::Ongoing => json!("default_autoscaling_policy"),
        scale::Policy::Work { target_s } => json!({"work": {"target_s": target_s}}),
    };
    json!({
        "min_replicas": config.min,
        "initial_replicas": config.initial,
        "max_replicas": config.max,
        "target_ongoing_requests": config.target_ongoing,
        "metrics_interval_s": seconds(config.metrics_interval),
        "look_back_period_s": seconds(config.look_back),
        "upscaling_factor": config.upscaling_factor,
        "downscaling_factor": config.downscaling_factor,
        "upscale_delay_s": seconds(config.upscale_delay),
        "downscale_delay_s": seconds(config.downscale_delay),
        "downscale_to_zero_delay_s": config.downscale_to_zero_delay.map(seconds),
        "aggregation_function": match config.aggregation {
            scale::Aggregation::Mean => "mean",
            scale::Aggregation::Max => "max",
            scale::Aggregation::Min => "min",
        },
        "policy": policy,
    })
}

#[cfg(test)]
mod tests {
    use mobula_schema::Config;

    use super::*;

    #[test]
    fn numbers_and_names_are_rays() {
        let mut config = Config::of_model("fake")
            .applications
            .remove(0)
            .deployments
            .remove(1);
        let fixed = document(&config);
        assert_eq!(fixed["num_replicas"], 1);
        assert_eq!(fixed["ray_actor_options"]["num_cpus"], 1.0);
        assert_eq!(fixed["graceful_shutdown_timeout_s"], 20.0);
        assert_eq!(fixed.get("max_queued_s"), None, "as long as the proxy allows");
        config.max_queued = Some(Duration::from_millis(1_500));
        assert_eq!(document(&config)["max_queued_s"], 1.5);
        config.count = Count::Auto(scale::Config::auto());
        let scaled = document(&config);
        assert_eq!(scaled["num_replicas"], Value::Null);
        assert_eq!(scaled["autoscaling_config"]["max_replicas"], 100);
        assert_eq!(scaled["autoscaling_config"]["downscale_delay_s"], 600.0);
    }
}
