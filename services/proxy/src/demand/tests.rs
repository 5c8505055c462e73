use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const EVERY: Pace = Pace {
    interval: Duration::from_millis(250),
    look_back: Duration::from_secs(30),
};

fn finished(id: usize) -> pb::FinishedRequest {
    pb::FinishedRequest {
        request_id: id.to_string(),
        ..Default::default()
    }
}

#[test]
fn a_request_counts_from_its_place_to_its_end() {
    let mut tally = Tally::default();
    assert_eq!(tally.demand(1), None, "nobody ever asked");
    let (cost, model) = (Cost::rows(40), Arc::from("xl"));
    tally.enter(Cost::ROW, Some(&model));
    tally.settle(Cost::ROW, cost);
    let demand = tally.demand(500_000_000).unwrap();
    assert_eq!((demand.queued, demand.running, demand.work_s), (1, 0, 20.0));
    assert_eq!(demand.models, [("xl".to_owned(), 1)].into());
    tally.take(cost);
    tally.progress(30);
    let demand = tally.demand(500_000_000).unwrap();
    assert_eq!((demand.queued, demand.running, demand.work_s), (0, 1, 5.0));
    tally.give_back(cost, 10);
    assert_eq!(tally.queued(), 1, "it starts again elsewhere");
    tally.leave(cost, Some(&model));
    let demand = tally.demand(500_000_000).unwrap();
    assert_eq!((demand.queued, demand.running, demand.work_s), (0, 0, 0.0));
    assert!(tally.is_idle() && demand.models.is_empty());
}

#[test]
fn the_newest_requests_that_ended_are_kept() {
    let mut ring = Finished::default();
    for id in 0..FINISHED_MAX + 3 {
        ring.push(finished(id));
    }
    let (kept, dropped) = ring.take();
    assert_eq!((kept.len(), dropped), (FINISHED_MAX, 3));
    assert_eq!(kept[0].request_id, "3");
    assert_eq!(ring.take(), (Vec::new(), 0));
}

#[test]
fn who_finds_no_replica_is_told_of_at_once_and_others_at_the_interval() {
    let mut schedule = Schedule::default();
    assert_eq!(
        schedule.due(Stir::Nothing, EVERY),
        None,
        "silence before anything"
    );
    assert_eq!(schedule.due(Stir::Asked, EVERY), Some(Duration::ZERO));
    schedule.sent(MS * 100, true);
    assert_eq!(schedule.due(Stir::Asked, EVERY), Some(MS * 350));
    assert_eq!(schedule.due(Stir::Cold, EVERY), Some(MS * 110));
    assert_eq!(
        schedule.due(Stir::Nothing, EVERY),
        Some(MS * 350),
        "while it is busy"
    );
    schedule.sent(MS * 350, false);
    assert_eq!(
        schedule.due(Stir::Nothing, EVERY),
        Some(MS * 1350),
        "the controller still looks back on it"
    );
}

#[test]
fn zero_is_told_until_no_load_is_in_the_window_and_then_nothing() {
    let pace = Pace {
        look_back: MS * 5_000,
        ..EVERY
    };
    let mut schedule = Schedule::default();
    schedule.sent(MS * 1_000, false);
    assert_eq!(schedule.due(Stir::Nothing, pace), None, "nobody ever asked");
    schedule.sent(MS * 2_000, true);
    let mut zeros = Vec::new();
    while let Some(due) = schedule.due(Stir::Nothing, pace) {
        schedule.sent(due, false);
        zeros.push(due);
        assert!(zeros.len() < 100, "it ends");
    }
    assert_eq!(zeros[..2], [MS * 2_250, MS * 3_250]);
    let last = *zeros.last().unwrap();
    assert!(
        last >= MS * 7_000,
        "the load is over, and out of the window: {last:?}"
    );
    assert!(last <= MS * 10_000, "{last:?}");
    schedule.sent(MS * 20_000, true);
    assert_eq!(schedule.due(Stir::Nothing, pace), Some(MS * 20_250), "and anew");
}

#[test]
fn a_pace_that_is_not_said_or_is_too_fast_is_a_sensible_one() {
    assert_eq!(Pace::new(0, 0), EVERY);
    assert_eq!(Pace::new(1, 1).interval, GAP);
    assert_eq!(Pace::new(1_000, 2_000).interval, MS * 1_000);
    assert_eq!(Pace::new(1_000, 2_000).look_back, MS * 2_000);
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u64, Option<u8>),
    Take(usize),
    Progress(usize, u64),
    GiveBack(usize),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<u64>(), prop::option::of(0..3u8)).prop_map(|(cost, model)| Step::Enter(cost, model)),
        any::<usize>().prop_map(Step::Take),
        (any::<usize>(), any::<u64>()).prop_map(|(i, rows)| Step::Progress(i, rows)),
        any::<usize>().prop_map(Step::GiveBack),
        any::<usize>().prop_map(Step::Leave),
    ]
}

/// A request as the test knows it: cost, rows left while it runs, model.
type Request = (Cost, Option<u64>, Option<Arc<str>>);

proptest! {
    #[test]
    fn counts_are_those_of_the_requests_there_are(steps in prop::collection::vec(step(), 0..60)) {
        let mut tally = Tally::default();
        let mut there: Vec<Request> = Vec::new();
        for step in steps {
            match step {
                Step::Enter(rows, model) => {
                    let model = model.map(|model| Arc::from(model.to_string()));
                    tally.enter(Cost::rows(rows), model.as_ref());
                    there.push((Cost::rows(rows), None, model));
                }
                Step::Take(i) if !there.is_empty() => {
                    let at = i % there.len();
                    if there[at].1.is_none() {
                        tally.take(there[at].0);
                        there[at].1 = Some(there[at].0.get());
                    }
                }
                Step::Progress(i, rows) if !there.is_empty() => {
                    let at = i % there.len();
                    if let Some(left) = &mut there[at].1 {
                        let done = rows.min(*left);
                        tally.progress(done);
                        *left -= done;
                    }
                }
                Step::GiveBack(i) if !there.is_empty() => {
                    let at = i % there.len();
                    if let Some(left) = there[at].1.take() {
                        tally.give_back(there[at].0, left);
                    }
                }
                Step::Leave(i) if !there.is_empty() => {
                    let (cost, running, model) = there.swap_remove(i % there.len());
                    if let Some(left) = running {
                        tally.give_back(cost, left);
                    }
                    tally.leave(cost, model.as_ref());
                }
                Step::Take(_) | Step::Progress(..) | Step::GiveBack(_) | Step::Leave(_) => {}
            }
            let running = there.iter().filter(|(_, running, _)| running.is_some()).count();
            prop_assert_eq!(tally.running() as usize, running);
            prop_assert_eq!(tally.queued() as usize, there.len() - running);
            let rows: u128 = there.iter().map(|(cost, left, _)| u128::from(left.unwrap_or(cost.get()))).sum();
            prop_assert_eq!(tally.waiting_rows + tally.running_rows, rows);
            let named = there.iter().filter(|(_, _, model)| model.is_some()).count();
            prop_assert_eq!(tally.models.values().sum::<u32>() as usize, named);
            prop_assert_eq!(tally.is_idle(), there.is_empty());
        }
    }

    #[test]
    fn reports_are_never_closer_than_the_gap(stirs in prop::collection::vec((0u8..3, any::<bool>(), 0u64..400), 1..40)) {
        let mut schedule = Schedule::default();
        let (mut now, mut last) = (Duration::ZERO, None);
        for (level, is_busy, passed) in stirs {
            now += MS * u32::try_from(passed).unwrap();
            if let Some(due) = schedule.due(level.into(), EVERY) && due <= now {
                prop_assert!(last.is_none_or(|last| now - last >= GAP));
                schedule.sent(now, is_busy);
                last = Some(now);
            }
        }
    }
}
