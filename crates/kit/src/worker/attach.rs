//! The life line of a worker: one stream to the controller, dialled again for as long as the worker lives.
//!
//! Says hello, then a heartbeat at the interval of the welcome and at once when a replica's state changes; does what
//! comes back. Refuses nothing and decides nothing: the table does. A controller that is away costs a log line, not a
//! request.

use std::time::Duration;

use futures::StreamExt;
use mobula_proto::control::v1::{
    AttachRequest, AttachResponse, Heartbeat, Hello, attach_request, attach_response,
    control_service_client::ControlServiceClient,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Identity, Loader, Replicas};
use crate::{
    Backoff, Error, Stop, Usage, chain,
    channel::{Dial, Dialer, KeepAlive},
    status,
    token::Bearer,
};

const KEEP_ALIVE: KeepAlive = KeepAlive {
    // A controller that hangs is noticed by pings. One whose process died closes the stream, and one whose machine is gone is
    // missed by the kernel after two seconds, soon enough to be found by the next one before it counts its workers.
    interval: Duration::from_secs(10),
    timeout: Duration::from_secs(5),
    silence: Some(Duration::from_secs(2)),
};
/// A controller that comes back is found within a second, and not hammered by hundreds of workers.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A controller answers a hello at once, or something is wrong with it.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(2);
/// What a controller may ask for as heartbeat interval, and what is used before it has asked.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// State changes within this time make one heartbeat: a worker that drains ten replicas says so once.
const COALESCE: Duration = Duration::from_millis(2);
/// Messages on their way to the stream. A heartbeat that finds no room is dropped; the next says more.
const OUTBOX: usize = 8;

/// Starts the life line, to the controller at an address and dialled as said, as a task of `stop` and returns at once.
///
/// # Errors
/// [`Error::Address`] when `controller` is no `host:port`. A controller that does not answer is no error.
pub fn attach<L: Loader>(
    (controller, dial): (&str, &Dial),
    identity: Identity,
    replicas: Replicas<L>,
    stop: &Stop,
) -> Result<(), Error> {
    let dialer = dial.dialer(controller, KEEP_ALIVE)?;
    let line = Line {
        controller: controller.to_owned(),
        bearer: dial.bearer(),
        dialer,
        identity,
        replicas,
        stop: stop.clone(),
    };
    stop.spawn("life line to the controller", line.keep());
    Ok(())
}

struct Line<L: Loader> {
    controller: String,
    bearer: Bearer,
    dialer: Dialer,
    identity: Identity,
    replicas: Replicas<L>,
    stop: Stop,
}

/// How a session with the controller ended.
enum Ended {
    /// The worker stops and has said all that it has to say.
    Stopped,
    /// It was welcome, and then the stream ended.
    Lost(String),
    /// It never got a welcome.
    Refused(String),
}

impl<L: Loader> Line<L> {
    async fn keep(self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut said = None;
        loop {
            let ended = tokio::select! {
                biased;
                () = self.stop.expired() => return,
                ended = Box::pin(self.session()) => ended,
            };
            let (controller, wait) = (&self.controller, backoff.next_wait());
            match ended {
                Ended::Stopped => return,
                Ended::Lost(why) => {
                    tracing::warn!(controller, "lost the controller, serving on: {why}");
                    backoff.reset();
                    said = None;
                }
                // The same complaint is written once, not with every attempt.
                Ended::Refused(why) if said.as_ref() == Some(&why) => {
                    tracing::debug!(controller, "no controller: {why}");
                }
                Ended::Refused(why) => {
                    tracing::warn!(
                        controller,
                        "no controller, trying again until there is one: {why}"
                    );
                    said = Some(why);
                }
            }
            tokio::select! {
                biased;
                // Nobody is left to tell; the replicas drain by themselves.
                () = self.stop.triggered() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn session(&self) -> Ended {
        let deadline = Instant::now() + WELCOME_TIMEOUT;
        let dialled = tokio::select! {
            biased;
            () = self.stop.triggered() => return Ended::Stopped,
            dialled = self.dial(deadline) => dialled,
        };
        let (outbox, inbox) = match dialled {
            Ok(dialled) => dialled,
            Err(why) => return Ended::Refused(why),
        };
        tracing::info!(
            controller = self.controller,
            worker = self.identity.worker_id,
            "attached to the controller"
        );
        self.converse(outbox, inbox).await
    }

    /// Connects, says hello, and waits for the welcome.
    async fn dial(&self, deadline: Instant) -> Result<(Outbox, Inbox), String> {
        let late = |_| "it does not answer a hello".to_owned();
        let channel = self.dialer.connect().await.map_err(|error| chain(&error))?;
        let (sender, receiver) = mpsc::channel(OUTBOX);
        let outbox = Outbox(sender);
        outbox.say(attach_request::Message::Hello(self.hello()));
        let mut client = ControlServiceClient::with_interceptor(channel, self.bearer.clone());
        let call = client.attach(ReceiverStream::new(receiver));
        let answer = tokio::time::timeout_at(deadline, call).await.map_err(late)?;
        let mut stream = answer.map_err(|status| describe(&status))?.into_inner();
        let first = tokio::time::timeout_at(deadline, stream.message())
            .await
            .map_err(late)?;
        match first
            .map_err(|status| describe(&status))?
            .and_then(|answer| answer.message)
        {
            Some(attach_response::Message::Welcome(welcome)) => {
                self.replicas.welcomed();
                Ok((
                    outbox,
                    Inbox {
                        stream,
                        interval: interval(welcome.heartbeat_interval_ms),
                    },
                ))
            }
            Some(_) => Err("it answers a hello with something else than a welcome".to_owned()),
            None => Err("it ends the stream without a word".to_owned()),
        }
    }

    async fn converse(&self, outbox: Outbox, mut inbox: Inbox) -> Ended {
        let mut beat = tokio::time::interval_at(Instant::now() + inbox.interval, inbox.interval);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The hello told everything up to a moment ago; what changed since is in the first beat.
        let mut changed = Box::pin(self.replicas.changed());
        outbox.say(self.heartbeat());
        loop {
            if self.stop.is_triggered() && self.replicas.is_empty() {
                return Ended::Stopped;
            }
            tokio::select! {
                biased;
                message = inbox.stream.next() => match message {
                    Some(Ok(message)) => self.obey(message, &mut inbox.interval, &mut beat),
                    Some(Err(status)) => return Ended::Lost(describe(&status)),
                    None => return Ended::Lost("it ended the stream".to_owned()),
                },
                () = &mut changed => {
                    tokio::time::sleep(COALESCE).await;
                    changed.set(self.replicas.changed());
                    outbox.say(self.heartbeat());
                }
                _ = beat.tick() => outbox.say(self.heartbeat()),
            }
        }
    }

    fn obey(&self, message: AttachResponse, current: &mut Duration, beat: &mut tokio::time::Interval) {
        match message.message {
            Some(attach_response::Message::Welcome(welcome)) => {
                let wanted = interval(welcome.heartbeat_interval_ms);
                if wanted != *current {
                    *current = wanted;
                    *beat = tokio::time::interval(wanted);
                }
            }
            Some(attach_response::Message::Assign(assign)) => match assign.replica {
                Some(spec) => self.replicas.assign(spec),
                None => tracing::warn!("the controller assigned nothing"),
            },
            Some(attach_response::Message::Drain(drain)) => {
                self.replicas
                    .drain(&drain.replica_id, Duration::from_millis(drain.grace_ms.into()));
            }
            Some(attach_response::Message::Shutdown(shutdown)) => {
                tracing::info!("the controller says to leave");
                self.stop
                    .trigger_within(Duration::from_millis(shutdown.grace_ms.into()));
            }
            Some(attach_response::Message::Reconfigure(reconfigure)) => match reconfigure.light {
                Some(light) => self.replicas.reconfigure(&reconfigure.replica_id, light),
                None => tracing::warn!("the controller reconfigured nothing"),
            },
            // A newer controller may say more than this worker knows.
            None => tracing::debug!("the controller said something unknown"),
        }
    }

    fn hello(&self) -> Hello {
        let identity = self.identity.clone();
        Hello {
            worker_id: identity.worker_id,
            kind: identity.kind.into(),
            address: identity.address,
            resources: Some(identity.resources),
            labels: identity.labels,
            version: identity.version,
            replicas: self.replicas.reports(),
            pid: std::process::id(),
        }
    }

    fn heartbeat(&self) -> attach_request::Message {
        attach_request::Message::Heartbeat(Heartbeat {
            replicas: self.replicas.reports(),
            resident_bytes: Usage::now().resident_bytes,
        })
    }
}

struct Inbox {
    stream: Streaming<AttachResponse>,
    interval: Duration,
}

struct Outbox(mpsc::Sender<AttachRequest>);

impl Outbox {
    fn say(&self, message: attach_request::Message) {
        if self
            .0
            .try_send(AttachRequest {
                message: Some(message),
            })
            .is_err()
        {
            tracing::debug!("the controller reads too slowly; a heartbeat is left out");
        }
    }
}

fn interval(wanted_ms: u32) -> Duration {
    if wanted_ms == 0 {
        return FIRST_INTERVAL;
    }
    Duration::from_millis(wanted_ms.into()).clamp(INTERVALS.0, INTERVALS.1)
}

/// A status in words: the code where there is no message.
fn describe(status: &Status) -> String {
    let reason = status::reason(status)
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default();
    match status.message() {
        "" => format!("{:?}{reason}", status.code()),
        message => format!("{message}{reason}"),
    }
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
