//! Everything that `changes.rs` and `processes.rs` do one by one, at random and for long:
//!
//! ```text
//! MOBULA_CHAOS_S=180 cargo test -p mobula-e2e --test suite chaos -- --ignored --nocapture
//! ```
//!
//! Three proxies serve the callers, who ask by gRPC, by `GET /imagine`, by OpenAI's API and by the Open Inference Protocol for
//! pictures of an application in one piece and of a split one, and do what any client with several addresses does: when
//! the connection to a proxy breaks that was killed, they send the request again, under its id, to the next one. Everything
//! else is a failure, and so is a picture that is not the same by every way and at every time.
//!
//! `MOBULA_CHAOS_SEED` repeats the order of a run; what meets what still depends on the machine.

mod blows;
mod wanted;

use std::collections::BTreeMap;
use std::time::Duration;

use mobula_e2e::{Load, Proxies, Up, Way, copy_model, demo_model, prompt, until};
use mobula_proto::image::v1::GenerateRequest;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::{
    blows::{BLOWS, Blow, strike},
    wanted::{Parts, Wanted},
};

/// Two for each way to ask; each asks for both applications in turns, and all for the same pictures.
const CALLERS: usize = 8;
const APPLICATIONS: [&str; 2] = ["sd", "parts"];
const SEEDS: usize = 16;
/// Proxies beside the one of `mobula up`.
const MORE_PROXIES: usize = 2;

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

fn numbered(n: usize) -> GenerateRequest {
    GenerateRequest {
        model: APPLICATIONS[n / CALLERS % APPLICATIONS.len()].into(),
        steps: Some(10),
        ..prompt(
            "a picture under load",
            (n / (CALLERS * APPLICATIONS.len()) % SEEDS) as u64,
        )
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

/// The mesh, and what was done to it that takes its time.
struct Mesh {
    up: Up,
    proxies: Proxies,
    /// Killed proxies on their way back.
    returning: JoinSet<anyhow::Result<()>>,
}

impl Mesh {
    async fn start() -> anyhow::Result<Self> {
        // Both applications, a third that comes and goes, and as many replicas beside those as an update has.
        let variables = [
            ("MOBULA_MAX_WORKERS", "32".to_owned()),
            // A file that says which model drew it is another one after an update.
            ("MOBULA_PROVENANCE", "marker".to_owned()),
        ];
        let up = Up::start(&["--engine", "fake"], &variables).await?;
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

#[tokio::test]
#[ignore = "takes minutes: MOBULA_CHAOS_S of them in seconds"]
async fn nothing_that_is_done_to_a_mesh_fails_a_request() -> anyhow::Result<()> {
    let time = Duration::from_secs(variable("MOBULA_CHAOS_S", 600)?);
    let seed = variable("MOBULA_CHAOS_SEED", u64::from(std::process::id()))?;
    println!("MOBULA_CHAOS_SEED={seed}");
    let folder = tempfile::tempdir()?;
    let mut dice = Dice(seed);
    let mut wanted = Wanted {
        base_us: 1000,
        batch: 4,
        replicas: 2,
        parts: Parts {
            models: [demo_model()?, folder.path().join("other")],
            model: 0,
            is_split: true,
            replicas: [1, 2, 1],
        },
    };
    copy_model(&wanted.parts.models[0], &wanted.parts.models[1])?;
    let mut mesh = Mesh::start().await?;
    mesh.up.put(&wanted.yaml("fake")).await?;
    mesh.up.put(&wanted.parts.yaml()).await?;
    mesh.up.settled("sd", "pipeline", wanted.replicas).await?;
    wanted.parts.settled(&mesh.up).await?;
    let load = Load::by(&mesh.proxies.doors(), &Way::ALL, CALLERS, numbered);
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
                wanted.parts.settled(&mesh.up).await?;
                mesh.whole().await?;
            }
            load.more(SEEDS + CALLERS).await?;
            anyhow::ensure!(load.failed() == 0, "a request failed after {blow:?}");
        }
        mesh.whole().await?;
        wanted.parts.settled(&mesh.up).await?;
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
