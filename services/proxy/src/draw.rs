//! Drawing on a replica, and on another one when it is lost; with a refiner in two halves, each on a replica of its model; of
//! an application that is split stage by stage, each on a replica of its deployment.
//!
//! Invariants: a picture that the caller has is never sent again; the caller hears of every loss by one `restarted`
//! event; what was asked of the second replica is what was asked of the first; what a half or a stage brought is kept until
//! the next one is done, so that a replica lost there costs that one only.

mod agree;
mod moves;
mod request;
mod stages;
mod tell;
mod told;
mod whole;

pub(crate) use self::request::common;

use std::{sync::Arc, time::Duration};

use mobula_proto::{
    common::v1::{Latents, Timings},
    control::v1::ModelInfo,
    image::v1::{self as image, generate_response::Event},
    inference::v1::generate_response::Event as Drawn,
};
use mobula_serving::{retry::Attempts, route::Cost};

use self::stages::Encoded;
use tokio::time::Instant;
use tonic::Status;
use tracing::{Instrument, debug_span};

use crate::{
    Error,
    fault::{Fault, classify, is_own_fault},
    generate::{Job, Served, millis},
    metrics::Reroute,
    permit::Permit,
    place::Place,
    pool::{Pool, Standing},
    prepare::Inputs,
    problem::{Problem, Rule},
    tokenize::Tokens,
    validate::Plan,
};

/// A model that draws, or refines.
pub(crate) struct Drawer<'a> {
    served: &'a Served,
    tokens: Arc<Tokens>,
    /// As the replica that drew last reports it.
    model: Arc<ModelInfo>,
    /// What other deployments made for its denoiser, where it is split.
    encoded: Option<Encoded>,
}

impl<'a> Drawer<'a> {
    pub(crate) fn new(served: &'a Served, tokens: Arc<Tokens>) -> Self {
        Self {
            served,
            tokens,
            model: Arc::clone(&served.model),
            encoded: None,
        }
    }
}

/// What was made ready for a plan.
pub(crate) struct Ready<'a> {
    pub(crate) first: Drawer<'a>,
    pub(crate) refiner: Option<Drawer<'a>>,
    pub(crate) inputs: Inputs,
    /// How long that took.
    pub(crate) took: Duration,
}

/// The part of the steps that is drawn now.
enum Half {
    /// All of them.
    Whole,
    /// Those before the refiner, up to this part; and its pool, which goes on with them.
    First(f32, Arc<Pool>),
    /// The refiner's, from this part, with one latent per picture.
    Last(f32, Vec<Latents>),
}

/// A planned and prepared request that is drawn.
pub(crate) struct Draw<'a> {
    job: &'a Job,
    plan: &'a Plan,
    ready: Ready<'a>,
    half: Half,
    /// Latents are there, and are decoded by a deployment of their own.
    decodes: bool,
    attempts: Attempts,
    queued: Duration,
    /// A replica took it since its caller last heard that it starts again.
    has_begun: bool,
    /// The pictures that the caller has.
    sent: Vec<bool>,
    /// What the first half brought.
    latents: Vec<Option<Latents>>,
    /// Steps of the first half, as its replica counts them.
    steps_before: u32,
    /// Timings of the first half, and of the stages that are done where the application is split.
    before: Timings,
    /// Timings of the last picture, should the replica be lost between it and its last word.
    last: Timings,
}

/// How an attempt ended, short of success.
struct Ended {
    fault: Fault,
    accepted: bool,
}

impl<'a> Draw<'a> {
    pub(crate) fn new(job: &'a Job, plan: &'a Plan, ready: Ready<'a>) -> Self {
        Self {
            job,
            plan,
            half: Half::Whole,
            decodes: false,
            attempts: Attempts::default(),
            // What came before the tokens was waiting too: for a route table or a first replica.
            queued: job.arrived.elapsed().saturating_sub(ready.took),
            has_begun: false,
            sent: vec![false; plan.seeds.len()],
            latents: vec![None; plan.seeds.len()],
            steps_before: 0,
            before: Timings::default(),
            last: Timings::default(),
            ready,
        }
    }

    /// Draws every picture and says so; `second` is the place at the refiner's replicas.
    pub(crate) async fn run(&mut self, first: Place, second: Option<Place>) -> Result<(), Error> {
        match second {
            // What few requests need is in a box, here and below: every request would carry its room.
            Some(second) => Box::pin(self.run_refined(first, second)).await,
            None => {
                let timings = self.draw(first).await?;
                self.done(timings).await;
                Ok(())
            }
        }
    }

    /// Draws every picture in two halves.
    async fn run_refined(&mut self, first: Place, mut second: Place) -> Result<(), Error> {
        let switch_at = self.plan.refine.as_ref().map_or(1.0, |refine| refine.switch_at);
        self.half = Half::First(switch_at, Arc::clone(second.pool()));
        let timings = self.draw(first).await?;
        self.passed(timings);
        let latents = self.latents.iter_mut().filter_map(Option::take).collect();
        self.half = Half::Last(switch_at, latents);
        self.job.shared.metrics.handovers.increment(1);
        // Its wait for a replica begins now.
        second.served();
        let timings = self.draw(second).await?;
        self.done(timings).await;
        Ok(())
    }

    /// Draws the half that it is at; where its application is split, stage by stage.
    async fn draw(&mut self, mut place: Place) -> Result<Timings, Error> {
        loop {
            let drawn = self.attempts(&mut place).await?;
            let Some(mut decoder) = self.decoder() else {
                return Ok(drawn);
            };
            self.passed(drawn);
            self.decodes = true;
            match Box::pin(self.attempts(&mut decoder)).await {
                // An update has replaced every decoder of the model that drew these latents: the next one draws others.
                Err(Error::OtherModel { deployment }) => {
                    let reason = format!("the replicas of {deployment} serve another model now");
                    let last = Status::unavailable(reason.clone());
                    self.restart(reason, last).await?;
                    self.decodes = false;
                    self.latents.fill(None);
                    place.served();
                }
                decoded => return decoded,
            }
        }
    }

    /// Has replicas do what it is at, as many as it takes.
    async fn attempts(&mut self, place: &mut Place) -> Result<Timings, Error> {
        let (cost, mut disagree) = (place.cost(), None);
        loop {
            let asked = Instant::now();
            let emit = &self.job.emit;
            let tell = |standing| emit.offer(waiting(standing));
            let acquired = place.acquire_telling(emit.is_followed().then_some(tell)).await;
            self.queued += asked.elapsed();
            self.job.trail.without(place.take_without());
            self.job.trail.timings(self.merged(Timings::default()));
            let mut permit = acquired?;
            // Steps that nobody would go on with are not begun.
            if let Half::First(_, next) = &self.half
                && let Some(elsewhere) = next.elsewhere()
            {
                return Err(elsewhere);
            }
            let model = permit.replica().model(self.drawer().served.model_id.as_deref());
            // Of a part that only decodes, sizes and steps are not the model's.
            if self.decodes {
                if !self.is_of_drawn(model.as_deref()) {
                    drop(permit);
                    Box::pin(self.await_part(place.pool())).await?;
                    continue;
                }
            } else {
                self.draws_with(model);
                // With a slot at the denoiser: what is encoded waits for nothing, and no more of it is held than is drawn.
                if !self.is_decodable() || !self.encode().await? {
                    drop(permit);
                    Box::pin(self.await_agreement(&mut disagree, place.pool())).await?;
                    continue;
                }
                disagree = None;
            }
            let span = debug_span!("draw", replica = permit.replica().id, otel.kind = "client");
            let ended = match self.attempt(&mut permit, cost).instrument(span).await {
                Ok(timings) => return Ok(timings),
                Err(ended) => ended,
            };
            if ended.accepted {
                place.served();
            }
            match ended.fault {
                Fault::Full => {
                    self.job.shared.metrics.rerouted(Reroute::Full);
                    permit.refused();
                }
                Fault::Lacks => {
                    self.job.shared.metrics.rerouted(Reroute::Lacking);
                    permit.lacks();
                }
                Fault::Gone(status) => {
                    permit.failed();
                    if ended.accepted {
                        permit.broke();
                    }
                    let replica = Arc::clone(permit.replica());
                    // Now, not after the event below: the slot is free whether the caller reads or not.
                    drop(permit);
                    let request_id = &*self.job.id;
                    tracing::info!(
                        request_id,
                        replica = replica.id,
                        why = status.message(),
                        accepted = ended.accepted,
                        "replica lost"
                    );
                    if self.is_complete() {
                        return Ok(self.last);
                    }
                    if ended.accepted {
                        self.restart("the replica was lost".to_owned(), status).await?;
                    } else {
                        self.job.shared.metrics.rerouted(Reroute::Unreachable);
                    }
                }
                Fault::TimedOut => return Err(Error::DeadlinePassed),
                Fault::Final(status) => {
                    if is_own_fault(&status) {
                        permit.broke();
                    }
                    return Err(self.told(status));
                }
            }
        }
    }

    /// Tells the caller that it starts again, if it may, and why.
    async fn restart(&mut self, reason: String, last: Status) -> Result<(), Error> {
        self.has_begun = false;
        let policy = self.job.shared.policy;
        let attempts = &mut self.attempts;
        match self
            .job
            .shared
            .budget(|budget, now| attempts.lost(policy, budget, now))
        {
            Ok(attempt) => {
                self.job.shared.metrics.restarts.increment(1);
                self.job
                    .emit
                    .send(Event::Restarted(image::Restarted { reason, attempt }))
                    .await;
                Ok(())
            }
            Err(why) => Err(Error::GaveUp {
                reason,
                why,
                last: Box::new(last),
            }),
        }
    }

    /// Draws on one replica what is not there yet.
    async fn attempt(&mut self, permit: &mut Permit, cost: Cost) -> Result<Timings, Ended> {
        let mut accepted = false;
        let ended = |status, accepted| Ended {
            fault: classify(status, accepted),
            accepted,
        };
        let mut stream = self.ask(permit).await.map_err(|status| ended(status, false))?;
        loop {
            let (load, event) = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(ended(Status::unavailable("the stream ended too early"), accepted)),
                Err(status) => return Err(ended(status, accepted)),
            };
            if !accepted {
                accepted = true;
                self.has_begun = true;
                permit.accepted();
                permit.draws();
                self.job.trail.had(&permit.replica().id);
            }
            if let Some(load) = load {
                permit.load(load);
            }
            match event {
                Some(Drawn::Done(done)) => {
                    if self.is_complete() {
                        let timings = done.timings.unwrap_or(self.last);
                        permit.drawn(Duration::from_micros(timings.total_us));
                        return Ok(timings);
                    }
                    return Err(ended(Status::unavailable("pictures are missing"), accepted));
                }
                Some(Drawn::Latents(done)) => self.keep(done),
                Some(event) => {
                    if let Drawn::Step(step) = &event {
                        let left = u64::from(step.of.saturating_sub(step.index));
                        permit.progress(cost.get() * left / u64::from(step.of.max(1)));
                    }
                    self.pass_on(event, &permit.replica().id).await;
                }
                None => {}
            }
        }
    }

    /// The model that is drawing.
    fn drawer(&self) -> &Drawer<'a> {
        match (&self.half, &self.ready.refiner) {
            (Half::Last(..), Some(refiner)) => refiner,
            (Half::Whole | Half::First(..) | Half::Last(..), _) => &self.ready.first,
        }
    }

    fn drawer_mut(&mut self) -> &mut Drawer<'a> {
        match (&self.half, &mut self.ready.refiner) {
            (Half::Last(..), Some(refiner)) => refiner,
            (Half::Whole | Half::First(..) | Half::Last(..), _) => &mut self.ready.first,
        }
    }

    /// What this half has brought already, by picture.
    fn has(&self) -> Vec<bool> {
        if self.brings_latents() {
            self.latents.iter().map(Option::is_some).collect()
        } else {
            self.sent.clone()
        }
    }

    /// Latents come now, not pictures: a refiner or a decoder goes on with them.
    fn brings_latents(&self) -> bool {
        matches!(self.half, Half::First(..)) || (self.drawer().served.split.is_some() && !self.decodes)
    }

    fn is_complete(&self) -> bool {
        self.has().iter().all(|has| *has)
    }

    /// What a replica said last, by the fields that the caller knows.
    fn told(&self, status: Status) -> Error {
        let found = mobula_kit::status::violations(&status);
        if found.is_empty() {
            return Error::Worker(Box::new(status));
        }
        let problem = |(field, why): (String, String)| match (&self.half, field.as_str()) {
            (Half::First(..) | Half::Last(..), "denoising_start" | "denoising_end") => {
                Problem::new("refiner.switch_at", Rule::Wrong(why))
            }
            (Half::Last(..), _) => Problem::new("refiner.model", Rule::Wrong(format!("{field}: {why}"))),
            (Half::Whole | Half::First(..), _) => Problem::new(field, Rule::Wrong(why)),
        };
        Error::Invalid(found.into_iter().map(problem).collect())
    }
}

/// What a caller is told of its place in line.
fn waiting(standing: Standing) -> Event {
    Event::Waiting(image::Waiting {
        queue_position: u32::try_from(standing.ahead).unwrap_or(u32::MAX),
        eta_ms: standing.eta.map_or(0, millis),
    })
}
