//! Whatever happens in whatever order: the invariants of [`World::check`] and [`World::check_stops`] hold, and once the
//! trouble is over everything runs as it was last asked for.

use mobula_proto::control::v1::{ApplicationState, ReplicaState, WorkerKind};
use mobula_schema::Count;
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
    Spoil(usize, Option<usize>),
    RestartController,
    Deploy(Wanted),
    Ask(u32, u32),
    Gone,
    Pass(u64),
}

/// An intent in few numbers.
#[derive(Clone, Debug)]
struct Wanted {
    model: usize,
    count: u32,
    scaled: bool,
    limit: u32,
    second: bool,
    capacity: bool,
}

const MODELS: [&str; 3] = ["fake", "next", "other"];

impl Wanted {
    fn first() -> Self {
        Self {
            model: 0,
            count: 3,
            scaled: false,
            limit: 8,
            second: false,
            capacity: false,
        }
    }

    fn intent(&self) -> Intent {
        let mut intent = if self.scaled {
            let mut intent = auto(self.count.min(1), self.count.max(1));
            let pipeline = &mut intent.config.applications[0].deployments[1];
            pipeline.model = MODELS[self.model].into();
            intent
        } else {
            model(self.count, MODELS[self.model])
        };
        intent.config.applications[0].deployments[1].max_ongoing_requests = self.limit;
        if self.second {
            let mut second = intent.config.applications[0].clone();
            second.name = "second".into();
            second.route_prefix = Some("/second".into());
            second.deployments[1].count = Count::Fixed(1);
            intent.config.applications.push(second);
        }
        intent.config.options.target_capacity = self.capacity.then_some(50.0);
        intent
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (
        0_usize..3,
        0_u32..5,
        any::<bool>(),
        7_u32..9,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(model, count, scaled, limit, second, capacity)| Wanted {
            model,
            count,
            scaled,
            limit,
            second,
            capacity,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = 0_usize..5;
    let step = prop_oneof![
        (worker.clone(), any::<bool>()).prop_map(|(w, on)| Step::Silence(w, on)),
        (worker.clone(), any::<bool>()).prop_map(|(w, closed)| Step::Break(w, closed)),
        worker.clone().prop_map(Step::Dial),
        (worker.clone(), 0_usize..4, 0..6).prop_map(|(w, replica, state)| Step::Report(w, replica, state)),
        worker.clone().prop_map(Step::Forget),
        worker.clone().prop_map(Step::Kill),
        (worker, prop::option::of(0_usize..3)).prop_map(|(w, model)| Step::Spoil(w, model)),
        Just(Step::RestartController),
        wanted().prop_map(Step::Deploy),
        wanted().prop_map(Step::Deploy),
        (0_u32..9, 0_u32..9).prop_map(|(queued, running)| Step::Ask(queued, running)),
        Just(Step::Gone),
        (1_u64..5_000).prop_map(Step::Pass),
        (1_u64..9_000).prop_map(Step::Pass),
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

fn take(world: &mut World, step: Step, now: &mut Wanted) {
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
        Step::Dial(w) => world.add(&id(w), kind(w), 4.0),
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
        Step::Spoil(w, model) => {
            if let Some(worker) = world.workers.get_mut(&id(w)) {
                worker.broken = model.map(|model| MODELS[model].to_owned());
            }
        }
        Step::RestartController => world.restart_controller(external(), now.intent()),
        Step::Deploy(wanted) => {
            world.intend(wanted.intent());
            *now = wanted;
        }
        Step::Ask(queued, running) => world.ask("proxy", &[("pipeline", queued, running)]),
        Step::Gone => world.event(Event::ProxyGone {
            proxy: "proxy".into(),
        }),
        Step::Pass(time) => world.run(ms(time)),
        Step::Break(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_trouble_breaks_the_books_and_when_it_is_over_everything_runs(steps in steps()) {
        let mut now = Wanted::first();
        let mut world = World::new(external(), now.intent());
        world.run(HEARTBEAT * 3);
        for w in 0..4 {
            world.add(&id(w), kind(w), 4.0);
        }
        for step in steps {
            take(&mut world, step, &mut now);
            world.settle();
        }
        for w in 0..5 {
            world.workers.remove(&id(w));
        }
        // Those that are gone lose their leases; then new ones come, and every backoff ends.
        world.run(Duration::from_secs(4));
        for w in 0..4 {
            world.add(&format!("new{w}"), kind(w), 8.0);
        }
        let last = once_more(now.intent());
        world.intend(last);
        world.run_by(Duration::from_secs(70), ms(500));
        let status = world.state.status(world.now);
        for application in &status.applications {
            prop_assert_eq!(application.state(), ApplicationState::Running, "{}", application.message);
            for deployment in &application.deployments {
                let replicas = &deployment.replicas;
                prop_assert_eq!(replicas.len(), deployment.target_replicas as usize);
                prop_assert!(replicas.iter().all(|r| r.state() == ReplicaState::Running && !r.outdated));
            }
        }
        prop_assert_eq!(status.applications.len(), if now.second { 2 } else { 1 });
        prop_assert!(world.state.drains.is_empty() && world.state.retries.is_empty());
        // What is told is what is there.
        let routed: usize = world.tables.last().unwrap().applications.iter()
            .flat_map(|app| &app.deployments).map(|d| d.replicas.len()).sum();
        prop_assert_eq!(routed, world.state.replicas.len());
    }
}

/// The same intent, deployed once more: what was turned away, because its workers died again and again, gets another try.
fn once_more(mut intent: Intent) -> Intent {
    for application in &intent.config.applications {
        let meta = crate::intent::Meta {
            resource_version: 1_000,
            ..Default::default()
        };
        intent.applications.insert(application.name.clone(), meta);
    }
    intent
}

#[derive(Clone, Debug)]
enum Own {
    Exit(usize),
    Launch,
    Deploy { count: u32, gangs: bool, model: usize },
    Pass(u64),
}

fn own(count: u32, gangs: bool, name: usize) -> Intent {
    let mut intent = model(count, MODELS[name]);
    let placing = &mut intent.config.applications[0].deployments[1].placing;
    placing.gang = if gangs { 2 } else { 1 };
    intent
}

fn own_steps() -> impl Strategy<Value = Vec<Own>> {
    let step = prop_oneof![
        (0_usize..9).prop_map(Own::Exit),
        Just(Own::Launch),
        Just(Own::Launch),
        (0_u32..5, any::<bool>(), 0_usize..3).prop_map(|(count, gangs, model)| Own::Deploy {
            count,
            gangs,
            model
        }),
        (1_u64..6_000).prop_map(Own::Pass),
        (1_u64..6_000).prop_map(Own::Pass),
    ];
    prop::collection::vec(step, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn our_own_workers_are_never_too_many_and_in_the_end_as_many_as_are_needed(steps in own_steps()) {
        let (mut count, mut gangs, mut name) = (2, false, 0);
        let mut world = World::new(process(&[]), own(count, gangs, name));
        world.gangs = true;
        for step in steps {
            match step {
                Own::Exit(n) => {
                    if let Some(id) = world.workers.keys().nth(n).cloned() {
                        world.exit(&id);
                    }
                }
                Own::Launch => world.launch(),
                Own::Deploy { count: to, gangs: by, model } => {
                    (count, gangs, name) = (to, by, model);
                    world.intend(own(count, gangs, name));
                }
                Own::Pass(time) => world.run(ms(time)),
            }
            for (id, _) in std::mem::take(&mut world.ended) {
                world.exit(&id);
            }
            world.settle();
            prop_assert!(world.state.owned() <= 8);
        }
        world.intend(once_more(own(count, gangs, name)));
        for _ in 0..120 {
            world.run_by(ms(1_000), ms(500));
            world.launch();
            for (id, _) in std::mem::take(&mut world.ended) {
                world.exit(&id);
            }
        }
        let (state, message) = world.application();
        prop_assert_eq!(state, ApplicationState::Running, "{}", message);
        let wanted = if gangs { count.next_multiple_of(2) } else { count } as usize;
        prop_assert_eq!(world.routed(1).len(), wanted);
        prop_assert_eq!(world.workers.len(), wanted + 1, "no worker is left over");
    }
}
