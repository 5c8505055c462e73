//! One request from door to picture: both doors call [`Generator::start`] and read the events.
//!
//! find the application → validate → admit → tokenize and prepare pictures → take a replica → draw there → pass the events
//! on; again with the same seeds on another replica when that one is lost; the last steps at a refiner where it is asked.
//!
//! It refuses to know gRPC or HTTP. Invariants: a picture is sent once; seeds never change between attempts; every end
//! of a request, a caller who leaves included, is counted and gives back what it held.

mod beside;
mod bill;
mod find;
mod load;
mod meter;
mod moves;
mod ready;

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mobula_kit::Deadline;
use mobula_proto::{
    control::v1::ModelInfo,
    image::v1::{self as image, generate_response::Event},
};
use mobula_serving::{
    fair::Claim,
    quota::Left,
    retry::{Budget, Policy},
};
use tokio::{sync::watch, time::Instant};
use tonic::Code;
use tracing::{Instrument, Span};

use crate::{
    Config, Error,
    caller::{Caller, Charge, Under},
    clock::Clock,
    events::{Emit, Events, Reader},
    hold::{Held, Holder},
    keys::Keys,
    metrics::{Door, Metrics},
    problem::Problem,
    registry::Registry,
    report::Records,
    table::Table,
    tokenize,
    validate::{self, Limits, Models, Plan},
};

pub(crate) use self::{
    beside::{Aside, Beside},
    find::Served,
    load::Turn,
    meter::Trail,
};
use self::{bill::Bill, find::Wanted, meter::Meter};

/// How long an event may wait for its caller to read it: as long as nginx waits for a client that takes nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A request as a door hands it over.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: image::GenerateRequest,
    /// What the door could not read; told together with what is wrong besides.
    pub(crate) problems: Vec<Problem>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) door: Door,
    /// How it reads the events.
    pub(crate) reader: Reader,
    /// Who asks.
    pub(crate) caller: Arc<Caller>,
    /// The span that the request's own spans belong to.
    pub(crate) span: Span,
}

/// A cheap handle to what draws.
#[derive(Debug, Clone)]
pub(crate) struct Generator(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    tables: watch::Receiver<Arc<Table>>,
    registry: Registry,
    limits: Limits,
    request_timeout: Option<Duration>,
    no_replica_timeout: Duration,
    failfast: bool,
    pub(crate) policy: Policy,
    budget: Mutex<Budget>,
    holder: Arc<Holder>,
    /// Prompts that were tokenized already.
    pub(crate) tokens: tokenize::Kept,
    pub(crate) keys: Keys,
    pub(crate) metrics: Arc<Metrics>,
    records: Records,
    clock: Clock,
}

impl Generator {
    pub(crate) fn new(
        config: &Config,
        tables: watch::Receiver<Arc<Table>>,
        (metrics, records): (Arc<Metrics>, Records),
        (keys, clock): (Keys, Clock),
    ) -> Self {
        Self(Arc::new(Shared {
            tables,
            registry: Registry::default(),
            limits: config.limits(),
            request_timeout: config.request_timeout(),
            no_replica_timeout: config.no_replica_timeout(),
            failfast: config.failfast,
            policy: Policy {
                max_attempts: config.max_attempts,
            },
            budget: Mutex::new(Budget::new(clock.now())),
            holder: Holder::new(config.max_held_image_bytes, metrics.held.clone()),
            tokens: tokenize::Kept::new(config.max_kept_token_bytes),
            keys,
            metrics,
            records,
            clock,
        }))
    }

    /// The current route table.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.tables.borrow())
    }

    /// The current route table; at the very start, once there is one.
    pub(crate) async fn heard_table(&self) -> Arc<Table> {
        self.0.heard().await;
        self.table()
    }

    /// Begins a request. Its work runs while the events are polled, and ends when they are dropped.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a request id that cannot be one, [`Error::Duplicate`] for one that is taken, and what the
    /// caller's key does not allow.
    pub(crate) fn start(&self, mut call: Call) -> Result<(Arc<str>, Events), Error> {
        let mut meter = Meter::new(&self.0, call.door);
        let given = std::mem::take(&mut call.request.request_id);
        if let Err(problem) = validate::request_id(&given) {
            return Err(meter.refused(Error::Invalid(vec![problem])));
        }
        let id: Arc<str> = if given.is_empty() {
            new_id().into()
        } else {
            given.into()
        };
        meter.trail().named(&id, &call.request);
        let priority = call.caller.priority(call.request.priority);
        call.request.priority = priority.map_err(|error| meter.refused(error))?;
        let under = self.enter(&call.caller).map_err(|error| meter.refused(error))?;
        let taken = self.0.registry.take(&call.caller, Arc::clone(&id));
        let entry = taken.map_err(|error| meter.refused(error))?;
        let deadline = self.deadline(call.deadline, call.door);
        call.span.record("request_id", &*id);
        let emit = Emit::new(call.reader);
        let job = Job {
            shared: Arc::clone(&self.0),
            id: Arc::clone(&id),
            arrived: Instant::now(),
            deadline,
            door: call.door,
            claim: call.caller.claim(call.request.priority()),
            failfast: call.request.failfast.unwrap_or(self.0.failfast),
            caller: call.caller,
            _under: under,
            emit: emit.clone(),
            trail: meter.trail().clone(),
        };
        let work = job.run(call.request, call.problems, meter).instrument(call.span);
        let mut events = Events::new(emit, work);
        entry.attach(events.running());
        events.hold(entry);
        Ok((id, events))
    }

    /// A request's deadline: its caller's, and the door's.
    fn deadline(&self, given: Option<Deadline>, door: Door) -> Option<Deadline> {
        // What the config says for this door goes before the proxy's own flag.
        let limit = self.0.tables.borrow().request_timeout(door);
        let limit = limit.or(self.0.request_timeout).map(Deadline::after);
        [given, limit].into_iter().flatten().min()
    }

    /// Counts a caller's request in, if its key allows it.
    fn enter(&self, caller: &Caller) -> Result<Under, Error> {
        self.0.keys.check(caller)?;
        caller.begin(self.0.clock.now())
    }

    /// The keys that open the doors.
    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// What a caller may still begin, where its key says how much.
    pub(crate) fn left(&self, caller: &Caller) -> Option<Left> {
        caller.left(self.0.clock.now())
    }

    /// Counts bytes of pictures that a door holds before its request begins.
    ///
    /// # Errors
    /// [`Error::PicturesFull`] when that would be too many.
    pub(crate) fn hold(&self, bytes: u64) -> Result<Held, Error> {
        self.0.holder.hold(bytes)
    }

    /// Ends, for ever, the requests of callers who stay and do not read: they would keep their places at the replicas.
    pub(crate) async fn give_up_unread(&self) -> Infallible {
        loop {
            tokio::time::sleep(READ_TIMEOUT / 4).await;
            for request_id in self.0.registry.give_up(READ_TIMEOUT) {
                tracing::info!(
                    request_id = &*request_id,
                    "a caller does not read; its request is ended"
                );
            }
        }
    }

    /// Cancels a request of this caller's that runs.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when there is none with this id.
    pub(crate) fn cancel(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        self.0.registry.cancel(caller, id)
    }
}

impl Shared {
    /// Bounds of requests that are the server's.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Looks at the budget of restarts, or takes from it.
    pub(crate) fn budget<T>(&self, look: impl FnOnce(&mut Budget, Duration) -> T) -> T {
        // Nothing under this lock can panic half-way.
        look(
            &mut self.budget.lock().unwrap_or_else(PoisonError::into_inner),
            self.clock.now(),
        )
    }

    /// Waits for the first table: a proxy that was just started again by a supervisor must not refuse what its callers send
    /// once more. Without a controller it waits as long as for a replica.
    async fn heard(&self) {
        let mut tables = self.tables.clone();
        if !tables.borrow().is_populated {
            let heard = tables.wait_for(|table| table.is_populated);
            // Whoever looks at the table next sees how it ended.
            let _ = tokio::time::timeout(self.no_replica_timeout, heard).await;
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: Arc<str>,
    pub(crate) arrived: Instant,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) door: Door,
    /// As whom it waits.
    pub(crate) claim: Claim,
    /// It does not wait where no replica can be reached.
    pub(crate) failfast: bool,
    /// Who asked.
    pub(crate) caller: Arc<Caller>,
    _under: Under,
    pub(crate) emit: Emit,
    /// What is told of the request when it has ended.
    pub(crate) trail: Trail,
}

impl Job {
    /// Charges its caller for pictures of so many pixels.
    ///
    /// # Errors
    /// That is more than its key has left.
    pub(crate) fn charge(&self, pixels: u64) -> Result<Charge, Error> {
        self.caller.charge(pixels, self.shared.clock.now())
    }

    async fn run(
        self,
        request: image::GenerateRequest,
        problems: Vec<Problem>,
        mut meter: Meter,
    ) -> Result<(), Error> {
        // Stays where it is: moved into the timeout, it would be there twice.
        let mut work = pin!(self.generate(request, problems));
        let result = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.0, work.as_mut())
                .await
                .unwrap_or(Err(Error::DeadlinePassed)),
            None => work.await,
        };
        meter.ended(&result);
        match &result {
            Ok(()) => tracing::info!(
                request_id = &*self.id,
                elapsed_ms = millis(self.arrived.elapsed()),
                "a request was served"
            ),
            Err(error) => self.log(error),
        }
        result
    }

    async fn generate(
        &self,
        mut request: image::GenerateRequest,
        mut problems: Vec<Problem>,
    ) -> Result<(), Error> {
        let wanted = Wanted {
            application: &request.model,
            model_id: &request.model_id,
            is_admitted: false,
        };
        let mut served = self.find(wanted).await?;
        self.trail.found(&served);
        if self.door == Door::Http {
            default_size(&mut request, served.application.img_size, &served.model);
        }
        let mut refiner = self.refiner(&request, &mut problems).await?;
        let models = Models {
            first: &served.model,
            refiner: refiner.as_ref().map(|refiner| &*refiner.model),
        };
        let plan = check(problems, request, models, self.shared.limits)?;
        let _held = self.shared.holder.hold(plan.held_bytes())?;
        self.trail.planned(&plan);
        let charge = self.caller.charge(plan.pixels(), self.shared.clock.now())?;
        let bill = Bill::new(charge, &self.trail);
        let admitted = served.admit(self, (plan.cost, plan.held_bytes()))?;
        self.trail.ahead(admitted.ahead);
        let second = match refiner.as_mut().zip(plan.refine.as_ref()) {
            Some((refiner, refine)) => Some(refiner.admit(self, (refine.cost, 0))?),
            None => None,
        };
        self.shared.budget(|budget, _| budget.deposit());
        let both = || [Some(&admitted), second.as_ref()].into_iter().flatten();
        self.emit
            .send(Event::Accepted(image::Accepted {
                request_id: self.id.as_ref().to_owned(),
                queue_position: u32::try_from(admitted.ahead).unwrap_or(u32::MAX),
                eta_ms: both()
                    .map(|of| of.eta)
                    .sum::<Option<Duration>>()
                    .map_or(0, millis),
            }))
            .await;
        let places = (admitted.place, second.map(|second| second.place));
        let drawn = Box::pin(self.draw_wherever(&plan, (served, refiner), places)).await;
        bill.settle(&drawn);
        drawn
    }

    /// Where a request's error ends.
    fn log(&self, error: &Error) {
        let request_id = &*self.id;
        match error.code() {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                tracing::error!(request_id, error = mobula_kit::chain(error), "a request failed");
            }
            Code::Unavailable => {
                tracing::warn!(request_id, error = mobula_kit::chain(error), "a request failed")
            }
            Code::Ok
            | Code::Cancelled
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => tracing::debug!(request_id, %error, "a request was refused"),
        }
    }
}

/// Gives a request that names no size the one that its application's code has, if the model draws pictures of it; else it
/// is the model's own.
fn default_size(request: &mut image::GenerateRequest, side: u32, model: &ModelInfo) {
    let drawn = side > 0 && side <= model.max_size && side.is_multiple_of(model.size_multiple.max(1));
    if drawn && request.width.is_none() && request.height.is_none() && request.init_image.is_empty() {
        (request.width, request.height) = (Some(side), Some(side));
    }
}

/// All problems of a request, those of the door first; or its plan.
fn check(
    mut problems: Vec<Problem>,
    request: image::GenerateRequest,
    models: Models<'_>,
    limits: Limits,
) -> Result<Plan, Error> {
    match validate::plan(request, models, limits, draw_seed) {
        Ok(plan) if problems.is_empty() => Ok(plan),
        Ok(_) => Err(Error::Invalid(problems)),
        Err(found) => {
            for problem in found {
                // What could not be read is absent or empty here: one complaint is enough.
                if !problems.iter().any(|known| known.field == problem.field) {
                    problems.push(problem);
                }
            }
            Err(Error::Invalid(problems))
        }
    }
}

/// Draws a seed. torch's generator reads the low 32 bits only: more would give different seeds to equal pictures.
pub(crate) fn draw_seed() -> u64 {
    rand::random::<u32>().into()
}

/// A new id for a request whose caller names none.
pub(crate) fn new_id() -> String {
    uuid::Builder::from_random_bytes(rand::random())
        .into_uuid()
        .to_string()
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
