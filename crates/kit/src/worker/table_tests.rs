use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn spec(id: &str, max: u32) -> ReplicaSpec {
    ReplicaSpec {
        replica_id: id.to_owned(),
        max_ongoing_requests: max,
        ..ReplicaSpec::default()
    }
}

fn running(id: &str, max: u32) -> Table<&'static str> {
    let mut table = Table::default();
    let Assigned::Load(serial) = table.assign(spec(id, max)) else {
        panic!("not loaded")
    };
    assert_eq!(table.loaded(id, serial, Ok(Arc::new("model"))), None);
    table
}

fn state<R>(table: &Table<R>) -> (ReplicaState, String) {
    let (report, ..) = table.reports(Instant::now()).remove(0);
    (report.state(), report.message)
}

fn from(now: Instant, grace: Duration) -> Drain {
    Drain {
        refuse_from: now,
        until: now + grace,
    }
}

#[test]
fn a_replica_takes_requests_once_it_is_loaded() {
    let mut table = Table::default();
    assert_eq!(table.assign(spec("a", 1)), Assigned::Load(1));
    let now = Instant::now();
    assert_eq!(table.lease("a", now).unwrap_err(), Refused::Starting);
    assert_eq!(table.lease("b", now).unwrap_err(), Refused::Unknown);
    table.loaded("a", 1, Ok(Arc::new(())));
    assert!(table.lease("a", now).is_ok());
    assert_eq!(table.lease("a", now).unwrap_err(), Refused::Full { max: 1 });
    assert!(!table.release("a", 1));
    assert!(table.lease("a", now).is_ok());
}

#[test]
fn the_same_assignment_again_changes_nothing() {
    let mut table = running("a", 1);
    assert_eq!(table.assign(spec("a", 1)), Assigned::Nothing);
    assert_eq!(state(&table).0, ReplicaState::Running);
}

#[test]
fn another_spec_under_a_known_id_is_reported_as_failed_while_what_runs_goes_on() {
    let mut table = running("a", 1);
    let other = ReplicaSpec {
        model: "another".into(),
        ..spec("a", 1)
    };
    assert_eq!(table.assign(other), Assigned::Nothing);
    let (state, message) = state(&table);
    assert_eq!(state, ReplicaState::Failed);
    assert!(message.contains("same id"), "{message}");
    assert!(table.lease("a", Instant::now()).is_ok());
    let (report, ..) = table.reports(Instant::now()).remove(0);
    assert_eq!(report.spec.unwrap().model, "");
}

fn light(version: &str, max: u32) -> LightConfig {
    LightConfig {
        version: version.to_owned(),
        max_ongoing_requests: max,
        user_config: format!("{{\"v\":\"{version}\"}}"),
        ..LightConfig::default()
    }
}

#[test]
fn what_can_change_while_it_runs_changes_without_a_restart() {
    let mut table = running("a", 1);
    let now = Instant::now();
    assert!(table.lease("a", now).is_ok());
    assert!(table.lease("a", now).is_err());
    table.reconfigure("a", light("2", 2));
    assert!(table.lease("a", now).is_ok(), "the limit is in force at once");
    let due = table.due_for_config();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].1, "{\"v\":\"2\"}");
    assert!(table.due_for_config().is_empty(), "it is told once");
    let (report, ..) = table.reports(now).remove(0);
    assert_eq!(
        (report.state(), report.light.as_str()),
        (ReplicaState::Running, "2")
    );
    assert_eq!(report.spec.unwrap().max_ongoing_requests, 2);
    // The same by an assignment, as after a lost stream.
    let again = ReplicaSpec {
        light: Some(light("3", 3)),
        ..spec("a", 3)
    };
    assert_eq!(table.assign(again), Assigned::Nothing);
    assert_eq!(state(&table).0, ReplicaState::Running);
    assert_eq!(table.due_for_config()[0].1, "{\"v\":\"3\"}");
}

#[test]
fn a_replica_that_still_loads_takes_its_config_when_it_runs() {
    let mut table = Table::default();
    table.assign(spec("a", 1));
    table.reconfigure("a", light("2", 5));
    assert!(table.due_for_config().is_empty());
    table.loaded("a", 1, Ok(Arc::new("model")));
    assert_eq!(table.due_for_config().len(), 1);
}

#[test]
fn checks_are_of_running_replicas_and_end_up_in_the_report() {
    let mut table = running("a", 1);
    table.assign(spec("b", 1));
    let now = Instant::now();
    let due = table.due_for_check(now);
    assert_eq!(due.len(), 1);
    assert_eq!(&*due[0].0.id, "a");
    assert_eq!(table.checked(("a", 1), Ok(()), now), Ok(()));
    let (report, ..) = table.reports(now + SECOND).remove(0);
    assert_eq!(report.healthy_ms_ago, Some(1000));
    for _ in 0..2 {
        assert_eq!(table.checked(("a", 1), Err("slow".into()), now), Ok(()));
    }
    assert!(table.checked(("a", 1), Err("slow".into()), now).is_err());
    assert_eq!(
        table.checked(("a", 7), Err("slow".into()), now),
        Ok(()),
        "another life of the same id"
    );
}

#[test]
fn a_replica_that_could_take_no_request_is_refused() {
    let mut table = Table::<()>::default();
    assert_eq!(table.assign(spec("a", 0)), Assigned::Nothing);
    assert!(state(&table).1.contains("max_ongoing_requests"));
}

#[test]
fn one_that_cannot_load_says_why_until_it_is_drained() {
    let mut table = Table::<()>::default();
    table.assign(spec("a", 1));
    table.loaded("a", 1, Err("no unet/model.onnx".to_owned().into()));
    assert_eq!(
        state(&table),
        (ReplicaState::Failed, "no unet/model.onnx".to_owned())
    );
    let now = Instant::now();
    assert_eq!(
        table.lease("a", now).unwrap_err(),
        Refused::Failed("no unet/model.onnx".to_owned())
    );
    table.drain("a", from(now, SECOND));
    assert!(table.is_empty());
}

#[test]
fn an_idle_replica_is_retired_as_soon_as_it_drains() {
    let mut table = running("a", 1);
    let now = Instant::now();
    table.drain("a", from(now, SECOND));
    assert_eq!(table.next_due(), Some(now));
    assert_eq!(table.due(now).len(), 1);
    assert_eq!(table.due(now).len(), 0);
    assert_eq!(state(&table).0, ReplicaState::Stopping);
    table.retired("a", 1);
    assert!(table.is_empty());
}

#[test]
fn a_busy_replica_is_retired_when_its_last_request_ends_or_its_grace_is_over() {
    let now = Instant::now();
    for (at, ended) in [(now, true), (now + SECOND, false)] {
        let mut table = running("a", 2);
        table.lease("a", now).unwrap();
        table.drain("a", from(now, SECOND));
        assert_eq!(table.lease("a", now).unwrap_err(), Refused::Draining);
        assert!(table.due(now).is_empty());
        assert_eq!(table.next_due(), Some(now + SECOND));
        if ended {
            assert!(table.release("a", 1));
        }
        assert_eq!(table.due(at).len(), 1);
    }
}

#[test]
fn a_stopping_worker_takes_requests_until_its_notice_is_over() {
    let now = Instant::now();
    let mut table = running("a", 1);
    table.drain_all(Drain {
        refuse_from: now + SECOND,
        until: now + 5 * SECOND,
    });
    assert_eq!(state(&table).0, ReplicaState::Stopping);
    assert!(table.due(now).is_empty());
    assert!(table.lease("a", now).is_ok());
    table.release("a", 1);
    assert_eq!(table.lease("a", now + SECOND).unwrap_err(), Refused::Draining);
    assert_eq!(table.due(now + SECOND).len(), 1);
}

#[test]
fn a_replica_drained_while_it_loads_is_retired_after_loading() {
    let now = Instant::now();
    let mut table = Table::default();
    table.assign(spec("a", 1));
    table.drain("a", from(now, SECOND));
    assert!(table.due(now).is_empty());
    assert_eq!(table.loaded("a", 1, Ok(Arc::new(()))), None);
    assert_eq!(table.due(now).len(), 1);
}

#[test]
fn a_replica_that_loads_longer_than_its_grace_is_handed_back() {
    let now = Instant::now();
    let mut table = Table::default();
    table.assign(spec("a", 1));
    table.drain("a", from(now, SECOND));
    assert!(table.due(now + SECOND).is_empty());
    assert!(table.is_empty());
    assert!(table.loaded("a", 1, Ok(Arc::new(()))).is_some());
}

#[test]
fn a_lease_of_an_earlier_replica_frees_nothing_of_a_later_one() {
    let now = Instant::now();
    let mut table = running("a", 1);
    let (_, first, _) = table.lease("a", now).unwrap();
    table.drain("a", from(now, Duration::ZERO));
    table.due(now);
    table.retired("a", first);
    table.assign(spec("a", 1));
    table.loaded("a", 2, Ok(Arc::new("model")));
    table.lease("a", now).unwrap();
    table.release("a", first);
    assert_eq!(table.lease("a", now).unwrap_err(), Refused::Full { max: 1 });
}

#[test]
fn a_failed_engine_is_handed_out_once_and_refuses() {
    let mut table = running("a", 1);
    assert!(table.fail("a", 1, "device lost".to_owned().into()).is_some());
    assert!(table.fail("a", 1, "device lost".to_owned().into()).is_none());
    assert_eq!(
        table.lease("a", Instant::now()).unwrap_err(),
        Refused::Failed("device lost".to_owned())
    );
}

#[derive(Clone, Debug)]
enum Step {
    Assign(u8, u32),
    Load(u8, bool),
    Lease(u8),
    Release(usize),
    Drain(u8, u64),
    Fail(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8, 1..3u32).prop_map(|(id, max)| Step::Assign(id, max)),
        (0..3u8, any::<bool>()).prop_map(|(id, ok)| Step::Load(id, ok)),
        (0..3u8).prop_map(Step::Lease),
        (0..8usize).prop_map(Step::Release),
        (0..3u8, 0..50u64).prop_map(|(id, grace)| Step::Drain(id, grace)),
        (0..3u8).prop_map(Step::Fail),
        (0..30u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens in whatever order: limits hold, each loaded replica is handed out for retirement at most once,
    /// and once everything is drained and its grace is over nothing is left and nothing was forgotten.
    #[test]
    fn every_replica_that_was_loaded_is_retired_exactly_once(steps in prop::collection::vec(step(), 0..60)) {
        let mut table: Table<u64> = Table::default();
        let mut now = Instant::now();
        let mut loading: Vec<(String, u64)> = Vec::new();
        let mut leases: Vec<(Arc<str>, u64)> = Vec::new();
        let mut fates: HashMap<u64, u32> = HashMap::new();
        let retire = |fates: &mut HashMap<u64, u32>, replica: &Arc<u64>| *fates.get_mut(replica).unwrap() += 1;
        for step in steps {
            match step {
                Step::Assign(id, max) => {
                    let id = id.to_string();
                    if let Assigned::Load(serial) = table.assign(spec(&id, max)) {
                        loading.push((id, serial));
                    }
                }
                Step::Load(id, ok) => {
                    if let Some(at) = loading.iter().position(|(other, _)| *other == id.to_string()) {
                        let (id, serial) = loading.remove(at);
                        let result = if ok { fates.insert(serial, 0); Ok(Arc::new(serial)) } else { Err(String::new().into()) };
                        if let Some(replica) = table.loaded(&id, serial, result) {
                            retire(&mut fates, &replica);
                        }
                    }
                }
                Step::Lease(id) => {
                    if let Ok((id, serial, _)) = table.lease(&id.to_string(), now) {
                        leases.push((id.clone(), serial));
                        let held = leases.iter().filter(|lease| **lease == (id.clone(), serial)).count();
                        let max = table.entries[&id].light.max_ongoing_requests;
                        prop_assert!(held as u32 <= max);
                    }
                }
                Step::Release(at) if !leases.is_empty() => {
                    let (id, serial) = leases.remove(at % leases.len());
                    table.release(&id, serial);
                }
                Step::Release(_) => {}
                Step::Drain(id, grace) => table.drain(&id.to_string(), from(now, Duration::from_millis(grace))),
                Step::Fail(id) => {
                    let found = table.running().into_iter().find(|running| *running.id == *id.to_string());
                    if let Some(Retiree { id, serial, .. }) = found
                        && let Some(replica) = table.fail(&id, serial, String::new().into())
                    {
                        retire(&mut fates, &replica);
                    }
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
            }
            for retiree in table.due(now) {
                retire(&mut fates, &retiree.replica);
                table.retired(&retiree.id, retiree.serial);
            }
            prop_assert!(table.next_due().is_none_or(|next| next > now));
        }
        table.drain_all(from(now, Duration::ZERO));
        for retiree in table.due(now) {
            retire(&mut fates, &retiree.replica);
            table.retired(&retiree.id, retiree.serial);
        }
        for (id, serial) in loading {
            fates.insert(serial, 0);
            let replica = table.loaded(&id, serial, Ok(Arc::new(serial)));
            retire(&mut fates, &replica.expect("nobody wants it any more"));
        }
        prop_assert!(table.is_empty());
        prop_assert!(fates.values().all(|times| *times == 1), "{:?}", fates);
    }
}
