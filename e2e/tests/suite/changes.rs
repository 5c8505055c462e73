//! Changes under a constant load: deploy, update, roll out, roll back, scale, lose processes. Every request is answered, and
//! every picture is the one that its seed drew before.

use mobula_e2e::{Load, Report, Up, prompt, until};
use mobula_proto::image::v1::GenerateRequest;
use serde_json::Value;

pub(crate) const CALLERS: usize = 4;
/// Seeds that the callers go round: few, so that each is drawn before and after every change.
const SEEDS: usize = 16;

/// What the one application of a mesh is to be.
#[derive(Clone, Debug)]
struct Application {
    name: &'static str,
    model: &'static str,
    base_us: u64,
    /// Fields of the deployment `pipeline`, in YAML's flow form.
    pipeline: String,
}

impl Application {
    fn new(pipeline: &str) -> Self {
        Self {
            name: "sd",
            model: "fake",
            base_us: 1000,
            pipeline: pipeline.to_owned(),
        }
    }

    fn yaml(&self) -> String {
        format!(
            "
name: {name}
route_prefix: /{name}
import_path: mobula.image:text_to_image
args: {{model: {model}, options: {{base_us: {base_us}}}}}
deployments:
- {{name: preprocess, ray_actor_options: {{num_cpus: 0.1}}}}
- {{name: pipeline, ray_actor_options: {{num_cpus: 0.5}}, {pipeline}}}
",
            name = self.name,
            model = self.model,
            base_us = self.base_us,
            pipeline = self.pipeline,
        )
    }
}

/// One of a few requests.
pub(crate) fn numbered(n: usize) -> GenerateRequest {
    GenerateRequest {
        model: "sd".into(),
        steps: Some(10),
        ..prompt("a picture under load", (n % SEEDS) as u64)
    }
}

/// A mesh with one application that nobody asks, and a short heartbeat: an update takes some of them for every replica.
async fn mesh() -> anyhow::Result<Up> {
    Up::start(&["--engine", "fake"], &[("MOBULA_HEARTBEAT_MS", "200".into())]).await
}

/// A mesh that serves the application, beside the one of `--engine fake`, which nobody asks.
async fn serving(application: &Application) -> anyhow::Result<Up> {
    let up = mesh().await?;
    up.put(&application.yaml()).await?;
    up.settled(application.name, "pipeline", 1).await?;
    Ok(up)
}

async fn loaded(up: &Up) -> anyhow::Result<Load> {
    let load = Load::start(&up.client()?, CALLERS, numbered);
    more(up, &load).await?;
    Ok(load)
}

/// Waits for as many pictures as make sure that every seed was drawn after now.
pub(crate) async fn more(up: &Up, load: &Load) -> anyhow::Result<()> {
    let more = load.more(SEEDS + CALLERS).await;
    more.map_err(|error| error.context(up.output()))
}

/// Ends the load, of which every request was answered.
pub(crate) async fn finished(up: &Up, load: Load) -> Report {
    let report = load.finish().await;
    assert!(report.failures.is_empty(), "{report:?}\n{}", up.output());
    assert_eq!(report.cut, 0, "no proxy was touched: {report:?}");
    println!("{} pictures, {} started again", report.drawn, report.restarted);
    report
}

#[tokio::test]
async fn a_light_update_tells_running_replicas_and_replaces_none() -> anyhow::Result<()> {
    let mut application = Application::new("num_replicas: 2");
    let up = mesh().await?;
    up.put(&application.yaml()).await?;
    let before = up.settled("sd", "pipeline", 2).await?;
    let load = loaded(&up).await?;
    for (ongoing, batch) in [(8, 4), (16, 2), (32, 8)] {
        application.pipeline = format!(
            "num_replicas: 2, max_ongoing_requests: {ongoing}, user_config: {{max_batch_size: {batch}}}"
        );
        let told = up.put(&application.yaml()).await?;
        assert!(
            told.contains("running replicas are told") && !told.contains("replaced"),
            "{told}"
        );
        more(&up, &load).await?;
    }
    assert_eq!(up.settled("sd", "pipeline", 2).await?, before, "{}", up.output());
    finished(&up, load).await;
    Ok(())
}

#[tokio::test]
async fn an_update_replaces_every_replica_and_no_request_notices() -> anyhow::Result<()> {
    let mut application = Application::new("num_replicas: 2");
    let up = mesh().await?;
    up.put(&application.yaml()).await?;
    let before = up.settled("sd", "pipeline", 2).await?;
    let load = loaded(&up).await?;
    for base_us in [1500, 700] {
        application.base_us = base_us;
        let told = up.put(&application.yaml()).await?;
        assert!(
            told.contains("replicas are replaced, one after another"),
            "{told}"
        );
        let after = up.settled("sd", "pipeline", 2).await?;
        assert!(
            after.iter().all(|id| !before.contains(id)),
            "{before:?} {after:?} {}",
            up.output()
        );
        more(&up, &load).await?;
    }
    finished(&up, load).await;
    Ok(())
}

#[tokio::test]
async fn an_update_to_a_model_that_is_not_there_is_taken_back_by_itself() -> anyhow::Result<()> {
    let good = Application::new("num_replicas: 2");
    let up = mesh().await?;
    up.put(&good.yaml()).await?;
    up.settled("sd", "pipeline", 2).await?;
    let load = loaded(&up).await?;
    let broken = Application {
        model: "/no/such/model",
        ..good.clone()
    };
    up.put(&broken.yaml()).await?;
    let history = until("the update to be taken back", || async {
        let told = up.told(&["history", "--json"]).await.ok()?;
        let history: Value = serde_json::from_str(&told).ok()?;
        (history[0]["action"] == "automatic rollback").then_some(history)
    })
    .await
    .map_err(|error| error.context(up.output()))?;
    let reason = history[0]["reason"].as_str().unwrap_or_default();
    // Whichever fails first: there is no tokenizer, and without the fake model there is none of its options.
    let says_why = |text: &str| text.contains("/no/such/model") || text.contains("base_us");
    assert!(says_why(reason), "it says why: {history}");
    up.settled("sd", "pipeline", 2).await?;
    let config = up.told(&["config", "sd"]).await?;
    assert!(config.contains("model: fake"), "{config}");
    // Both deployments have a new version; the one that failed first took the whole application back.
    for deployment in ["sd/preprocess", "sd/pipeline"] {
        let told = up.told(&["explain", "deployment", deployment]).await?;
        assert!(told.contains("rolled back after: ") && says_why(&told), "{told}");
    }
    more(&up, &load).await?;
    finished(&up, load).await;
    Ok(())
}

#[tokio::test]
async fn replicas_come_and_go_and_no_request_notices() -> anyhow::Result<()> {
    let up = serving(&Application::new("num_replicas: 1")).await?;
    let load = loaded(&up).await?;
    for replicas in [3, 1, 2, 1] {
        up.told(&["scale", "sd/pipeline", &replicas.to_string()]).await?;
        up.settled("sd", "pipeline", replicas).await?;
        more(&up, &load).await?;
    }
    finished(&up, load).await;
    Ok(())
}

#[tokio::test]
async fn applications_come_and_go_beside_one_that_draws() -> anyhow::Result<()> {
    let up = serving(&Application::new("num_replicas: 1")).await?;
    let load = loaded(&up).await?;
    for _ in 0..2 {
        let other = Application {
            name: "art",
            ..Application::new("num_replicas: 1")
        };
        up.put(&other.yaml()).await?;
        up.settled("art", "pipeline", 1).await?;
        let art = |n| GenerateRequest {
            model: "art".into(),
            ..numbered(n)
        };
        let beside = Load::start(&up.client()?, CALLERS, art);
        more(&up, &beside).await?;
        more(&up, &load).await?;
        finished(&up, beside).await;
        up.told(&["delete", "art"]).await?;
        up.deleted("art").await?;
        more(&up, &load).await?;
    }
    finished(&up, load).await;
    Ok(())
}

#[tokio::test]
async fn load_adds_replicas_and_idleness_takes_them_away_down_to_none_and_a_request_brings_one_back()
-> anyhow::Result<()> {
    let scaling = "autoscaling_config: {min_replicas: 0, initial_replicas: 1, max_replicas: 3, \
                   target_ongoing_requests: 1, look_back_period_s: 0.5, upscale_delay_s: 0.2, \
                   downscale_delay_s: 0.5, downscale_to_zero_delay_s: 0.5}";
    let application = Application {
        base_us: 10_000,
        ..Application::new(scaling)
    };
    let up = serving(&application).await?;
    let load = loaded(&up).await?;
    up.settled("sd", "pipeline", 3).await?;
    more(&up, &load).await?;
    let told = up.told(&["explain", "deployment", "sd/pipeline"]).await?;
    assert!(told.contains("autoscaling"), "{told}");
    let first = finished(&up, load).await;

    up.settled("sd", "pipeline", 0).await?;
    let path = "/api/serve/applications/sd/deployments/pipeline/decisions";
    let answer = mobula_e2e::get(up.rest(), path).await?;
    let decisions: Value = serde_json::from_str(&answer.text())?;
    let decisions = decisions["decisions"].as_array().cloned().unwrap_or_default();
    let numbers: Vec<_> = decisions
        .iter()
        .map(|d| (d["prev_num_replicas"].as_u64(), d["curr_num_replicas"].as_u64()))
        .collect();
    assert_eq!(
        numbers.first(),
        Some(&(Some(1), Some(0))),
        "newest first, and from one replica to none: {decisions:?}"
    );
    assert!(
        numbers.iter().any(|(_, to)| *to == Some(3)),
        "it grew to three: {decisions:?}"
    );
    assert!(
        decisions
            .iter()
            .all(|d| d["reason"].as_str().is_some_and(|r| !r.is_empty())),
        "{decisions:?}"
    );
    let answer = mobula_e2e::get(up.rest(), "/api/serve/applications/").await?;
    let details: Value = serde_json::from_str(&answer.text())?;
    let shown = &details["applications"]["sd"]["deployments"]["pipeline"];
    assert_eq!(shown["target_num_replicas"], 0, "{shown}");
    assert_eq!(
        shown["autoscaling_detail"]["decisions"][0]["curr_num_replicas"], 0,
        "{shown}"
    );

    // Nothing runs; requests wait until it does.
    let load = loaded(&up).await?;
    let second = finished(&up, load).await;
    assert!(first.drawn > 0 && second.drawn > 0);
    Ok(())
}
