//! What tests want to run, and where workers come from.

use mobula_schema::{Config, Count};
use mobula_serving::{place::Kind, scale};

use super::super::*;

pub(super) fn external() -> Supply {
    Supply::External {
        controller: "127.0.0.1:7265".into(),
    }
}

pub(super) fn process(survivors: &[(&str, Kind)]) -> Supply {
    let survivors = survivors
        .iter()
        .map(|(id, kind)| Survivor {
            worker_id: (*id).to_owned(),
            kind: *kind,
            group: kind.to_string(),
        })
        .collect();
    Supply::Process {
        max_workers: 8,
        survivors,
    }
}

/// The default application with so many pipeline replicas.
pub(super) fn schema(pipelines: u32) -> Intent {
    let mut intent = Intent {
        resource_version: 1,
        config: Config::of_model("fake"),
        ..Intent::default()
    };
    intent.config.applications[0].deployments[1].count = Count::Fixed(pipelines);
    intent
}

/// The default application with pipelines that scale by themselves, quickly.
pub(super) fn auto(min: u32, max: u32) -> Intent {
    let mut intent = schema(0);
    intent.config.applications[0].deployments[1].count = Count::Auto(scale::Config {
        min,
        max,
        target_ongoing: 2.0,
        look_back: Duration::from_secs(2),
        upscale_delay: Duration::from_secs(1),
        downscale_delay: Duration::from_secs(5),
        ..scale::Config::default()
    });
    intent
}

/// The default application split, with so many replicas of text encoder, denoiser and VAE.
pub(super) fn split(counts: [u32; 3], model: &str) -> Intent {
    let [text, denoise, vae] = counts;
    let text = format!(
        "applications:
- name: default
  route_prefix: /
  import_path: mobula.image:split
  args: {{model: {model}, engine: fake}}
  deployments:
  - {{name: text_encoder, num_replicas: {text}}}
  - {{name: denoiser, num_replicas: {denoise}}}
  - {{name: vae, num_replicas: {vae}}}
"
    );
    Intent {
        resource_version: 1,
        config: mobula_schema::parse(&text).unwrap().config,
        ..Intent::default()
    }
}

/// The same with another model, which is an update.
pub(super) fn model(pipelines: u32, model: &str) -> Intent {
    let mut intent = schema(pipelines);
    for deployment in &mut intent.config.applications[0].deployments {
        if deployment.kind == Kind::Inference {
            deployment.model = model.into();
        }
    }
    intent
}
