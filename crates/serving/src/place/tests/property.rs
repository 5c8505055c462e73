//! The module's invariants on random problems, and feasibility against trying everything.

use proptest::prelude::*;

use super::{
    super::{
        Strategy,
        keep::{self, Standing},
        room::Shape,
    },
    model::{check, placements, problems, sharing, small, spread_out},
    *,
};

/// Tries every way to place `missing` (of one group), and returns the most that can be placed at once.
struct Search<'a> {
    shape: &'a Shape<'a>,
    group: &'a Group,
    most: usize,
}

impl Search<'_> {
    /// Whether each of `missing` can be placed, all at once.
    fn all(shape: &Shape<'_>, standing: &Standing, missing: &[usize]) -> bool {
        Self::most(shape, standing, missing, false) == missing.len()
    }

    /// The most of `missing` that can be placed; with `some`, not only all or none.
    fn most(shape: &Shape<'_>, standing: &Standing, missing: &[usize], some: bool) -> usize {
        let mut search = Search {
            shape,
            group: &shape.problem.groups[0],
            most: 0,
        };
        let mut rooms = standing.rooms.clone();
        let mut places = standing.placement[0].clone();
        search.step(&mut rooms, &mut places, missing, some, 0);
        search.most
    }

    fn step(
        &mut self,
        rooms: &mut Vec<super::super::room::Room>,
        places: &mut Vec<Option<usize>>,
        missing: &[usize],
        some: bool,
        placed: usize,
    ) {
        let Some((replica, rest)) = missing.split_first() else {
            self.most = self.most.max(placed);
            return;
        };
        for worker in 0..rooms.len() {
            if self.shape.allows(self.group, worker) && self.keeps_limits(places, *replica, worker) {
                let before = rooms[worker].clone();
                if rooms[worker].count(&self.shape.needs[0]) > 0 {
                    rooms[worker].put(&self.shape.needs[0]).unwrap();
                    places[*replica] = Some(worker);
                    self.step(rooms, places, rest, some, placed + 1);
                    places[*replica] = None;
                    rooms[worker] = before;
                }
            }
        }
        if some {
            self.step(rooms, places, rest, some, placed);
        }
    }

    /// True if the replica may go there, as far as the others are placed.
    fn keeps_limits(&self, places: &[Option<usize>], replica: usize, worker: usize) -> bool {
        let node = |worker: usize| self.shape.problem.workers[worker].node;
        let on = |places: &[Option<usize>]| {
            places
                .iter()
                .flatten()
                .filter(|w| node(**w) == node(worker))
                .count()
        };
        let scope = if self.group.gang > 1 {
            self.group.gang
        } else {
            places.len()
        };
        let own =
            &places[replica / scope * scope..(replica / scope + 1).saturating_mul(scope).min(places.len())];
        on(places) < self.group.per_node.unwrap_or(usize::MAX)
            && match self.group.strategy {
                Strategy::StrictPack => own.iter().flatten().all(|w| node(*w) == node(worker)),
                Strategy::StrictSpread => on(own) == 0,
                Strategy::Default | Strategy::Pack | Strategy::Spread => true,
            }
    }
}

/// The replicas without a place, gang by gang; those that are too few for one are left out.
fn missing(group: &Group, places: &[Option<usize>]) -> Vec<Vec<usize>> {
    let size = group.gang.max(1);
    let gangs = (0..group.replicas / size).map(|gang| {
        (gang * size..(gang + 1) * size)
            .filter(|replica| places[*replica].is_none())
            .collect()
    });
    gangs.filter(|missing: &Vec<usize>| !missing.is_empty()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn nothing_is_given_twice_or_to_whom_it_must_not_be(problem in problems(true), previous in placements()) {
        let solution = solve(&problem, &previous);
        check(&problem, &previous, &solution);
    }

    #[test]
    fn the_same_question_has_the_same_answer(problem in problems(true), previous in placements()) {
        prop_assert_eq!(solve(&problem, &previous), solve(&problem, &previous));
    }

    #[test]
    fn solving_a_solution_again_changes_nothing(problem in problems(false), previous in placements()) {
        let first = solve(&problem, &previous);
        let second = solve_at(&problem, &first.placement, &first.devices);
        prop_assert_eq!(&first.placement, &second.placement);
        prop_assert_eq!(&first.devices, &second.devices);
    }

    #[test]
    fn what_is_placed_stays_even_if_nobody_knows_its_gpus(problem in problems(true), previous in placements()) {
        let first = solve(&problem, &previous);
        let second = solve(&problem, &first.placement);
        check(&problem, &first.placement, &second);
        for (first, second) in first.placement.iter().flatten().zip(second.placement.iter().flatten()) {
            prop_assert!(first.is_none() || first == second);
        }
    }

    #[test]
    fn the_loss_of_a_worker_moves_its_replicas_only(problem in problems(true), lost in 0_usize..8) {
        let before = solve(&problem, &Vec::new());
        let mut smaller = problem;
        if let Some(worker) = smaller.workers.get_mut(lost) {
            worker.room = Some(0);
        }
        let after = solve_at(&smaller, &before.placement, &before.devices);
        check(&smaller, &before.placement, &after);
        for (g, places) in before.placement.iter().enumerate() {
            for (i, place) in places.iter().enumerate() {
                if place.is_some() && *place != Some(lost) {
                    prop_assert_eq!(place, &after.placement[g][i]);
                    prop_assert_eq!(&before.devices[g][i], &after.devices[g][i]);
                }
            }
        }
    }

    #[test]
    fn a_new_worker_moves_nothing(problem in problems(true), another in problems(true)) {
        let before = solve(&problem, &Vec::new());
        let mut larger = problem;
        larger.workers.extend(another.workers);
        let after = solve_at(&larger, &before.placement, &before.devices);
        check(&larger, &before.placement, &after);
        for (before, after) in before.placement.iter().flatten().zip(after.placement.iter().flatten()) {
            prop_assert!(before.is_none() || before == after);
        }
    }

    #[test]
    fn a_group_that_could_be_placed_is_placed(problem in small(), previous in placements()) {
        let shape = Shape::of(&problem);
        let group = &problem.groups[0];
        let before = keep::keep(&shape, &previous, &Vec::new());
        let solution = solve(&problem, &previous);
        check(&problem, &previous, &solution);
        let gangs = missing(group, &before.placement[0]);
        let all = gangs.concat();
        let left = missing(group, &solution.placement[0]).concat();
        if Search::all(&shape, &before, &all) {
            prop_assert!(left.is_empty(), "{left:?} of {all:?} are left out, and all would fit");
        }
        // Those that stand alone: as many as can be at all.
        let joins = before.placement[0].iter().any(Option::is_some);
        if group.gang <= 1 && (group.strategy != Strategy::StrictPack || joins) {
            prop_assert_eq!(all.len() - left.len(), Search::most(&shape, &before, &all, true));
        }
    }

    #[test]
    fn strictly_spread_gangs_are_all_placed_if_they_can_be((problem, previous) in spread_out()) {
        let shape = Shape::of(&problem);
        let before = keep::keep(&shape, &previous, &Vec::new());
        let solution = solve(&problem, &previous);
        check(&problem, &previous, &solution);
        let all = missing(&problem.groups[0], &before.placement[0]);
        let left = missing(&problem.groups[0], &solution.placement[0]);
        if !left.is_empty() {
            prop_assert!(!Search::all(&shape, &before, &all.concat()), "{left:?} are left out, and all would fit");
        }
        let after = keep::keep(&shape, &solution.placement, &Vec::new());
        for gang in &left {
            prop_assert!(!Search::all(&shape, &after, gang), "{gang:?} would fit");
        }
    }

    #[test]
    fn what_came_one_by_one_stays_even_if_nobody_knows_its_gpus((mut problem, arrivals) in sharing()) {
        let mut solution = solve(&problem, &Vec::new());
        for group in arrivals {
            problem.groups[group].replicas += 1;
            solution = solve_at(&problem, &solution.placement, &solution.devices);
            check(&problem, &solution.placement, &solution);
        }
        let unknown = solve(&problem, &solution.placement);
        check(&problem, &solution.placement, &unknown);
        for (before, after) in solution.placement.iter().flatten().zip(unknown.placement.iter().flatten()) {
            prop_assert!(before.is_none() || before == after);
        }
    }

    #[test]
    fn no_gang_that_would_still_fit_is_left_over(problem in small(), previous in placements()) {
        let solution = solve(&problem, &previous);
        let shape = Shape::of(&problem);
        let after = keep::keep(&shape, &solution.placement, &solution.devices);
        prop_assert_eq!(&after.placement, &solution.placement);
        let group = &problem.groups[0];
        let together = group.gang <= 1 && group.strategy == Strategy::StrictPack
            && solution.placement[0].iter().all(Option::is_none);
        let gangs = missing(group, &solution.placement[0]);
        let left = if together { vec![gangs.concat()] } else { gangs };
        for gang in left.iter().filter(|gang| !gang.is_empty()) {
            prop_assert!(!Search::all(&shape, &after, gang), "{gang:?} would fit");
        }
    }

    #[test]
    fn groups_after_one_another_leave_nothing_over_that_would_fit(problem in problems(false), previous in placements()) {
        let solution = solve(&problem, &previous);
        for (g, group) in problem.groups.iter().enumerate() {
            let gangs = missing(group, &solution.placement[g]);
            // Alone with what all others hold: the groups before it in the problem, each at its place.
            let mut order: Vec<usize> = (0..problem.groups.len()).collect();
            order.swap(0, g);
            let alone = Problem {
                workers: problem.workers.clone(),
                groups: order.iter().map(|g| problem.groups[*g].clone()).collect(),
            };
            let shape = Shape::of(&alone);
            let pick = |all: &Placement| order.iter().map(|g| all[*g].clone()).collect::<Placement>();
            let devices: Devices = order.iter().map(|g| solution.devices[*g].clone()).collect();
            let after = keep::keep(&shape, &pick(&solution.placement), &devices);
            let together = group.gang <= 1 && group.strategy == Strategy::StrictPack
                && solution.placement[g].iter().all(Option::is_none);
            let left = if together { vec![gangs.concat()] } else { gangs };
            for gang in left.iter().filter(|gang| !gang.is_empty()) {
                prop_assert!(!Search::all(&shape, &after, gang), "{gang:?} of group {g} would fit");
            }
        }
    }

    #[test]
    fn a_fraction_survives_the_way_to_units_and_back(hundredths in 0_u32..100_000) {
        let amount = f64::from(hundredths) / 100.0;
        prop_assert!((fraction(units(amount)) - amount).abs() < 1e-9);
    }
}
