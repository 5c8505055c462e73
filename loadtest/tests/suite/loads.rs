//! Loads of every kind, from the command line to the report.

use std::time::Duration;

use mobula_loadtest::null::Behaviour;
use tokio_util::sync::CancellationToken;

use crate::support::{doors, json, null, report, run, run_until};

#[tokio::test]
async fn every_request_of_an_open_loop_is_sent_once_and_answered_rightly() {
    let server = null(Behaviour::default()).await;
    for door in doors(&server) {
        let arguments = [
            "--target",
            &door,
            "--rate",
            "1000",
            "--arrivals",
            "constant",
            "--duration",
            "500ms",
        ];
        let (outcome, report) =
            report(&[&arguments[..], &["--warmup", "100ms", "--threads", "2"]].concat()).await;
        assert!(outcome.passed, "{}", outcome.text);
        // The schedule says how many: at 1,000/s, from 0.1 s to before 0.6 s.
        assert_eq!(
            (&report["counts"]["due"], &report["counts"]["right"]),
            (&500.into(), &500.into()),
            "{report}"
        );
        assert_eq!(report["warm_up"]["right"], 99);
    }
    server.stop();
}

#[tokio::test]
async fn a_server_that_stalls_is_charged_from_when_requests_were_due() {
    // One slot of 50 ms and 10 requests due at once: the tenth waits for nine others, which a client that asks one after the
    // other would never see.
    let behaviour = Behaviour {
        service: Duration::from_millis(50),
        slots: 1,
        queue: 100,
    };
    let server = null(behaviour).await;
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.csv");
    std::fs::write(&trace, "0\n".repeat(10)).unwrap();
    for door in doors(&server) {
        let arguments = [
            "--target",
            &door,
            "--trace",
            trace.to_str().unwrap(),
            "--warmup",
            "0",
            "--slo",
            "120ms",
        ];
        let (outcome, report) = report(&arguments).await;
        assert_eq!(report["counts"]["right"], 10, "{report}");
        assert!(report["latency_ms"]["max"].as_f64().unwrap() >= 500.0, "{report}");
        assert!(
            report["counts"]["good"].as_u64().unwrap() <= 2 && !outcome.passed,
            "{report}"
        );
    }
    server.stop();
}

#[tokio::test]
async fn more_than_a_server_can_take_is_refused_and_told_apart() {
    let behaviour = Behaviour {
        service: Duration::from_millis(20),
        slots: 1,
        queue: 1,
    };
    let server = null(behaviour).await;
    for door in doors(&server) {
        let (_, report) = report(&[
            "--target",
            &door,
            "--rate",
            "500",
            "--duration",
            "300ms",
            "--warmup",
            "0",
        ])
        .await;
        let counts = &report["counts"];
        assert!(
            counts["refused"].as_u64().unwrap() > 0 && counts["transport"] == 0,
            "{report}"
        );
        assert_eq!(report["refusal_ms"]["count"], counts["refused"]);
    }
    server.stop();
}

#[tokio::test]
async fn what_may_not_be_in_flight_is_not_sent_and_not_good() {
    let behaviour = Behaviour {
        service: Duration::from_millis(200),
        slots: 0,
        queue: 0,
    };
    let server = null(behaviour).await;
    for door in doors(&server) {
        let arguments = [
            "--target",
            &door,
            "--rate",
            "200",
            "--duration",
            "300ms",
            "--warmup",
            "0",
        ];
        let (outcome, report) = report(&[&arguments[..], &["--max-in-flight", "3"]].concat()).await;
        let counts = &report["counts"];
        let [due, unsent, good] = ["due", "unsent", "good"].map(|name| counts[name].as_u64().unwrap());
        assert!(unsent > 0 && unsent + good == due && !outcome.passed, "{report}");
    }
    server.stop();
}

#[tokio::test]
async fn a_mix_is_reported_class_by_class() {
    let server = null(Behaviour::default()).await;
    for door in doors(&server) {
        let arguments = [
            "--target",
            &door,
            "--callers",
            "4",
            "--duration",
            "200ms",
            "--seeds",
            "4",
        ];
        let classes = [
            "--class",
            "name=big,weight=1,size=64,priority=low,slo=10s",
            "--class",
            "name=small,weight=3,size=16",
        ];
        let (outcome, report) = report(&[&arguments[..], &classes].concat()).await;
        assert!(outcome.passed, "{}", outcome.text);
        let due = |index: usize| report["classes"][index]["counts"]["due"].as_u64().unwrap();
        assert_eq!(report["classes"][0]["name"], "big");
        assert!(
            due(0) > 0 && due(1) > due(0) && report["counts"]["due"] == due(0) + due(1),
            "{report}"
        );
    }
    server.stop();
}

#[tokio::test]
async fn two_targets_take_turns_and_their_ratio_is_told_with_its_spread() {
    let fast = null(Behaviour::default()).await;
    let slow = null(Behaviour {
        service: Duration::from_millis(20),
        slots: 1,
        queue: 10,
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (page, numbers) = (folder.path().join("page.html"), folder.path().join("report.json"));
    let arguments = [
        "--target",
        &doors(&fast)[0],
        "--compare",
        &doors(&slow)[1],
        "--callers",
        "2",
        "--duration",
        "200ms",
        "--rounds",
        "3",
        "--html",
        page.to_str().unwrap(),
        "--json",
        numbers.to_str().unwrap(),
    ];
    let outcome = run(&arguments).await.unwrap();
    assert!(
        outcome.passed && outcome.text.contains("a / b"),
        "{}",
        outcome.text
    );
    let report = json(&numbers);
    assert_eq!(report["rounds"].as_array().unwrap().len(), 3);
    let rate = &report["ratios"][0]["spread"];
    let [low, mean, high] = ["low", "mean", "high"].map(|name| rate[name].as_f64().unwrap());
    // 50 pictures a second on one side, as many as the machine can on the other.
    assert!(mean > 1.0 && low <= mean && mean <= high, "{rate}");
    assert!(std::fs::read_to_string(page).unwrap().contains("<svg"));
    fast.stop();
    slow.stop();
}

#[tokio::test]
async fn a_run_that_is_stopped_reports_what_was_done() {
    let server = null(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let numbers = folder.path().join("report.json");
    for door in doors(&server) {
        let stop = CancellationToken::new();
        let arguments = [
            "--target",
            &door,
            "--rate",
            "500",
            "--duration",
            "1h",
            "--warmup",
            "0",
            "--json",
            numbers.to_str().unwrap(),
        ];
        let stopped = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stop.cancel();
        };
        let (outcome, ()) = tokio::join!(run_until(&arguments, &stop), stopped);
        assert!(outcome.unwrap().text.contains("stopped before its end"));
        let report = json(&numbers);
        assert_eq!(report["interrupted"], true);
        assert!(report["seconds"].as_f64().unwrap() < 600.0, "{report}");
        assert_eq!(report["counts"]["due"], report["counts"]["right"], "{report}");
    }
    server.stop();
}

#[tokio::test]
async fn a_sweep_finds_a_rate_between_nothing_and_more_than_there_is() {
    // Two slots of 10 ms: 200 pictures a second, and not one more.
    let server = null(Behaviour {
        service: Duration::from_millis(10),
        slots: 2,
        queue: 4,
    })
    .await;
    let arguments = [
        "sweep",
        "--target",
        &doors(&server)[0],
        "--from",
        "400",
        "--duration",
        "300ms",
        "--warmup",
        "0",
        "--pause",
        "0",
        "--require",
        "80",
        "--precision",
        "50",
    ];
    let (outcome, report) = report(&arguments).await;
    // Above, it cannot have 80 % good answers; how far below depends on the machine.
    let capacity = report["capacity"].as_f64().unwrap();
    assert!(
        outcome.passed && capacity > 0.0 && capacity <= 400.0,
        "{}",
        outcome.text
    );
    assert_eq!(report["points"][0]["passed"], false, "{report}");
    server.stop();
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_by_name() {
    for (arguments, names) in [
        (&["--rate", "0"][..], "rate"),
        (&["--stages", "x"], "`x`"),
        (&["--callers", "1", "--class", "size"], "`size`"),
        (&["--trace", "/nowhere"], "/nowhere"),
        (&["--callers", "1", "--seeds", "1000000"], "--seeds"),
        (&["--rate", "1", "--cv", "0"], "--cv 0"),
        (&["--rate", "1", "--duration", "0"], "--duration 0"),
        (&["sweep", "--require", "101"], "--require 101"),
    ] {
        let error = run(arguments).await.unwrap_err().to_string();
        assert!(error.contains(names), "{arguments:?}: {error}");
    }
}
