//! Plans that can be checked by hand.

use super::*;

use Timesteps::{Equal, Mixed};

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Calls of 10 ms, whatever is in them, and a cap.
pub(super) fn group(key: u64, cap: usize) -> Group {
    timed(key, cap, 10)
}

pub(super) fn timed(key: u64, cap: usize, call: u64) -> Group {
    Group {
        key,
        cap,
        weight: 1,
        curve: Curve::new([(1, ms(call)), (64, ms(call))]).unwrap(),
    }
}

/// Ten calls of a pair, no deadline.
pub(super) fn candidate(group: u64, order: u64) -> Candidate {
    Candidate {
        group,
        grid: 0,
        rows: 2,
        calls_left: 10,
        class: Class::Normal,
        deadline: None,
        arrived: ms(order),
        request: order,
        order,
        timestep: 1,
    }
}

fn due(order: u64, deadline: u64) -> Candidate {
    Candidate {
        deadline: Some(ms(deadline)),
        ..candidate(1, order)
    }
}

fn plan(planner: &mut Planner, now: u64, groups: &[Group], candidates: &[Candidate]) -> Vec<usize> {
    let mut chosen = vec![99];
    planner.plan(ms(now), groups, candidates, Mixed, &mut chosen);
    chosen
}

/// What a fresh planner chooses at 100 ms of one group with room for one pair.
fn first(candidates: &[Candidate]) -> usize {
    plan(&mut Planner::default(), 100, &[group(1, 2)], candidates)[0]
}

#[test]
fn nothing_active_gives_no_plan() {
    let mut chosen = vec![99];
    let none = Planner::default().plan(ms(0), &[group(1, 4)], &[], Mixed, &mut chosen);
    assert_eq!((none, chosen.len()), (None, 0));
}

#[test]
fn a_plan_says_its_group_rows_and_cost() {
    let plan = Planner::default().plan(
        ms(0),
        &[timed(1, 8, 20), timed(7, 8, 30)],
        &[
            candidate(7, 0),
            Candidate {
                rows: 1,
                ..candidate(7, 1)
            },
        ],
        Mixed,
        &mut Vec::new(),
    );
    let wanted = Plan {
        group: 7,
        rows: 3,
        cost: ms(30),
        urgent: false,
    };
    assert_eq!(plan, Some(wanted));
}

#[test]
fn rows_of_different_timesteps_share_a_tick_where_the_model_allows_it() {
    let candidates = [0, 1, 2].map(|order| Candidate {
        timestep: [900, 300, 900][order as usize],
        ..candidate(1, order)
    });
    for (timesteps, wanted) in [(Mixed, [0, 1]), (Equal, [0, 2])] {
        let mut chosen = Vec::new();
        Planner::default().plan(ms(0), &[group(1, 4)], &candidates, timesteps, &mut chosen);
        assert_eq!(chosen, wanted);
    }
}

#[test]
fn a_single_row_fills_what_a_pair_leaves() {
    let candidates = [1, 2, 2, 1].map(|rows| Candidate {
        rows,
        ..candidate(1, 0)
    });
    let candidates: Vec<_> = (0..)
        .zip(candidates)
        .map(|(order, one)| Candidate { order, ..one })
        .collect();
    assert_eq!(
        plan(&mut Planner::default(), 0, &[group(1, 4)], &candidates),
        [0, 1, 3]
    );
}

#[test]
fn a_pair_runs_even_where_one_row_is_the_cap() {
    let candidates = [
        candidate(1, 0),
        Candidate {
            rows: 1,
            ..candidate(1, 1)
        },
    ];
    assert_eq!(plan(&mut Planner::default(), 0, &[group(1, 1)], &candidates), [0]);
}

#[test]
fn a_higher_class_comes_before_an_earlier_deadline() {
    let high = Candidate {
        class: Class::High,
        ..due(2, 900)
    };
    let low = Candidate {
        class: Class::Low,
        ..due(0, 300)
    };
    assert_eq!(first(&[low, due(1, 400), high]), 2);
    assert_eq!(first(&[low, due(1, 400)]), 1);
}

#[test]
fn the_earliest_deadline_that_can_be_met_is_first_and_those_without_come_behind() {
    assert_eq!(first(&[candidate(1, 0), due(1, 900), due(2, 800)]), 2);
    // 150 ms cannot be met: 100 ms are left to do and 50 remain.
    assert_eq!(first(&[due(0, 150), candidate(1, 1)]), 1);
    assert_eq!(
        first(&[
            due(0, 150),
            Candidate {
                class: Class::Low,
                ..candidate(1, 1)
            }
        ]),
        1
    );
    assert_eq!(first(&[due(0, 200), candidate(1, 1)]), 0);
}

#[test]
fn of_deadlines_that_cannot_all_be_met_the_longest_steps_back() {
    // Both are possible alone. Together they are not, and the short one can be saved.
    let long = Candidate {
        calls_left: 30,
        ..due(0, 420)
    };
    let short = Candidate {
        calls_left: 3,
        ..due(1, 425)
    };
    assert_eq!(first(&[long, short]), 1);
    // With time for both the earlier deadline is first.
    let short = Candidate {
        calls_left: 3,
        ..due(1, 440)
    };
    assert_eq!(first(&[long, short]), 0);
}

#[test]
fn the_pictures_of_a_request_step_back_together() {
    // Room for one pair: 14 calls fit before 240 ms, and the two pictures with the other request have 16.
    let pictures = [0, 1].map(|order| Candidate {
        request: 0,
        calls_left: 5,
        ..due(order, 240)
    });
    let other = Candidate {
        calls_left: 6,
        ..due(2, 240)
    };
    let mut list = vec![pictures[0], pictures[1], other];
    assert_eq!(
        first(&list),
        2,
        "10 calls step back for 6, though no picture alone has most"
    );
    list[2].calls_left = 4;
    assert_eq!(first(&list), 0, "all fit");
}

#[test]
fn a_loop_that_is_slower_than_its_calls_gives_up_a_deadline_earlier() {
    let mut planner = Planner::default();
    let candidates = [due(0, 250), candidate(1, 1)];
    assert_eq!(plan(&mut planner, 100, &[group(1, 2)], &candidates), [0]);
    for _ in 0..200 {
        planner.elapsed(ms(10), ms(20));
    }
    assert_eq!(plan(&mut planner, 100, &[group(1, 2)], &candidates), [1]);
}

#[test]
fn the_least_work_is_first_until_the_longer_one_has_waited() {
    let long = Candidate {
        calls_left: 50,
        ..candidate(1, 0)
    };
    // 46 calls of 10 ms less, sixteen times over: 7.36 s.
    let short = |arrived| Candidate {
        calls_left: 4,
        arrived: ms(arrived),
        ..candidate(1, 1)
    };
    assert_eq!(first(&[long, short(7300)]), 1);
    assert_eq!(first(&[long, short(7400)]), 0);
}

#[test]
fn age_lifts_the_low_class() {
    let low = Candidate {
        class: Class::Low,
        ..candidate(1, 0)
    };
    let groups = [group(1, 2)];
    // 10 s, and sixteen times the 100 ms that are left.
    for (now, wanted) in [(11_500, 1), (11_700, 0)] {
        let normal = Candidate {
            arrived: ms(now),
            ..candidate(1, 1)
        };
        assert_eq!(
            plan(&mut Planner::default(), now, &groups, &[low, normal]),
            [wanted]
        );
    }
}

#[test]
fn the_oldest_have_one_tick_of_eight_whatever_comes() {
    let mut planner = Planner::default();
    // It came long ago and its deadline has passed; new deadlines of the high class never end.
    let old = due(0, 50);
    let mut ticks = 0;
    for tick in 0..80 {
        let now = 60_000 + tick * 10;
        let new = Candidate {
            class: Class::High,
            arrived: ms(now),
            ..due(1 + tick, now + 500)
        };
        ticks += usize::from(plan(&mut planner, now, &[group(1, 2)], &[old, new]) == [0]);
    }
    assert_eq!(ticks, 10);
}

#[test]
fn groups_take_turns_and_a_new_one_comes_in_the_same_round() {
    let mut planner = Planner::default();
    let groups = [1, 2, 3].map(|key| group(key, 2));
    let mut candidates = vec![candidate(1, 0), candidate(2, 1)];
    assert_eq!(plan(&mut planner, 0, &groups, &candidates), [0]);
    assert_eq!(plan(&mut planner, 0, &groups, &candidates), [1]);
    assert_eq!(plan(&mut planner, 0, &groups, &candidates), [0]);
    candidates.push(candidate(3, 2));
    let mut seen: Vec<_> = (0..3)
        .flat_map(|_| plan(&mut planner, 0, &groups, &candidates))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn large_pictures_get_no_more_time_than_small_ones() {
    let mut planner = Planner::default();
    let groups = [timed(1, 2, 90), timed(2, 2, 10)];
    let candidates = [candidate(1, 0), candidate(2, 1)];
    let small = (0..100)
        .filter(|_| plan(&mut planner, 0, &groups, &candidates) == [1])
        .count();
    assert_eq!(small, 90);
}

#[test]
fn who_leaves_in_debt_comes_back_in_debt() {
    let mut planner = Planner::default();
    let groups = [timed(1, 2, 90), timed(2, 2, 10)];
    let (large, small) = (candidate(1, 0), candidate(2, 1));
    assert_eq!(plan(&mut planner, 0, &groups, &[large, small]), [0]);
    assert_eq!(plan(&mut planner, 0, &groups, &[small]), [0]);
    // 90 ms were spent and 10 of them paid back by the round that began.
    let waits = (0..).take_while(|_| plan(&mut planner, 0, &groups, &[large, small]) == [1]);
    assert_eq!(waits.count(), 8);
    // A group that is no longer listed is forgotten, with its debt.
    assert_eq!(plan(&mut planner, 0, &groups[1..], &[small]), [0]);
    assert_eq!(plan(&mut planner, 0, &groups, &[large, small]), [0]);
}

#[test]
fn an_urgent_deadline_jumps_the_queue_until_its_group_is_in_debt() {
    let mut planner = Planner::default();
    let groups = [timed(1, 2, 100), timed(2, 2, 10)];
    // Group 2 must run without a break, and a call of group 1 would break it.
    let urgent = |left: u32, now: u64| Candidate {
        calls_left: left,
        deadline: Some(ms(now + u64::from(left) * 10 + 5)),
        ..candidate(2, 1)
    };
    let groups_own = [candidate(1, 0), urgent(40, 0)];
    let mut jumps = 0;
    for _ in 0..10 {
        let mut chosen = Vec::new();
        let plan = planner
            .plan(ms(0), &groups, &groups_own, Mixed, &mut chosen)
            .unwrap();
        jumps += usize::from(plan.urgent);
        if plan.group == 1 {
            break;
        }
    }
    assert_eq!(jumps, 4);
    // A deadline that is far away waits for its turn.
    let far = Candidate {
        deadline: Some(ms(5_000)),
        ..candidate(2, 1)
    };
    let plan = Planner::default().plan(ms(0), &groups, &[candidate(1, 0), far], Mixed, &mut Vec::new());
    assert_eq!(plan.map(|plan| (plan.group, plan.urgent)), Some((1, false)));
}

#[test]
fn fifo_runs_a_batch_of_equals_to_its_end() {
    let mut planner = Planner::new(Policy::Fifo);
    let groups = [group(1, 4), group(2, 4)];
    let fast = |order| Candidate {
        grid: 4,
        class: Class::High,
        ..candidate(1, order)
    };
    let mut candidates = vec![
        candidate(1, 0),
        fast(1),
        candidate(1, 2),
        candidate(1, 3),
        candidate(2, 4),
    ];
    assert_eq!(plan(&mut planner, 0, &groups, &candidates), [0, 2]);
    // One of the batch is done; its place stays empty until the other is done too.
    candidates.remove(0);
    assert_eq!(plan(&mut planner, 0, &groups, &candidates), [1]);
    candidates.remove(1);
    assert_eq!(plan(&mut planner, 0, &groups, &candidates), [0]);
    candidates.remove(0);
    assert_eq!(plan(&mut planner, 0, &groups, &candidates), [0]);
    candidates.remove(0);
    assert_eq!(plan(&mut planner, 0, &groups, &candidates), [0]);
}

#[test]
fn work_that_ends_at_the_deadline_is_in_time() {
    assert!(feasible(ms(100), ms(150), ms(50)));
    assert!(!feasible(ms(100), ms(150), ms(51)));
    assert!(!feasible(ms(100), Duration::MAX - ms(1), Duration::MAX));
}
