//! What every plan and every run of plans keeps.

use proptest::prelude::*;

use super::tests::{candidate, group, timed};
use super::*;

const NOW: Duration = Duration::from_secs(100);

fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Low), Just(Class::Normal), Just(Class::High)]
}

/// Candidates of so many groups, around `NOW`.
fn candidates(groups: u64) -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        (0..groups, 0..3_u64, 1..=2_usize, 1..60_u32),
        (class(), prop::option::of(0..4000_u64), 0..40_000_u64, 0..3_u32),
    );
    prop::collection::vec(one, 0..40).prop_map(|list| {
        let numbered = (0..).zip(list);
        numbered
            .map(
                |(order, ((group, grid, rows, calls_left), (class, deadline, age, timestep)))| Candidate {
                    group,
                    grid,
                    rows,
                    calls_left,
                    class,
                    deadline: deadline.map(|left| NOW + millis(left) - millis(500)),
                    arrived: NOW - millis(age),
                    request: order / 2,
                    order,
                    timestep,
                },
            )
            .collect()
    })
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    prop::collection::vec((1..12_usize, 1..4_u32, 1..100_u64), 4..=4).prop_map(|list| {
        let made = (0..).zip(list);
        made.map(|(key, (cap, weight, call))| Group {
            weight,
            ..timed(key, cap, call)
        })
        .collect()
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::default()), Just(Policy::Fifo)]
}

fn timesteps() -> impl Strategy<Value = Timesteps> {
    prop_oneof![Just(Timesteps::Mixed), Just(Timesteps::Equal)]
}

proptest! {
    #[test]
    fn every_plan_keeps_the_invariants(
        groups in groups(), list in candidates(4), policy in policy(), timesteps in timesteps(),
    ) {
        let mut chosen = Vec::new();
        let plan = Planner::new(policy).plan(NOW, &groups, &list, timesteps, &mut chosen);
        prop_assert_eq!(plan.is_none(), list.is_empty());
        prop_assert_eq!(plan.is_none(), chosen.is_empty());
        let Some(plan) = plan else { return Ok(()) };
        prop_assert!(chosen.windows(2).all(|two| two[0] < two[1]), "each once, in order");
        let rows: usize = chosen.iter().map(|index| list[*index].rows).sum();
        prop_assert_eq!(rows, plan.rows);
        prop_assert!(rows <= groups[plan.group as usize].cap || chosen.len() == 1);
        for index in &chosen {
            prop_assert_eq!(list[*index].group, plan.group);
            prop_assert!(timesteps == Timesteps::Mixed || list[*index].timestep == list[chosen[0]].timestep);
        }
        // Nobody who fits is left out of a step's call.
        if policy != Policy::Fifo && timesteps == Timesteps::Mixed {
            for (index, one) in list.iter().enumerate() {
                let fits = one.group == plan.group && rows + one.rows <= groups[plan.group as usize].cap;
                prop_assert!(!fits || chosen.contains(&index));
            }
        }
    }

    #[test]
    fn everyone_finishes_and_the_same_input_gives_the_same_plans(
        groups in groups(), list in candidates(4), policy in policy(), timesteps in timesteps(),
    ) {
        let mut planners = [Planner::new(policy), Planner::new(policy)];
        let (mut now, mut left) = (NOW, list);
        let mut most: u32 = left.iter().map(|one| one.calls_left).sum();
        let (mut chosen, mut again) = (Vec::new(), Vec::new());
        while !left.is_empty() {
            let plan = planners[0].plan(now, &groups, &left, timesteps, &mut chosen);
            let twin = planners[1].plan(now, &groups, &left, timesteps, &mut again);
            prop_assert_eq!(plan, twin);
            prop_assert_eq!(&chosen, &again);
            now += plan.unwrap().cost;
            for index in &chosen {
                left[*index].calls_left -= 1;
                left[*index].timestep += 10;
                most -= 1;
            }
            left.retain(|one| one.calls_left > 0);
        }
        prop_assert_eq!(most, 0);
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(list in candidates(1), cap in 1..12_usize) {
        let orders = |list: &[Candidate]| {
            let mut chosen = Vec::new();
            Planner::default().plan(NOW, &[group(0, cap)], list, Timesteps::Mixed, &mut chosen);
            let mut orders: Vec<_> = chosen.iter().map(|index| list[*index].order).collect();
            orders.sort_unstable();
            orders
        };
        let backwards: Vec<_> = list.iter().rev().copied().collect();
        prop_assert_eq!(orders(&list), orders(&backwards));
    }

    /// While all groups have work, their time by weight differs by no more than the ring allows and a jump may take ahead.
    #[test]
    fn groups_share_the_device_by_weight(groups in groups(), urgent in any::<bool>(), ticks in 20..400_usize) {
        let mut planner = Planner::default();
        let (mut now, mut chosen) = (NOW, Vec::new());
        let (mut spent, mut since) = ([0.0_f64; 4], [0.0_f64; 4]);
        let costs: Vec<f64> = groups.iter().map(|one| one.curve.predict(2).as_secs_f64()).collect();
        let longest = costs.iter().copied().fold(0.0, f64::max);
        let weights: Vec<f64> = groups.iter().map(|one| f64::from(one.weight)).collect();
        for _ in 0..ticks {
            let list: Vec<_> = (0..4)
                .map(|key| Candidate {
                    rows: 1,
                    // Always on the edge, for the first two groups.
                    deadline: (urgent && key < 2).then(|| now + groups[key as usize].curve.predict(1) * 10 + millis(1)),
                    ..candidate(key, key)
                })
                .collect();
            let plan = planner.plan(now, &groups, &list, Timesteps::Mixed, &mut chosen).unwrap();
            now += plan.cost;
            let key = plan.group as usize;
            spent[key] += costs[key];
            for (other, wait) in since.iter_mut().enumerate() {
                *wait = if other == key { 0.0 } else { *wait + costs[key] };
                // All others have one turn each, and each a debt's worth of jumps, and it may have such a debt to pay.
                let others: f64 = (0..4).filter(|one| *one != other).map(|one| costs[one] * 6.0 + longest * weights[one]).sum();
                let debts = 5.0 * costs[other] / weights[other] * weights.iter().sum::<f64>();
                prop_assert!(*wait <= others + debts, "group {} waited {}", other, wait);
            }
        }
        for left in 0..4 {
            for right in 0..4 {
                let ahead = spent[left] / weights[left] - spent[right] / weights[right];
                let jumps = if urgent { DEBT_CALLS as f64 } else { 0.0 };
                let bound = 2.0 * longest + (1.0 + jumps) * (costs[left] / weights[left] + costs[right] / weights[right]);
                prop_assert!(ahead <= bound + 1e-9, "{:?} {:?}", spent, costs);
            }
        }
    }

    /// A group that always has work waits for one turn of each other, and while its own last call is paid, whoever comes
    /// and goes.
    #[test]
    fn no_group_starves_while_others_come_and_go(groups in groups(), active in prop::collection::vec(0..8_u64, 10..300)) {
        let mut planner = Planner::default();
        let mut chosen = Vec::new();
        let cost = |group: &Group| group.curve.predict(2).as_secs_f64();
        let longest = groups.iter().map(cost).fold(0.0, f64::max);
        let others: f64 = groups[1..].iter().map(|one| f64::from(one.weight) * longest + cost(one)).sum();
        let weights: f64 = groups[1..].iter().map(|one| f64::from(one.weight)).sum();
        let bound = others + cost(&groups[0]) / f64::from(groups[0].weight) * weights;
        let mut wait = 0.0;
        for mask in active {
            let list: Vec<_> = (0..4)
                .filter(|key| *key == 0 || mask & (1 << (key - 1)) != 0)
                .map(|key| candidate(key, key))
                .collect();
            let plan = planner.plan(NOW, &groups, &list, Timesteps::Mixed, &mut chosen).unwrap();
            wait = if plan.group == 0 { 0.0 } else { wait + plan.cost.as_secs_f64() };
            prop_assert!(wait <= bound + 1e-9, "{} of {}", wait, bound);
        }
    }

    /// Who came `stretch` times the time it needs before another, of the same class and without a deadline, is never behind it.
    #[test]
    fn nobody_who_comes_late_enough_overtakes(
        calls in 1..60_u32, late in 0..10_000_u64, others in prop::collection::vec((1..60_u32, 0..30_000_u64), 1..30),
        cap in 1..8_usize,
    ) {
        let cap = cap * 2;
        let first = Candidate { calls_left: calls, arrived: NOW, ..candidate(0, 0) };
        let bound = millis(10) * calls * Steps::default().stretch;
        let others = (1..).zip(others).map(|(order, (calls_left, after))| Candidate {
            calls_left,
            arrived: NOW + millis(after),
            ..candidate(0, order)
        });
        let list: Vec<_> = std::iter::once(first).chain(others).collect();
        let now = NOW + millis(late);
        let list: Vec<_> = list.into_iter().filter(|one| one.arrived <= now).collect();
        let mut chosen = Vec::new();
        Planner::default().plan(now, &[group(0, cap)], &list, Timesteps::Mixed, &mut chosen);
        let runs = chosen.contains(&0);
        prop_assert!(runs || chosen.iter().all(|index| list[*index].arrived <= NOW + bound));
    }

    /// Of two deadlines of a class that can be met, the earlier is behind only when not all of them can be met together.
    #[test]
    fn an_earlier_deadline_that_can_be_met_is_not_behind_a_later_one(list in candidates(1), cap in 1..12_usize) {
        // One size of row, so that nobody is passed over for not fitting.
        let list: Vec<_> = list.into_iter().map(|one| Candidate { rows: 1, ..one }).collect();
        let mut chosen = Vec::new();
        Planner::default().plan(NOW, &[group(0, cap)], &list, Timesteps::Mixed, &mut chosen);
        let call = millis(10);
        let met = |one: &&Candidate| one.deadline.is_none_or(|due| feasible(NOW, due, call * one.calls_left));
        let width = cap.min(list.len()) as u32;
        for class in [Class::Low, Class::Normal, Class::High] {
            let mine = || list.iter().filter(met).filter(move |one| one.class == class && one.deadline.is_some());
            // Those without a deadline that age has lifted count as a higher class: here all of them do.
            let above = list.iter().filter(met).filter(|one| one.class > class || one.deadline.is_none());
            let above: u32 = above.map(|one| one.calls_left).sum();
            let together = mine().all(|last| {
                let work: u32 = mine().filter(|one| one.deadline <= last.deadline).map(|one| one.calls_left).sum();
                Some(NOW + call * (work + above) / width) <= last.deadline
            });
            if !together {
                continue;
            }
            let latest = chosen.iter().map(|index| &list[*index]);
            let latest = latest.filter(|one| mine().any(|other| other.order == one.order)).map(|one| one.deadline).max();
            for (index, one) in list.iter().enumerate() {
                let waits = !chosen.contains(&index) && mine().any(|other| other.order == one.order);
                prop_assert!(!waits || latest.is_none_or(|latest| one.deadline >= latest));
            }
        }
    }
}
