//! Whatever happens in whatever order: the invariants of [`World::check`] hold, and once the trouble is over the
//! application runs again.

use mobula_proto::control::v1::{ApplicationState, ReplicaState, WorkerKind};
use proptest::prelude::*;

use super::{super::*, world::*};

#[derive(Clone, Debug)]
enum Step {
    Silence(usize, bool),
    Break(usize, bool),
    Dial(usize),
    Report(usize, usize, i32),
    Forget(usize),
    Kill(usize),
    RestartController,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = 0_usize..5;
    let step = prop_oneof![
        (worker.clone(), any::<bool>()).prop_map(|(w, on)| Step::Silence(w, on)),
        (worker.clone(), any::<bool>()).prop_map(|(w, closed)| Step::Break(w, closed)),
        worker.clone().prop_map(Step::Dial),
        (worker.clone(), 0_usize..4, 0..6).prop_map(|(w, replica, state)| Step::Report(w, replica, state)),
        worker.clone().prop_map(Step::Forget),
        worker.prop_map(Step::Kill),
        Just(Step::RestartController),
        (1_u64..5_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..40)
}

fn id(worker: usize) -> String {
    format!("w{worker}")
}

fn kind(worker: usize) -> WorkerKind {
    if worker == 0 {
        WorkerKind::Preprocess
    } else {
        WorkerKind::Inference
    }
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Silence(w, on) => {
            if let Some(worker) = world.workers.get_mut(&id(w)) {
                worker.silent = on;
            }
        }
        Step::Break(w, closed) if world.workers.contains_key(&id(w)) => {
            world.lose(&id(w), if closed { End::Closed } else { End::Cut });
        }
        Step::Dial(w) if world.workers.contains_key(&id(w)) => world.hello(&id(w)),
        Step::Dial(w) => world.add(&id(w), kind(w), 2.0),
        Step::Report(w, replica, state) => {
            if let Some(worker) = world.workers.get_mut(&id(w))
                && let Some(report) = worker.replicas.values_mut().nth(replica)
            {
                report.state = state;
            }
            if world.workers.contains_key(&id(w)) {
                world.heartbeat(&id(w));
            }
        }
        Step::Forget(w) => {
            if let Some(worker) = world.workers.get_mut(&id(w)) {
                worker.replicas.clear();
            }
        }
        Step::Kill(w) => drop(world.workers.remove(&id(w))),
        Step::RestartController => world.restart_controller(external(), schema(3)),
        Step::Pass(time) => world.run(ms(time)),
        Step::Break(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_trouble_breaks_the_books_and_when_it_is_over_everything_runs(steps in steps()) {
        let mut world = World::settled(3);
        for w in 0..4 {
            world.add(&id(w), kind(w), 2.0);
        }
        for step in steps {
            take(&mut world, step);
            world.settle();
        }
        for w in 0..4 {
            world.workers.remove(&id(w));
        }
        // Those that are gone lose their leases; then new ones come, and every backoff ends.
        world.run(Duration::from_secs(4));
        for w in 0..4 {
            let name = format!("new{w}");
            world.add(&name, kind(w), 4.0);
            world.workers.get_mut(&name).unwrap().outcome = (ReplicaState::Running, "");
        }
        world.run(Duration::from_secs(35));
        prop_assert_eq!(world.application().0, ApplicationState::Running);
    }
}
