//! What was last asked for: an application in one piece, and one that is split.

use std::path::PathBuf;

use mobula_e2e::{Up, until};

/// What was last asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) base_us: usize,
    pub(super) batch: usize,
    pub(super) replicas: usize,
    pub(super) parts: Parts,
}

impl Wanted {
    pub(super) fn yaml(&self, model: &str) -> String {
        let count = format!("num_replicas: {}", self.replicas);
        self.counted(model, &count)
    }

    pub(super) fn counted(&self, model: &str, count: &str) -> String {
        let Self { base_us, batch, .. } = self;
        format!(
            "
name: sd
route_prefix: /sd
import_path: mobula.image:text_to_image
args: {{model: {model}, options: {{base_us: {base_us}}}}}
deployments:
- {{name: preprocess, num_replicas: 2, ray_actor_options: {{num_cpus: 0.1}}}}
- {{name: pipeline, {count}, ray_actor_options: {{num_cpus: 0.5}}, user_config: {{max_batch_size: {batch}}}}}
"
        )
    }
}

/// The parts of the application `parts`, with how many replicas each may have.
pub(super) const PARTS: [&str; 3] = ["text_encoder", "denoiser", "vae"];
pub(super) const MAX_PART_REPLICAS: usize = 2;

/// What is asked of the application that is split, or was.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// Models that the fake engine stands for.
    pub(super) models: [PathBuf; 2],
    pub(super) model: usize,
    pub(super) is_split: bool,
    pub(super) replicas: [usize; 3],
}

impl Parts {
    /// Its config as it is to be.
    pub(super) fn yaml(&self) -> String {
        self.of(&self.models[self.model].display().to_string(), "fake")
    }

    /// The same with another model and engine.
    pub(super) fn of(&self, model: &str, engine: &str) -> String {
        let deployment = |name: &str, replicas: usize| {
            format!("- {{name: {name}, num_replicas: {replicas}, ray_actor_options: {{num_cpus: 0.2}}}}\n")
        };
        let (graph, drawing) = if self.is_split {
            let parts = PARTS.iter().zip(self.replicas);
            let parts = parts.map(|(name, replicas)| deployment(name, replicas));
            ("split", parts.collect::<String>())
        } else {
            ("text_to_image", deployment("pipeline", 1))
        };
        format!(
            "
name: parts
route_prefix: /parts
import_path: mobula.image:{graph}
args: {{model: {model}, engine: {engine}}}
deployments:
- {{name: preprocess, ray_actor_options: {{num_cpus: 0.1}}}}
{drawing}"
        )
    }

    /// Waits until it runs as it is to be, and nothing of what it was is left.
    pub(super) async fn settled(&self, up: &Up) -> anyhow::Result<()> {
        let (there, gone) = if self.is_split {
            (PARTS.into_iter().zip(self.replicas).collect(), "pipeline")
        } else {
            (vec![("pipeline", 1)], "vae")
        };
        for (name, replicas) in there {
            up.settled("parts", name, replicas).await?;
        }
        until("the deployments of the graph before to be gone", || async {
            let left = up.deployment("parts", gone).await.ok()?;
            left.is_none().then_some(())
        })
        .await
        .map_err(|error| error.context(up.output()))
    }
}
