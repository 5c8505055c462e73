//! What every run keeps, whatever is reported and however often the scaler is asked.

use proptest::prelude::*;

use super::*;

/// What happens, and how many milliseconds after what was before.
#[derive(Debug, Clone)]
enum Event {
    Router(u8, Sample),
    Replica(u8, Sample),
    Forget(u8),
    Running(u32),
    Configure(Config),
}

fn millis(from: u64, to: u64) -> impl Strategy<Value = Duration> {
    (from..to).prop_map(Duration::from_millis)
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::Ongoing),
        (0.5..20.0).prop_map(|target_s| Policy::Work { target_s })
    ]
}

fn aggregation() -> impl Strategy<Value = Aggregation> {
    prop_oneof![
        Just(Aggregation::Mean),
        Just(Aggregation::Max),
        Just(Aggregation::Min)
    ]
}

prop_compose! {
    fn config()(
        (min, more, target_ongoing) in (0_u32..4, 0_u32..12, 0.3..6.0),
        (metrics_interval, look_back) in (millis(100, 12_000), millis(200, 40_000)),
        upscaling_factor in prop::option::of(0.1..4.0),
        downscaling_factor in prop::option::of(0.1..3.0),
        upscale_delay in prop_oneof![Just(Duration::ZERO), millis(0, 9_000)],
        downscale_delay in prop_oneof![Just(Duration::ZERO), millis(0, 20_000)],
        downscale_to_zero_delay in prop::option::of(millis(0, 9_000)),
        (aggregation, policy) in (aggregation(), policy()),
        initial in prop::option::of(0_u32..12),
    ) -> Config {
        let max = (min + more).max(1);
        Config {
            min, max, initial: initial.map(|n| n.clamp(min, max)), target_ongoing, metrics_interval, look_back,
            upscaling_factor, downscaling_factor, upscale_delay, downscale_delay, downscale_to_zero_delay, aggregation, policy,
        }
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    let load = prop_oneof![Just((0, 0, 0.0)), (0_u8..20, 0_u8..20, 0.0..90.0)];
    load.prop_map(|(queued, running, work_s)| Sample {
        queued: f64::from(queued),
        running: f64::from(running),
        work_s,
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0_u8..3, sample()).prop_map(|(who, sample)| Event::Router(who, sample)),
        2 => (0_u8..3, sample()).prop_map(|(who, sample)| Event::Replica(who, sample)),
        1 => (0_u8..3).prop_map(Event::Forget),
        3 => (0_u32..9).prop_map(Event::Running),
        1 => config().prop_map(Event::Configure),
    ]
}

fn events(most: usize) -> impl Strategy<Value = Vec<(u64, Event)>> {
    let gap = prop_oneof![4 => 0_u64..1_500, 1 => 0_u64..30_000];
    prop::collection::vec((gap, event()), 0..most)
}

fn capacity() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(prop_oneof![Just(50.0), Just(100.0), 1.0..100.0])
}

/// Runs the events against a scaler that is ticked in every tick, or only when it asks for it and when it is told something.
struct Run {
    scaler: Scaler,
    now: Duration,
    running: u32,
    every_tick: bool,
    decisions: Vec<Decision>,
    calls: usize,
}

impl Run {
    fn tick(&mut self) {
        self.decisions.extend(self.scaler.tick(self.now, self.running));
        self.calls += 1;
    }

    /// Lets time pass until just before an event at `end`, or to it.
    fn pass(&mut self, end: Duration) {
        loop {
            let next = if self.every_tick {
                Some(delay::time(delay::floor(self.now) + 1))
            } else {
                self.scaler.next(self.now).map(|at| at.max(self.now))
            };
            match next {
                Some(next) if next < end => {
                    self.now = next;
                    self.tick();
                }
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Router(who, sample) => self.scaler.record(&format!("p{who}"), self.now, *sample),
            Event::Replica(who, sample) => self.scaler.record_replica(&format!("r{who}"), self.now, *sample),
            Event::Forget(who) => {
                // Who tells of the present first lets the past be decided.
                self.tick();
                self.scaler.forget(&format!("p{who}"));
                self.scaler.forget(&format!("r{who}"));
            }
            Event::Running(running) => self.running = *running,
            Event::Configure(config) => {
                self.tick();
                self.scaler.reconfigure(config.clone(), None);
            }
        }
        if matches!(event, Event::Running(_))
            || self.every_tick && delay::time(delay::floor(self.now)) == self.now
        {
            self.tick();
        }
    }
}

fn play(config: &Config, capacity: Option<f64>, events: &[(u64, Event)], every_tick: bool) -> Run {
    let mut run = Run {
        scaler: Scaler::new(config.clone(), capacity, 2),
        now: Duration::ZERO,
        running: 2,
        every_tick,
        decisions: Vec::new(),
        calls: 0,
    };
    run.tick();
    for (gap, event) in events {
        // Off the ticks by a microsecond, so that nobody asks which of two came first.
        let at = run.now + Duration::from_micros(gap * 1_000 + 1);
        run.pass(at);
        run.apply(event);
    }
    let end = run.now + Duration::from_secs(90);
    run.pass(end);
    run.tick();
    run
}

proptest! {
    #[test]
    fn the_same_is_decided_however_rarely_the_scaler_is_asked(
        config in config(), capacity in capacity(), events in events(60),
    ) {
        let (dense, sparse) = (play(&config, capacity, &events, true), play(&config, capacity, &events, false));
        let plain = |run: &Run| -> Vec<_> {
            run.decisions.iter().map(|one| (one.at, one.from, one.to, one.reason.clone())).collect()
        };
        prop_assert_eq!(plain(&dense), plain(&sparse));
        prop_assert_eq!(dense.scaler.target(), sparse.scaler.target());
    }

    #[test]
    fn a_loop_that_stalls_comes_to_the_same_target(config in config(), events in events(40)) {
        // Nothing but samples, so that there is nothing to tell in between; the stalled loop ticks once, at the end.
        let samples: Vec<_> = events.into_iter().filter(|(_, event)| matches!(event, Event::Router(..))).collect();
        let dense = play(&config, None, &samples, true);
        let mut stalled = Scaler::new(config, None, 2);
        let mut now = Duration::ZERO;
        stalled.tick(now, 2);
        for (gap, event) in &samples {
            now += Duration::from_micros(gap * 1_000 + 1);
            if let Event::Router(who, sample) = event {
                stalled.record(&format!("p{who}"), now, *sample);
            }
        }
        stalled.tick(dense.now, 2);
        prop_assert_eq!(stalled.target(), dense.scaler.target());
    }

    #[test]
    fn the_target_stays_within_the_bounds_and_leaves_one_before_none(
        config in config(), capacity in capacity(), events in events(60),
    ) {
        let run = play(&config, capacity, &events, false);
        for decision in &run.decisions {
            prop_assert!(decision.from <= 1 || decision.to > 0, "{decision:?}");
            prop_assert!((decision.inputs.lower..=decision.inputs.upper).contains(&decision.to), "{decision:?}");
            prop_assert!(decision.from != decision.to && !decision.reason.is_empty());
        }
        let inputs = run.scaler.view(run.now).inputs;
        prop_assert!((inputs.lower..=inputs.upper).contains(&run.scaler.target()));
    }

    #[test]
    fn load_that_only_grows_never_takes_a_replica_away_again(
        mut config in config(), steps in prop::collection::vec((0_u8..3, 0_u8..3), 5..80), lag in 0_usize..40,
    ) {
        config.policy = Policy::Ongoing;
        (config.upscaling_factor, config.downscaling_factor, config.initial) = (None, None, None);
        let mut scaler = Scaler::new(config, None, 0);
        let (mut load, mut grown) = (Sample::default(), false);
        let mut targets = vec![scaler.target()];
        for (second, (queued, running)) in steps.into_iter().enumerate() {
            load.queued += f64::from(queued);
            load.running += f64::from(running);
            scaler.record("p", Duration::from_secs(second as u64), load);
            for tick in 0..10 {
                let now = Duration::from_secs(second as u64) + TICK * tick;
                let ready = targets[targets.len().saturating_sub(lag + 1)];
                if let Some(decision) = scaler.tick(now, ready) {
                    grown |= decision.to > decision.from;
                    prop_assert!(decision.to > decision.from || !grown, "{decision:?}");
                }
                targets.push(scaler.target());
            }
        }
    }

    #[test]
    fn constant_work_moves_the_target_one_way_and_then_no_more(
        config in config(), target_s in 0.5_f64..20.0, sample in sample(), start in 0_u32..12, lag in 0_usize..80,
        interval in 1_u64..40,
    ) {
        let config = Config { policy: Policy::Work { target_s }, initial: None, ..config };
        let mut scaler = Scaler::new(config, None, start);
        let mut targets = vec![scaler.target()];
        for tick in 0..3_000_u64 {
            let now = TICK * tick as u32;
            if tick.is_multiple_of(interval) {
                scaler.record("p", now, sample);
            }
            let ready = targets[targets.len().saturating_sub(lag + 1)].max(1);
            scaler.tick(now, ready);
            targets.push(scaler.target());
        }
        targets.dedup();
        let (up, down) = (targets.is_sorted(), targets.iter().rev().is_sorted());
        prop_assert!(up || down, "{targets:?}");
    }

    #[test]
    fn a_request_is_counted_once_wherever_it_is(
        spread in prop::collection::vec((0_u8..3, any::<bool>()), 0..60), by_replica in any::<bool>(),
    ) {
        let mut scaler = Scaler::new(Config::auto(), None, 3);
        let mut routers = [Sample::default(); 3];
        for (who, waits) in &spread {
            let of = &mut routers[usize::from(*who)];
            *(if *waits { &mut of.queued } else { &mut of.running }) += 1.0;
        }
        for (who, sample) in routers.iter().enumerate() {
            scaler.record(&who.to_string(), Duration::ZERO, *sample);
            if by_replica {
                // What this router sent is all on one replica, which reports it as well.
                scaler.record_replica(&format!("r{who}"), Duration::ZERO, Sample { queued: 0.0, ..*sample });
            }
        }
        scaler.tick(Duration::ZERO, 3);
        prop_assert_eq!(scaler.view(Duration::ZERO).inputs.ongoing, spread.len() as f64);
    }
}
