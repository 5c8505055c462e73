//! What is done to a mesh.

use mobula_e2e::{Up, until};

use super::{
    Dice, Mesh, told,
    wanted::{MAX_PART_REPLICAS, PARTS, Wanted},
};

const MAX_REPLICAS: usize = 3;

/// What is done to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blow {
    LightUpdate,
    Rollout,
    BrokenModel,
    Scale,
    ToZeroAndBack,
    ScalesByItself,
    OtherApplication,
    KillInference,
    KillPreprocess,
    KillController,
    KillProxy,
    RollBack,
    /// The split application gets another model.
    NextModel,
    ScalePart,
    BrokenParts,
    /// It is made whole, or split again.
    OtherGraph,
}

pub(super) const BLOWS: [Blow; 16] = [
    Blow::LightUpdate,
    Blow::Rollout,
    Blow::BrokenModel,
    Blow::Scale,
    Blow::ToZeroAndBack,
    Blow::ScalesByItself,
    Blow::OtherApplication,
    Blow::KillInference,
    Blow::KillPreprocess,
    Blow::KillController,
    Blow::KillProxy,
    Blow::RollBack,
    Blow::NextModel,
    Blow::ScalePart,
    Blow::BrokenParts,
    Blow::OtherGraph,
];

async fn put(up: &Up, application: &str) -> anyhow::Result<()> {
    up.write("sd.yaml", application)?;
    told(up, &["deploy", "--application", "sd.yaml"]).await
}

async fn scale(up: &Up, replicas: usize) -> anyhow::Result<()> {
    told(up, &["scale", "sd/pipeline", &replicas.to_string()]).await
}

async fn put_parts(up: &Up, application: &str) -> anyhow::Result<()> {
    up.write("parts.yaml", application)?;
    told(up, &["deploy", "--application", "parts.yaml"]).await
}

pub(super) async fn strike(
    mesh: &mut Mesh,
    blow: Blow,
    dice: &mut Dice,
    wanted: &mut Wanted,
) -> anyhow::Result<()> {
    if blow == Blow::KillProxy {
        return mesh.kill_proxy(dice).await;
    }
    let up = &mesh.up;
    let kill = |name: &str, dice: &mut Dice| -> anyhow::Result<()> {
        let victims = up.named(name);
        match victims.len() {
            0 => Ok(()),
            n => victims[dice.throw(n)].kill(),
        }
    };
    match blow {
        Blow::LightUpdate => {
            wanted.batch = 1 + dice.throw(8);
            put(up, &wanted.yaml("fake")).await
        }
        Blow::Rollout => {
            wanted.base_us = 500 + 100 * dice.throw(10);
            put(up, &wanted.yaml("fake")).await
        }
        Blow::BrokenModel => {
            put(up, &wanted.yaml("/no/such/model")).await?;
            until("the update to be taken back", || async {
                let config = up.told(&["config", "sd"]).await.ok()?;
                config.contains("model: fake").then_some(())
            })
            .await
        }
        Blow::Scale => {
            wanted.replicas = 1 + dice.throw(MAX_REPLICAS);
            scale(up, wanted.replicas).await
        }
        Blow::ToZeroAndBack => {
            let application = wanted.yaml("fake");
            put(up, &format!("{application}external_scaler_enabled: true\n")).await?;
            scale(up, 0).await?;
            up.settled("sd", "pipeline", 0).await?;
            scale(up, wanted.replicas).await?;
            put(up, &application).await
        }
        Blow::ScalesByItself => {
            let scaling = "autoscaling_config: {min_replicas: 0, max_replicas: 3, target_ongoing_requests: 1, \
                           look_back_period_s: 0.5, upscale_delay_s: 0.2, downscale_delay_s: 0.5}";
            put(up, &wanted.counted("fake", scaling)).await?;
            up.settled("sd", "pipeline", MAX_REPLICAS).await?;
            put(up, &wanted.yaml("fake")).await
        }
        Blow::OtherApplication => {
            let other = wanted.yaml("fake").replace("name: sd", "name: art");
            put(up, &other.replace("/sd", "/art")).await?;
            up.settled("art", "pipeline", wanted.replicas).await?;
            told(up, &["delete", "art"]).await?;
            up.deleted("art").await
        }
        Blow::KillInference => kill("mobula-inference", dice),
        Blow::KillPreprocess => kill("mobula-preprocess", dice),
        Blow::KillController => kill("mobula-controller", dice),
        Blow::KillProxy => Ok(()),
        Blow::NextModel => {
            wanted.parts.model = 1 - wanted.parts.model;
            put_parts(up, &wanted.parts.yaml()).await
        }
        Blow::ScalePart => {
            let part = dice.throw(PARTS.len());
            wanted.parts.replicas[part] = 1 + dice.throw(MAX_PART_REPLICAS);
            put_parts(up, &wanted.parts.yaml()).await
        }
        Blow::BrokenParts => {
            put_parts(up, &wanted.parts.of("/no/such/model", "onnx")).await?;
            let model = wanted.parts.models[wanted.parts.model].display().to_string();
            until("the update of parts to be taken back", || async {
                let config = up.told(&["config", "parts"]).await.ok()?;
                config.contains(&model).then_some(())
            })
            .await
        }
        Blow::OtherGraph => {
            wanted.parts.is_split = !wanted.parts.is_split;
            put_parts(up, &wanted.parts.yaml()).await
        }
        Blow::RollBack => {
            // There and back, so that what is wanted stays what it is.
            let mut other = wanted.clone();
            other.base_us += 50;
            put(up, &other.yaml("fake")).await?;
            told(up, &["rollback", "sd"]).await
        }
    }
}
