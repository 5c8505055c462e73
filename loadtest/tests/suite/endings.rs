//! Every way in which a request can end is told apart, at both doors.

use mobula_loadtest::null::Behaviour;

use crate::support::{doors, null, report, run};

/// What a server that does `fault` is counted as, at each door.
async fn ends(fault: &str, expected: [&str; 2], more: &[&str]) {
    let server = null(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts.txt");
    // The first request, before the load, must be answered.
    std::fs::write(&prompts, format!("a circle\nfault:{fault}\n")).unwrap();
    for (door, expected) in doors(&server).iter().zip(expected) {
        let mut arguments = vec![
            "--target",
            door,
            "--rate",
            "200",
            "--duration",
            "200ms",
            "--warmup",
            "0",
            "--seeds",
            "1",
            "--size",
            "16",
        ];
        arguments.extend(["--prompts", prompts.to_str().unwrap()]);
        arguments.extend(more);
        let (outcome, report) = report(&arguments).await;
        assert!(!outcome.passed, "{fault} passed at {door}");
        let counts = &report["counts"];
        let (due, right) = (counts["due"].as_u64().unwrap(), counts["right"].as_u64().unwrap());
        let reasons = report["reasons"].as_object().unwrap();
        let (reason, count) = reasons.iter().next().unwrap();
        assert_eq!(reason, expected, "{fault} at {door}: {report}");
        assert_eq!(
            count.as_u64().unwrap() + right,
            due,
            "{fault} at {door}: {report}"
        );
        assert!(right > 0 && reasons.len() == 1, "{fault} at {door}: {report}");
    }
    server.stop();
}

#[tokio::test]
async fn a_refusal_with_a_delay_is_clean() {
    ends("refuse", ["refused: ResourceExhausted", "refused: 503"], &[]).await;
}

#[tokio::test]
async fn a_refusal_without_one_is_not() {
    let expected = [
        "refused_without_delay: ResourceExhausted",
        "refused_without_delay: 503",
    ];
    ends("bare", expected, &[]).await;
}

#[tokio::test]
async fn an_error_is_a_failure() {
    ends("fail", ["failed: Internal", "failed: 500"], &[]).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_is_lost_in_transport() {
    let expected = [
        "transport: INTERNAL_ERROR",
        "transport: cut: the body did not come whole",
    ];
    ends("cut", expected, &[]).await;
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    ends(
        "silent",
        ["deadline: no answer in time"; 2],
        &["--timeout", "300ms"],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_picture_or_half_of_one_is_wrong() {
    ends("text", ["wrong: no picture"; 2], &[]).await;
    ends("half", ["wrong: does not decode"; 2], &[]).await;
}

#[tokio::test]
async fn a_picture_of_another_size_is_wrong() {
    ends("size", ["wrong: another size"; 2], &[]).await;
}

#[tokio::test]
async fn other_bytes_for_the_same_request_are_wrong_but_where_nobody_promised_the_same() {
    let server = null(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts.txt");
    std::fs::write(&prompts, "fault:differ\n").unwrap();
    for door in doors(&server) {
        let mut arguments = vec![
            "--target",
            &door,
            "--callers",
            "2",
            "--duration",
            "200ms",
            "--seeds",
            "1",
        ];
        arguments.extend(["--prompts", prompts.to_str().unwrap()]);
        let (outcome, differing) = report(&arguments).await;
        assert!(
            !outcome.passed && outcome.text.contains("were wrong"),
            "{}",
            outcome.text
        );
        assert!(
            differing["reasons"]["wrong: differs"].as_u64().unwrap() > 0,
            "{differing}"
        );
        arguments.extend(["--verify", "picture"]);
        let (outcome, _) = report(&arguments).await;
        assert!(outcome.passed, "{}", outcome.text);
    }
    server.stop();
}

#[tokio::test]
async fn a_target_that_is_not_there_is_an_error_that_names_it() {
    let server = null(Behaviour::default()).await;
    let doors = doors(&server);
    server.stop();
    for door in doors {
        let error = run(&["--target", &door, "--callers", "1"])
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&door) && error.contains("connection refused"),
            "{error}"
        );
    }
    for target in [
        "localhost",
        "ftp://localhost:1",
        "http://",
        "https://here",
        "grpcs://",
    ] {
        let error = run(&["--target", target, "--callers", "1"])
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("`{target}` is no address")), "{error}");
    }
}
