//! A mesh's configuration file.

use super::{APPLICATION, Builder};

impl Builder {
    /// The file that the controller is to read.
    pub(super) fn config(&self) -> String {
        let Self {
            model,
            refiner,
            inference,
            preprocess,
            max_ongoing_requests,
            options,
            on_demand,
            max_models,
            split,
        } = self;
        let models: String = on_demand
            .iter()
            .map(|(id, folder)| format!("\n      {id}: {folder}"))
            .collect();
        let models = if models.is_empty() {
            String::new()
        } else {
            format!("\n    max_num_models_per_replica: {max_models}\n    models:{models}")
        };
        let options: String = options
            .iter()
            .map(|(name, value)| format!("\n      {name}: {value}"))
            .collect();
        let options = if options.is_empty() {
            String::new()
        } else {
            format!("\n    options:{options}")
        };
        let refiner = refiner.as_ref().map(|model| {
            format!(
                "- name: refiner
  route_prefix: /refiner
  import_path: mobula.image:text_to_image
  args:
    model: {model}
  deployments:
  - name: preprocess
    num_replicas: 1
  - name: pipeline
    num_replicas: 1
    ray_actor_options:
      num_cpus: 1
"
            )
        });
        let refiner = refiner.unwrap_or_default();
        let (graph, draws, others) = if *split {
            ("split", "denoiser", &["text_encoder", "vae"][..])
        } else {
            ("text_to_image", "pipeline", &[][..])
        };
        let others: String = others
            .iter()
            .map(|name| {
                format!(
                    "  - name: {name}
    num_replicas: {inference}
    ray_actor_options:
      num_cpus: 1
"
                )
            })
            .collect();
        format!(
            "applications:
- name: {APPLICATION}
  route_prefix: /
  import_path: mobula.image:{graph}
  args:
    model: {model}{options}{models}
  deployments:
  - name: preprocess
    num_replicas: {preprocess}
  - name: {draws}
    num_replicas: {inference}
    max_ongoing_requests: {max_ongoing_requests}
    ray_actor_options:
      num_cpus: 1
{others}{refiner}"
        )
    }
}
