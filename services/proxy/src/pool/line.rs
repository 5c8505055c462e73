//! How those who wait are served: in the order of `mobula_serving::fair`, but for those whose model nobody has room for now,
//! who do not hold up the others. One whose deadline has come too near while it waited is told so instead: drawing it
//! would take a replica's time from somebody who can still be served.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mobula_serving::{
    admission::{Ask, Ticket, TooLate},
    affinity::{Ahead, Pick, Survey},
    route::{Cost, USUAL_ROWS},
};
use tokio::sync::oneshot;

use super::{Pool, State, standing::Spot};
use crate::{
    Error,
    permit::Permit,
    replica::{Replica, Typical},
};

/// Who waits: for which model, and the way to give it a replica.
#[derive(Debug)]
pub(super) struct Waiter {
    model_id: Option<Arc<str>>,
    /// The only model whose replicas will do, by its digest.
    pub(super) of: Option<Arc<str>>,
    /// The way to give it a replica, or to say why it gets none.
    pub(super) grant: oneshot::Sender<Result<Permit, Error>>,
    /// When it has to be done, by the clock.
    deadline: Option<Duration>,
    /// The wait that was predicted for it, and since when it waits, unless it was served before.
    predicted: Option<(Duration, Duration)>,
    /// Where it stands.
    pub(super) spot: Arc<Spot>,
}

/// A request that asks for a replica.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) ticket: Ticket,
    pub(crate) ask: Ask<'a>,
    pub(crate) model_id: Option<&'a Arc<str>>,
    /// The only model whose replicas will do, by its digest.
    pub(crate) of: Option<&'a Arc<str>>,
    /// When it has to be done, by the clock.
    pub(crate) deadline: Option<Duration>,
    /// The wait that was predicted for it, and since when it waits; none when it had a replica before.
    pub(crate) predicted: Option<(Duration, Duration)>,
    /// It had a replica before, and lost it.
    pub(crate) had_turn: bool,
}

/// Who is next.
enum Next {
    /// It is served.
    Serve(Ticket, Permit),
    /// It cannot be done in time any more.
    Late(Ticket, TooLate),
}

/// What came of asking for a replica.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Here it is.
    Served(Permit),
    /// It will come through here; there is where it stands meanwhile.
    Waits(oneshot::Receiver<Result<Permit, Error>>, Arc<Spot>),
    /// It will not come here.
    Elsewhere(Error),
}

impl Pool {
    /// A permit came back.
    /// A drawing tells how long it took, or for how long it was not done.
    pub(crate) fn given_back(
        self: &Arc<Self>,
        replica: &Replica,
        (cost, rows_left): (Cost, u64),
        drawing: Option<(Duration, bool)>,
    ) {
        let mut state = self.lock();
        if let Some((took, was_done)) = drawing {
            let work = cost.time(self.row_ns.load(Ordering::Relaxed));
            state.trust.worked(work, took, was_done);
        }
        state.tally.give_back(cost, rows_left);
        self.metrics.show(&state.tally);
        replica.shown.set(replica.book(|book| book.ongoing()).into());
        let is_waited_for = !state.queue.is_empty();
        drop(state);
        if is_waited_for {
            self.pump();
        }
    }

    /// An admitted request asks for a replica now, or has left before it did.
    pub(crate) fn arrived(&self, ask: Ask<'_>) {
        let mut state = self.lock();
        state.queue.arrived(ask);
        self.metrics.bytes.set(state.queue.bytes() as f64);
    }

    /// Gives a replica, or a place in line, or sends the request elsewhere.
    pub(crate) fn ask(self: &Arc<Self>, asking: Asking<'_>) -> Asked {
        let mut state = self.lock();
        if let Some(error) = self.sends_on(&state, asking.of.map(|of| &**of)) {
            return Asked::Elsewhere(error);
        }
        if state.queue.is_empty()
            && let Some(permit) = self.choose(&mut state, asking.ask.cost, (asking.model_id, asking.of))
        {
            return Asked::Served(permit);
        }
        let (grant, granted) = oneshot::channel();
        let may_pass_others = asking.model_id.is_some() || asking.of.is_some();
        let spot = Arc::<Spot>::default();
        let waiter = Waiter {
            model_id: asking.model_id.cloned(),
            of: asking.of.cloned(),
            grant,
            deadline: asking.deadline,
            predicted: asking.predicted,
            spot: Arc::clone(&spot),
        };
        let asked = (asking.ask, asking.had_turn);
        state.queue.enter(asking.ticket, asked, waiter, self.now());
        self.metrics.bytes.set(state.queue.bytes() as f64);
        drop(state);
        self.metrics.entered.add(1);
        self.metrics.waiting.change(1.0);
        if may_pass_others {
            self.pump();
        } else {
            self.arm();
        }
        Asked::Waits(granted, spot)
    }

    /// Takes a request out of line, if it is still there.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut state = self.lock();
        if state.queue.leave(ticket).is_some() {
            self.metrics.bytes.set(state.queue.bytes() as f64);
            drop(state);
            self.left();
        }
    }

    /// Serves those who wait while replicas are free for them.
    pub(crate) fn pump(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let Some(next) = self.next(&mut state) else {
                break;
            };
            let (waiter, grant) = match next {
                Next::Serve(ticket, permit) => (state.queue.serve(ticket), Ok(permit)),
                Next::Late(ticket, late) => (state.queue.leave(ticket), Err(late.into())),
            };
            let predicted = waiter.as_ref().and_then(|waiter| waiter.predicted);
            if let Some((predicted, since)) = predicted {
                let waited = self.now().saturating_sub(since);
                state.trust.waited(predicted, waited, true);
            }
            self.metrics.bytes.set(state.queue.bytes() as f64);
            drop(state);
            self.left();
            if grant.is_err() {
                self.metrics.refused_late();
            }
            if let Some(waiter) = waiter {
                // A waiter that has gone meanwhile gives the permit back, which serves the next one.
                let unused = waiter.grant.send(grant);
                drop(unused);
            }
        }
        self.arm();
    }

    /// The first in line whom a replica serves now, and that replica.
    fn next(self: &Arc<Self>, state: &mut State) -> Option<Next> {
        let now = self.now();
        let all = state.needs_all(now);
        let is_open = |replica: &Arc<Replica>| replica.book(|book| book.free(now, all) > 0);
        if state.queue.is_empty() || !state.replicas.iter().any(is_open) {
            return None;
        }
        state.queue.lift(now);
        let typical = self.typical();
        // The replicas as they are for each model, and the rows of those passed over that wait for it.
        let mut surveys: HashMap<&str, (Survey, u64)> = HashMap::new();
        // What no replica is free for.
        let mut busy: Vec<(Option<&str>, Option<&str>)> = Vec::new();
        let mut found = None;
        for (ticket, cost, waiter) in state.queue.iter() {
            let Some(model_id) = waiter.model_id.as_deref().filter(|id| state.is_on_demand(id)) else {
                let which = (waiter.model_id.as_deref(), waiter.of.as_deref());
                if busy.contains(&which) {
                    continue;
                }
                if let Some(i) = self.plain(state, which, now) {
                    found = Some((ticket, cost, Pick::Held(i), waiter));
                    break;
                }
                busy.push(which);
                continue;
            };
            let (survey, rows) = surveys
                .entry(model_id)
                .or_insert_with(|| (state.survey(model_id, now, typical), 0));
            let ahead = typical.ahead(*rows);
            if let Some(pick) = survey.pick(&mut rand::rng(), ahead) {
                found = Some((ticket, cost, pick, waiter));
                break;
            }
            *rows = rows.saturating_add(cost.get());
        }
        let (ticket, cost, pick, waiter) = found?;
        let left = waiter.deadline.map(|deadline| deadline.saturating_sub(now));
        // A guess that is twice too long must not cost a request that could be served.
        let needed = cost.time(typical.row_ns) / 2;
        if let Some(left) = left
            && left < needed
        {
            return Some(Next::Late(ticket, TooLate { needed, left }));
        }
        let model_id = waiter.model_id.clone();
        let permit = self.take(state, cost, pick, model_id.as_ref());
        Some(Next::Serve(ticket, permit))
    }

    /// Chooses a replica for a request that nobody is ahead of, and counts it there.
    fn choose(
        self: &Arc<Self>,
        state: &mut State,
        cost: Cost,
        (model_id, of): (Option<&Arc<str>>, Option<&Arc<str>>),
    ) -> Option<Permit> {
        let now = self.now();
        let pick = match model_id.filter(|id| state.is_on_demand(id)) {
            Some(id) => {
                let typical = self.typical();
                let survey = state.survey(id, now, typical);
                survey.pick(&mut rand::rng(), typical.ahead(0))?
            }
            None => {
                let which = (model_id.map(|id| &**id), of.map(|of| &**of));
                Pick::Held(self.plain(state, which, now)?)
            }
        };
        Some(self.take(state, cost, pick, model_id))
    }

    /// Picks among replicas that are alike, but for their model where it is said which.
    fn plain(
        &self,
        state: &State,
        (model_id, of): (Option<&str>, Option<&str>),
        now: Duration,
    ) -> Option<usize> {
        let typical = self.row_ns.load(Ordering::Relaxed);
        let all = state.needs_all(now);
        state.tiers.pick(&mut rand::rng(), margin(typical), |i| {
            let replica = &state.replicas[i];
            let wait = replica.book(|book| (book.free(now, all) > 0).then(|| book.rank(now, typical)));
            wait.filter(|_| replica.may_have(model_id) && replica.is_of(of) && state.is_whole(replica))
        })
    }

    /// Counts a request at the replica that was picked for it.
    fn take(
        self: &Arc<Self>,
        state: &mut State,
        cost: Cost,
        pick: Pick,
        model_id: Option<&Arc<str>>,
    ) -> Permit {
        let replica = Arc::clone(&state.replicas[pick.index()]);
        if model_id.is_some_and(|id| state.is_on_demand(id)) {
            self.metrics.picked(pick);
        }
        let ongoing = replica.book(|book| {
            book.take(cost);
            book.ongoing()
        });
        state.tally.take(cost);
        self.metrics.show(&state.tally);
        replica.shown.set(ongoing.into());
        // From now on the replica counts as one that holds the model: who comes meanwhile waits there, and loads it nowhere
        // else.
        Permit::new(Arc::clone(self), replica, cost, model_id.cloned())
    }

    fn typical(&self) -> Typical {
        Typical {
            row_ns: self.row_ns.load(Ordering::Relaxed),
            load_ns: self.load_ns(),
        }
    }

    /// Sees to it that the queue is served when the next pause of a replica ends.
    fn arm(self: &Arc<Self>) {
        let now = self.now();
        let mut state = self.lock();
        if state.queue.is_empty() {
            return;
        }
        let ends = state
            .replicas
            .iter()
            .filter_map(|replica| replica.paused_until(now));
        let Some(due) = ends.min() else { return };
        if state.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        state.armed = Some(due);
        drop(state);
        let wake = self.settings.clock.at(due);
        let pool = Arc::downgrade(self);
        self.settings.stop.spawn_aside(async move {
            tokio::time::sleep_until(wake).await;
            if let Some(pool) = pool.upgrade() {
                pool.lock().armed.take_if(|armed| *armed == due);
                pool.pump();
            }
        });
    }

    pub(super) fn left(&self) {
        self.metrics.left.add(1);
        self.metrics.waiting.change(-1.0);
    }
}

/// How much longer the wait may be of a replica that is nearer: a usual request's.
pub(crate) fn margin(row_ns: u64) -> u64 {
    USUAL_ROWS.saturating_mul(row_ns)
}

impl Typical {
    /// What a request waits behind when those before it have so many rows.
    fn ahead(self, rows: u64) -> Ahead {
        Ahead {
            ns: rows.saturating_mul(self.row_ns),
            load_ns: self.load_ns,
        }
    }
}

impl State {
    fn is_on_demand(&self, model_id: &str) -> bool {
        self.models.contains_key(model_id)
    }

    /// The replicas as they are for a model.
    fn survey(&self, model_id: &str, now: Duration, typical: Typical) -> Survey {
        let mut survey = Survey::default();
        let all = self.needs_all(now);
        for (index, replica) in self.replicas.iter().enumerate() {
            if let Some(candidate) = replica.candidate(model_id, (now, all), typical) {
                survey.add(index, candidate);
            }
        }
        survey
    }
}
