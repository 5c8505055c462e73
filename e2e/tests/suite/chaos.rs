//! Everything that `changes.rs` and `processes.rs` do one by one, at random and for long:
//!
//! ```text
//! MOBULA_CHAOS_S=180 cargo test -p mobula-e2e --test suite chaos -- --ignored --nocapture
//! ```
//!
//! Three proxies serve the callers, who do what any gRPC client with several addresses does: when the connection to a proxy
//! breaks that was killed, they send the request again, under its id, to the next one. Everything else is a failure.
//!
//! `MOBULA_CHAOS_SEED` repeats the order of a run; what meets what still depends on the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_e2e::{Load, Proxies, Up, prompt, until};
use mobula_proto::image::v1::GenerateRequest;
use tokio::task::JoinSet;
use tokio::time::Instant;

const CALLERS: usize = 4;
const SEEDS: usize = 16;
const MAX_REPLICAS: usize = 3;
/// Proxies beside the one of `mobula up`.
const MORE_PROXIES: usize = 2;

/// What is done to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
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
}

const BLOWS: [Blow; 12] = [
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
];

/// SplitMix64 (Steele, Lea, Flood 2014): enough to throw dice.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}

/// What was last asked for.
#[derive(Clone, Debug)]
struct Wanted {
    base_us: usize,
    batch: usize,
    replicas: usize,
}

impl Wanted {
    fn yaml(&self, model: &str) -> String {
        let count = format!("num_replicas: {}", self.replicas);
        self.counted(model, &count)
    }

    fn counted(&self, model: &str, count: &str) -> String {
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

fn numbered(n: usize) -> GenerateRequest {
    GenerateRequest {
        model: "sd".into(),
        steps: Some(10),
        ..prompt("a picture under load", (n % SEEDS) as u64)
    }
}

fn variable(name: &str, default: u64) -> anyhow::Result<u64> {
    Ok(std::env::var(name).map_or(Ok(default), |text| text.parse())?)
}

/// Runs a command, again if it meets a controller that is just starting again.
async fn told(up: &Up, arguments: &[&str]) -> anyhow::Result<()> {
    let last = std::cell::RefCell::new(String::new());
    let done = until("a command to be accepted", || async {
        match up.told(arguments).await {
            Ok(_) => Some(()),
            Err(error) => {
                last.replace(error.to_string());
                None
            }
        }
    });
    let done = done.await;
    done.map_err(|error| error.context(format!("{arguments:?}: {}", last.take())))
}

async fn put(up: &Up, application: &str) -> anyhow::Result<()> {
    up.write("sd.yaml", application)?;
    told(up, &["deploy", "--application", "sd.yaml"]).await
}

async fn scale(up: &Up, replicas: usize) -> anyhow::Result<()> {
    told(up, &["scale", "sd/pipeline", &replicas.to_string()]).await
}

/// The mesh, and what was done to it that takes its time.
struct Mesh {
    up: Up,
    proxies: Proxies,
    /// Killed proxies on their way back.
    returning: JoinSet<anyhow::Result<()>>,
}

impl Mesh {
    async fn start() -> anyhow::Result<Self> {
        let up = Up::start(&["--engine", "fake"], &[]).await?;
        Ok(Self {
            proxies: Proxies::start(&up, MORE_PROXIES).await?,
            returning: JoinSet::new(),
            up,
        })
    }

    /// Kills one of the proxies that stand, if any; the others may still be on their way back.
    async fn kill_proxy(&mut self, dice: &mut Dice) -> anyhow::Result<()> {
        let doors = self.proxies.doors();
        let standing: Vec<usize> = (0..doors.count())
            .filter(|index| doors.is_standing(*index))
            .collect();
        if standing.is_empty() {
            return Ok(());
        }
        let victim = standing[dice.throw(standing.len())];
        self.proxies.kill(&self.up, victim).await?;
        self.returning.spawn(self.proxies.back(victim));
        Ok(())
    }

    /// Waits until every killed proxy answers.
    async fn whole(&mut self) -> anyhow::Result<()> {
        while let Some(back) = self.returning.join_next().await {
            back??;
        }
        Ok(())
    }
}

async fn strike(mesh: &mut Mesh, blow: Blow, dice: &mut Dice, wanted: &mut Wanted) -> anyhow::Result<()> {
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
        Blow::RollBack => {
            // There and back, so that what is wanted stays what it is.
            let mut other = wanted.clone();
            other.base_us += 50;
            put(up, &other.yaml("fake")).await?;
            told(up, &["rollback", "sd"]).await
        }
    }
}

#[tokio::test]
#[ignore = "takes minutes: MOBULA_CHAOS_S of them in seconds"]
async fn nothing_that_is_done_to_a_mesh_fails_a_request() -> anyhow::Result<()> {
    let time = Duration::from_secs(variable("MOBULA_CHAOS_S", 600)?);
    let seed = variable("MOBULA_CHAOS_SEED", u64::from(std::process::id()))?;
    println!("MOBULA_CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    let mut wanted = Wanted {
        base_us: 1000,
        batch: 4,
        replicas: 2,
    };
    let mut mesh = Mesh::start().await?;
    mesh.up.put(&wanted.yaml("fake")).await?;
    mesh.up.settled("sd", "pipeline", wanted.replicas).await?;
    let load = Load::through(&mesh.proxies.doors(), CALLERS, numbered);
    load.more(SEEDS + CALLERS).await?;

    let end = Instant::now() + time;
    let mut blows: BTreeMap<Blow, usize> = BTreeMap::new();
    let struck = async {
        while Instant::now() < end {
            let blow = BLOWS[dice.throw(BLOWS.len())];
            println!("{blow:?} after {} pictures", load.done());
            strike(&mut mesh, blow, &mut dice, &mut wanted).await?;
            *blows.entry(blow).or_default() += 1;
            // Half of the blows fall while the last one is still felt.
            if dice.throw(2) == 0 {
                mesh.up.settled("sd", "pipeline", wanted.replicas).await?;
                mesh.whole().await?;
            }
            load.more(SEEDS + CALLERS).await?;
            anyhow::ensure!(load.failed() == 0, "a request failed after {blow:?}");
        }
        mesh.whole().await?;
        mesh.up.settled("sd", "pipeline", wanted.replicas).await.map(drop)
    };
    let outcome = struck.await;
    let report = load.finish().await;
    println!(
        "seed {seed}, {} s: {} pictures, {} started again elsewhere, {} sent again after a killed proxy ({} pictures came \
         twice); {} failures, of them {} lost, {} doubled, {} different; {blows:?}",
        time.as_secs(),
        report.drawn,
        report.restarted,
        report.cut,
        report.again,
        report.failures.len(),
        report.lost,
        report.doubled,
        report.different,
    );
    assert!(
        report.failures.is_empty(),
        "{:#?}\n{}",
        report.failures,
        mesh.up.output()
    );
    outcome.map_err(|error| error.context(mesh.up.output()))?;
    Ok(())
}
