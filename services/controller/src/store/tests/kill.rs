//! A process that writes and says what it has written is killed at any moment; everything that it said is there.
//!
//! The process is this test executable itself.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

/// Kills; each finds the process at another point of a write.
const ROUNDS: usize = 30;
/// Where the process writes.
const DIR: &str = "MOBULA_TEST_STORE_DIR";

/// Not a test of anything: what the killed process runs.
#[test]
#[ignore = "is the process that the other test kills"]
fn writer_process() {
    let dir = std::env::var(DIR).unwrap();
    let mut store = Store::open(Place::Dir(dir.into()), BOUNDS).unwrap();
    let first = store.load().unwrap().desired.resource_version + 1;
    for version in first.. {
        let revision = revision(version);
        let targets = Targets::from([(("a".into(), "pipeline".into()), version as u32)]);
        let batch = Batch {
            revision: Some(&revision),
            targets: Some(&targets),
            decisions: &[decision(version as u32)],
            ..Batch::default()
        };
        store.commit(&batch).unwrap();
        println!("{version}");
        std::io::stdout().flush().unwrap();
    }
}

fn writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "store::tests::kill::writer_process",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_process_is_killed_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(SEED);
    let mut before = 0;
    for round in 0..ROUNDS {
        let mut child = writer(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = before;
        // Some are killed after the first words, some in the middle of the fortieth write.
        let mut left = random.random_range(1..=40);
        while left > 0 {
            // The test harness has words of its own.
            let Ok(version) = lines
                .next()
                .expect("the writer writes on")
                .unwrap()
                .parse::<u64>()
            else {
                continue;
            };
            (said, left) = (version, left - 1);
        }
        for _ in 0..random.random_range(0..2000) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        // What was still in the pipe was said, too.
        said = lines
            .filter_map(|line| line.ok()?.parse().ok())
            .last()
            .unwrap_or(said);
        child.wait().unwrap();

        let mut store = Store::open(Place::Dir(dir.path().to_path_buf()), BOUNDS).unwrap();
        let (kept, history) = everything(&mut store);
        let version = kept.desired.resource_version;
        assert!(
            version == said || version == said + 1,
            "round {round}: {version} after {said}"
        );
        assert_eq!(kept.desired, revision(version).desired, "round {round}");
        assert_eq!(
            history.revisions.first(),
            Some(&revision(version)),
            "whole or not at all"
        );
        assert_eq!(history.decisions.first(), Some(&decision(version as u32)));
        assert_eq!(kept.targets.into_values().next(), Some(version as u32));
        let expected: Vec<_> = (1..=version).rev().take(5).map(revision).collect();
        assert_eq!(history.revisions, expected, "round {round}");
        before = version;
    }
    println!("{ROUNDS} kills, {before} commits");
}
