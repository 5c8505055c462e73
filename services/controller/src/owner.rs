//! The one task that owns the state: takes events in, lets the state decide, carries out what it decided.
//!
//! Decides nothing itself. Callers hold a [`Handle`]. Every channel is bounded: a flood of heartbeats waits in the
//! sockets; a worker that does not read its commands loses its stream and says hello anew, which tells us everything
//! again. Invariant: a session's channel, its listener and its entry in the state end together.

mod handle;
mod notes;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use mobula_kit::Stop;
use mobula_proto::control::v1::{self as pb, attach_response::Message as Command};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tracing::{info, warn};

pub(crate) use self::handle::Handle;
use self::notes::Notes;
use crate::{
    Error,
    explain::{self, Records},
    intent::Intent,
    metrics::{Metrics, Ray},
    provider::Provider,
    state::{Action, End, Event, Note, State, Time},
};

/// Events that wait for the loop: a burst of all workers of a large mesh at once; senders wait beyond that.
const EVENTS: usize = 1024;
/// Commands that wait for a worker: more replicas than one worker holds.
const COMMANDS: usize = 256;
/// Events taken in before the state settles once for all of them.
const BATCH: usize = 1024;
/// Kept back of the drain's time, to see the workers end.
const STOP_RESERVE: Duration = Duration::from_millis(500);

/// What the loop runs with.
pub(crate) struct Parts {
    pub(crate) state: State,
    pub(crate) welcome: pb::Welcome,
    pub(crate) provider: Box<dyn Provider>,
    /// What shall run; the state was made with a value that the receiver has seen, or sees once more.
    pub(crate) intents: watch::Receiver<Arc<Intent>>,
}

/// The newest route table, none before the first.
pub(crate) type Routes = watch::Receiver<Option<Arc<pb::WatchRoutesResponse>>>;

enum Message {
    Attach {
        session: u64,
        hello: pb::Hello,
        reply: oneshot::Sender<Result<Attached, Error>>,
    },
    Event(Event),
    Status(oneshot::Sender<pb::GetStatusResponse>),
    Explain {
        request: pb::ExplainRequest,
        reply: oneshot::Sender<Result<pb::ExplainResponse, Error>>,
    },
}

/// A worker's session.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) session: u64,
    /// What the worker is to be told; ends when the session does.
    pub(crate) commands: mpsc::Receiver<Result<pb::AttachResponse, Status>>,
    /// Cancelled when the session ends: nobody listens to the worker any more.
    pub(crate) closed: CancellationToken,
}

/// The loop's side of a session; dropping it ends the session.
struct Session {
    commands: mpsc::Sender<Result<pb::AttachResponse, Status>>,
    _closed: DropGuard,
}

/// The loop, before it runs.
pub(crate) struct Owner {
    inbox: mpsc::Receiver<Message>,
    routes: watch::Sender<Option<Arc<pb::WatchRoutesResponse>>>,
    notes: Notes,
}

/// Makes a loop, the handle to it, and where its notes come out.
pub(crate) fn channel() -> (Handle, Owner, mpsc::Receiver<Note>) {
    let (messages, inbox) = mpsc::channel(EVENTS);
    let (routes, watcher) = watch::channel(None);
    let (notes, out) = notes::channel();
    let handle = Handle {
        messages,
        routes: watcher,
        numbers: Arc::default(),
    };
    let owner = Owner { inbox, routes, notes };
    (handle, owner, out)
}

impl Owner {
    /// Runs until the stop; then tells our workers to leave and ends every stream.
    pub(crate) async fn run(self, parts: Parts, stop: Stop) {
        let Parts {
            state,
            welcome,
            provider,
            intents,
        } = parts;
        let heartbeat = Duration::from_millis(welcome.heartbeat_interval_ms.into());
        let ray = Ray::new(&welcome.controller_id, Instant::now());
        let shell = Shell {
            state,
            origin: Instant::now(),
            welcome,
            provider,
            routes: self.routes,
            sessions: HashMap::new(),
            greeted: HashMap::new(),
            notes: self.notes,
            records: Records::default(),
            metrics: Metrics::new(),
            ray,
        };
        shell.run(self.inbox, intents, heartbeat, stop).await;
    }
}

struct Shell {
    state: State,
    origin: Instant,
    welcome: pb::Welcome,
    provider: Box<dyn Provider>,
    routes: watch::Sender<Option<Arc<pb::WatchRoutesResponse>>>,
    sessions: HashMap<u64, Session>,
    /// Those who said hello and have no answer yet.
    greeted: HashMap<u64, oneshot::Sender<Result<Attached, Error>>>,
    notes: Notes,
    /// Requests that ended, to explain them.
    records: Records,
    metrics: Metrics,
    ray: Ray,
}

impl Shell {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut intents: watch::Receiver<Arc<Intent>>,
        heartbeat: Duration,
        stop: Stop,
    ) {
        let mut intents_end = false;
        // The first settling starts the workers, before anybody has said anything.
        self.settle(Instant::now());
        loop {
            let wake = self.origin + self.state.next(self.now());
            let mut new_intent = false;
            let message = tokio::select! {
                biased;
                () = stop.triggered() => break,
                changed = intents.changed(), if !intents_end => {
                    // With the keeper of the intent gone, the last one stands.
                    (new_intent, intents_end) = (changed.is_ok(), changed.is_err());
                    None
                }
                message = inbox.recv() => message,
                () = sleep_until(wake) => None,
            };
            let began = Instant::now();
            let late = began.saturating_duration_since(wake);
            if late > heartbeat {
                warn!(
                    late_ms = late.as_millis(),
                    "the controller was not running; leases are prolonged"
                );
                self.apply(Event::Stalled(late));
            }
            if new_intent {
                let intent = intents.borrow_and_update().clone();
                self.apply(Event::Intend(intent));
            }
            let mut next = message;
            for _ in 0..BATCH {
                let Some(message) = next.take() else { break };
                self.take(message);
                next = inbox.try_recv().ok();
            }
            if let Some(message) = next {
                self.take(message);
            }
            let busy = began.elapsed();
            if busy > heartbeat {
                warn!(
                    busy_ms = busy.as_millis(),
                    "what was asked of the controller took long; leases are prolonged"
                );
                self.apply(Event::Stalled(busy));
            }
            self.settle(began);
        }
        let left = stop
            .deadline()
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        let grace = left.saturating_sub(STOP_RESERVE);
        info!(
            grace_ms = grace.as_millis(),
            "stopping: our workers are told to leave"
        );
        self.apply(Event::Stopping { grace });
        self.see_off(inbox, stop).await;
    }

    /// Listens to the workers that were told to leave until they did, so that they leave in order.
    async fn see_off(mut self, mut inbox: mpsc::Receiver<Message>, stop: Stop) {
        while !self.sessions.is_empty() {
            let message = tokio::select! {
                biased;
                () = stop.expired() => return,
                message = inbox.recv() => message,
            };
            match message {
                Some(Message::Attach { reply, .. }) => drop(reply.send(Err(Error::Stopping))),
                Some(message) => self.take(message),
                None => return,
            }
        }
    }

    fn now(&self) -> Time {
        self.origin.elapsed()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Attach {
                session,
                hello,
                reply,
            } => {
                self.greeted.insert(session, reply);
                self.apply(Event::Hello { session, hello });
                // Whatever the state did not answer is answered by the drop.
                self.greeted.remove(&session);
            }
            Message::Event(mut event) => {
                if let Event::Demand { request, .. } = &mut event {
                    self.records.add(std::mem::take(&mut request.finished));
                }
                if let Event::Lost { session, .. } = event {
                    self.sessions.remove(&session);
                }
                self.apply(event);
            }
            Message::Status(reply) => drop(reply.send(self.state.status(self.now()))),
            Message::Explain { request, reply } => {
                let status = self.state.status(self.now());
                let _ = reply.send(explain::explain(&request, &status, &self.records));
            }
        }
    }

    fn apply(&mut self, event: Event) {
        let actions = self.state.apply(event, self.now());
        self.perform(actions);
    }

    fn settle(&mut self, began: Instant) {
        // Those that found no room may find some now.
        self.notes.tell();
        let actions = self.state.settle(self.now());
        self.perform(actions);
        if let Some(table) = self.state.take_routes(self.now()) {
            self.metrics.published(table.version);
            self.routes.send_replace(Some(Arc::new(table)));
        }
        let now = Instant::now();
        self.metrics
            .show(&self.state, now.saturating_duration_since(began));
        self.ray.turned(&mut self.state, began, now);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Welcome { session } => self.greet(session),
                Action::Pace { session, heartbeat } => {
                    let heartbeat_interval_ms = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX);
                    let welcome = pb::Welcome {
                        heartbeat_interval_ms,
                        ..self.welcome.clone()
                    };
                    self.tell(session, Command::Welcome(welcome));
                }
                Action::Refuse { session, why } => {
                    if let Some(reply) = self.greeted.remove(&session) {
                        let _ = reply.send(Err(Error::Duplicate(why)));
                    }
                }
                Action::Send { session, command } => self.tell(session, *command),
                Action::Close { session } => drop(self.sessions.remove(&session)),
                Action::Note(note) => self.notes.put(note),
                Action::Start(start) => self.provider.start(&start),
                Action::Adopt { worker_id, pid, kind } => self.provider.adopt(&worker_id, kind, pid),
                Action::End {
                    worker_id,
                    told,
                    grace,
                } => self.provider.end(&worker_id, told, grace),
            }
        }
    }

    fn greet(&mut self, session: u64) {
        let Some(reply) = self.greeted.remove(&session) else {
            return;
        };
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let closed = CancellationToken::new();
        let attached = Attached {
            session,
            commands: receiver,
            closed: closed.clone(),
        };
        if reply.send(Ok(attached)).is_ok() {
            let _closed = closed.drop_guard();
            self.sessions.insert(session, Session { commands, _closed });
            self.tell(session, Command::Welcome(self.welcome.clone()));
        } else {
            // The caller left before the answer; what it said is taken back.
            self.apply(Event::Lost {
                session,
                end: End::Closed,
            });
        }
    }

    fn tell(&mut self, session: u64, command: Command) {
        let Some(to) = self.sessions.get(&session) else {
            return;
        };
        if to
            .commands
            .try_send(Ok(pb::AttachResponse {
                message: Some(command),
            }))
            .is_err()
        {
            warn!(
                session,
                "a worker does not read what it is told; its stream is ended"
            );
            self.sessions.remove(&session);
            self.apply(Event::Lost {
                session,
                end: End::Cut,
            });
        }
    }
}
