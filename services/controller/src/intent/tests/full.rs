//! A disk that is full: the change is not made, and what was there goes on.
//!
//! The disk is a limit on the size of files, which a shell sets for a process that is this test executable itself.

use std::process::{Command, Stdio};

use super::*;

/// Where the process writes.
const DIR: &str = "MOBULA_TEST_LEDGER_DIR";
/// In blocks of 512 or 1024 bytes, as the shell counts; an open state file has 1.5 MiB at least.
const LIMIT: &str = "8000";

fn filled(version: u64, kilobytes: usize) -> Value {
    let filling = "x".repeat(kilobytes * 1024);
    app(
        "a",
        pipeline(json!({ "user_config": { "version": version, "filling": filling } })),
    )
}

/// Not a test of anything: what runs with little room.
#[test]
#[ignore = "is the process of the other test"]
fn cramped_process() {
    let mut desk = at(Place::Dir(std::env::var(DIR).unwrap().into()));
    for version in 1.. {
        let Err(error) = put(&mut desk, &filled(version, 200)) else {
            continue;
        };
        assert_eq!(error.code(), tonic::Code::Internal, "{error}");
        assert!(error.to_string().contains("nothing was changed"), "{error}");
        desk.refresh().unwrap();
        assert_eq!(desk.subscribe().borrow().resource_version, version - 1);
        println!("{}", version - 1);
        return;
    }
}

#[test]
fn a_change_that_does_not_fit_the_disk_is_not_made_and_the_next_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let run = format!(
        "trap '' XFSZ; ulimit -f {LIMIT}; exec '{}' intent::tests::full::cramped_process --exact --ignored --nocapture",
        own.display()
    );
    let output = Command::new("sh")
        .args(["-c", &run])
        .env(DIR, dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let last: u64 = said
        .lines()
        .find_map(|line| line.parse().ok())
        .expect("it got full");
    assert!(last > 1, "{said}");

    let mut desk = at(Place::Dir(dir.path().to_path_buf()));
    assert_eq!(desk.subscribe().borrow().resource_version, last);
    assert_eq!(
        config(&desk, "a")["deployments"][0]["user_config"]["version"],
        last
    );
    put(&mut desk, &filled(last + 1, 200)).unwrap();
}
