//! `main` in a process of its own: exit codes, signals, and what is said.
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use mobula_kit::{Common, EXIT_CONFIG, EXIT_FAILED, EXIT_KILLED, EXIT_OK, Error, LogFormat, Stop, listen};

/// Not a test of its own: the others start this binary again with this test alone and say what it is to be.
#[test]
fn child() {
    let Ok(role) = std::env::var("MOBULA_TEST_ROLE") else {
        return;
    };
    let mut common = Common {
        drain_timeout_s: 1,
        ..Common::default()
    };
    match role.as_str() {
        "json" => common.log_format = LogFormat::Json,
        "bad-filter" => common.log = "mobula=loud".to_owned(),
        "bad-otlp" => common.otlp_endpoint = Some("https://collector:4317".to_owned()),
        // Port 1: nobody listens there.
        "away-otlp" => common.otlp_endpoint = Some("http://127.0.0.1:1".to_owned()),
        "orphan" => common.exit_with_pid = std::env::var("MOBULA_TEST_PID").unwrap().parse().ok(),
        _ => {}
    }
    let code = mobula_kit::main("mobula-test", &common, |stop: Stop| async move {
        match role.as_str() {
            "taken" => {
                let first = listen::bind("gRPC", "127.0.0.1:0".parse().unwrap()).await?;
                listen::bind("HTTP", first.local_addr().unwrap()).await?;
            }
            "panic" => {
                let _ = stop.spawn("worker", async { panic!("worker bug") }).await;
            }
            "stuck" => {
                stop.spawn("stuck worker", std::future::pending::<()>());
                tracing::info!("up");
                stop.triggered().await;
            }
            "serve" | "orphan" => {
                tracing::info!("up");
                stop.triggered().await;
            }
            "away-otlp" => drop(tracing::info_span!("work")),
            _ => tracing::info!(request_id = "r1", "up"),
        }
        Ok::<(), Error>(())
    });
    let codes = [EXIT_OK, EXIT_FAILED, EXIT_CONFIG];
    let code = codes
        .into_iter()
        .find(|known| ExitCode::from(*known) == code)
        .unwrap();
    std::process::exit(code.into());
}

fn start(role: &str, environment: &[(&str, String)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "start::child", "--nocapture"])
        .env("MOBULA_TEST_ROLE", role)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a role to its end; gives its exit code and what it wrote.
fn run(role: &str) -> (u8, String) {
    let output = start(role, &[]).wait_with_output().unwrap();
    let code = u8::try_from(output.status.code().unwrap()).unwrap();
    (code, String::from_utf8(output.stderr).unwrap())
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Reads lines until one says this; gives the reader for the rest.
fn until(child: &mut Child, words: &str) -> BufReader<std::process::ChildStderr> {
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it never said {words:?}");
    }
    lines
}

fn ended(mut child: Child, mut lines: BufReader<std::process::ChildStderr>) -> (u8, String) {
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    (u8::try_from(child.wait().unwrap().code().unwrap()).unwrap(), rest)
}

#[test]
fn a_service_that_ends_by_itself_exits_with_zero() {
    let (code, said) = run("end");
    assert_eq!(code, EXIT_OK);
    assert!(
        said.contains("mobula-test starts") && said.contains("mobula-test stopped"),
        "{said}"
    );
    assert!(
        !said.contains('\u{1b}'),
        "no colours where no terminal is: {said}"
    );
}

#[test]
fn json_logs_are_one_object_a_line_with_the_fields_at_the_top() {
    let (_, said) = run("json");
    let lines: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let up = lines.iter().find(|line| line["message"] == "up").unwrap();
    assert_eq!(
        (up["request_id"].as_str(), up["level"].as_str()),
        (Some("r1"), Some("INFO"))
    );
}

#[test]
fn a_taken_port_is_one_sentence_and_exit_code_one() {
    let (code, said) = run("taken");
    assert_eq!(code, EXIT_FAILED);
    assert!(
        said.contains("mobula-test cannot run: cannot listen on 127.0.0.1:"),
        "{said}"
    );
    assert!(said.contains("choose another address"), "{said}");
}

#[test]
fn settings_that_cannot_be_used_are_exit_code_64() {
    for (role, word) in [
        ("bad-filter", "MOBULA_LOG"),
        ("bad-otlp", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ] {
        let (code, said) = run(role);
        assert_eq!(code, EXIT_CONFIG);
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn a_collector_that_is_away_costs_a_warning_and_nothing_else() {
    let (code, said) = run("away-otlp");
    assert_eq!(code, EXIT_OK);
    assert!(
        said.contains("export") && said.contains("Connection refused"),
        "{said}"
    );
}

#[test]
fn a_panic_is_a_log_line() {
    let (code, said) = run("panic");
    assert_eq!(code, EXIT_OK);
    assert!(
        said.contains("ERROR") && said.contains("panic: worker bug"),
        "{said}"
    );
}

#[test]
fn the_first_signal_drains() {
    let mut child = start("serve", &[]);
    let lines = until(&mut child, "up");
    signal(&child, "-TERM");
    let (code, said) = ended(child, lines);
    assert_eq!(code, EXIT_OK);
    assert!(
        said.contains("SIGTERM: stopping") && said.contains("mobula-test stopped"),
        "{said}"
    );
}

#[test]
fn a_drain_ends_at_its_deadline_and_says_who_was_late() {
    let mut child = start("stuck", &[]);
    let lines = until(&mut child, "up");
    signal(&child, "-INT");
    let (code, said) = ended(child, lines);
    assert_eq!(code, EXIT_OK);
    assert!(said.contains("stuck worker"), "{said}");
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let mut child = start("stuck", &[]);
    let lines = until(&mut child, "up");
    signal(&child, "-INT");
    let mut lines = lines;
    let mut line = String::new();
    while !line.contains("SIGINT: stopping") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0);
    }
    signal(&child, "-INT");
    assert_eq!(ended(child, lines).0, EXIT_KILLED);
}

#[test]
fn it_stops_when_the_process_that_it_belongs_to_is_gone() {
    let mut parent = Command::new("sleep").arg("60").spawn().unwrap();
    let mut child = start("orphan", &[("MOBULA_TEST_PID", parent.id().to_string())]);
    let lines = until(&mut child, "up");
    parent.kill().unwrap();
    let begun = tokio::time::Instant::now();
    let (code, said) = ended(child, lines);
    parent.wait().unwrap();
    assert_eq!(code, EXIT_OK);
    assert!(said.contains("is gone: stopping"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}
