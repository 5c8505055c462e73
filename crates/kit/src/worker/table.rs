//! The states of a worker's replicas, as a plain table: STARTING -> RUNNING -> STOPPING -> gone, or FAILED.
//!
//! Time is an argument, loading and retiring are done by others (`replicas.rs`). Invariants: a replica's leases never
//! exceed its limit; a replica is handed out for retirement exactly once; a lease that outlives its replica frees nothing
//! of a later one with the same id.

use std::{collections::BTreeMap, sync::Arc};

use mobula_proto::control::v1::{LightConfig, ReplicaReport, ReplicaSpec, ReplicaState};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    Failure,
    check::{Checks, Policy},
};
use crate::status;

/// Why a request gets no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such replica here, or no more.
    #[error("there is no such replica here")]
    Unknown,
    /// It still loads.
    #[error("the replica is still starting")]
    Starting,
    /// It finishes what it has.
    #[error("the replica is draining")]
    Draining,
    /// It has as many requests as it takes.
    #[error("the replica is full ({max} requests)")]
    Full {
        /// Its limit.
        max: u32,
    },
    /// It failed for good.
    #[error("the replica failed: {0}")]
    Failed(String),
}

impl Refused {
    /// Tells a proxy whether another replica may help: all but NOT_FOUND say so.
    pub fn code(&self) -> Code {
        match self {
            Self::Unknown => Code::NotFound,
            Self::Starting | Self::Draining | Self::Failed(_) => Code::Unavailable,
            Self::Full { .. } => Code::ResourceExhausted,
        }
    }

    /// The reason in ErrorInfo.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "REPLICA_UNKNOWN",
            Self::Starting => "REPLICA_STARTING",
            Self::Draining => "REPLICA_DRAINING",
            Self::Full { .. } => "REPLICA_FULL",
            Self::Failed(_) => "REPLICA_FAILED",
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        status::error(refused.code(), refused.reason(), refused.to_string())
    }
}

/// What an assignment means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assigned {
    /// New: load it, and hand the result in under this serial.
    Load(u64),
    /// Known already, or refused; the reports say which.
    Nothing,
}

/// How long a draining replica goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// New leases are refused from here on.
    pub(crate) refuse_from: Instant,
    /// It is retired here whatever it does.
    pub(crate) until: Instant,
}

/// A replica that is to be retired now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Retiree<R> {
    pub(crate) id: Arc<str>,
    pub(crate) serial: u64,
    pub(crate) replica: Arc<R>,
}

#[derive(Debug)]
pub(crate) struct Table<R> {
    entries: BTreeMap<Arc<str>, Entry<R>>,
    serials: u64,
}

#[derive(Debug)]
struct Entry<R> {
    serial: u64,
    spec: ReplicaSpec,
    /// What can change while it runs; as assigned, or as last told.
    light: LightConfig,
    /// Version of what is in force.
    in_force: String,
    checks: Checks,
    ongoing: u32,
    state: State<R>,
    /// Set when the id was assigned again as something else.
    conflict: Option<String>,
}

#[derive(Debug)]
enum State<R> {
    Starting,
    Running(Arc<R>),
    /// The replica is missing while it still loads.
    Stopping {
        replica: Option<Arc<R>>,
        drain: Drain,
    },
    /// Handed out for retirement; gone when that is done.
    Retiring,
    Failed(Failure),
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            serials: 0,
        }
    }
}

impl<R> Table<R> {
    /// Takes an assignment. The same one again changes at most what can change while it runs; another one under a known id
    /// is refused, which the reports say, while what runs goes on.
    pub(crate) fn assign(&mut self, mut spec: ReplicaSpec) -> Assigned {
        let light = split(&mut spec);
        if let Some(entry) = self.entries.get_mut(spec.replica_id.as_str()) {
            if entry.spec == spec {
                entry.light = light;
            } else {
                entry.conflict = Some(
                    "assigned again under the same id as something else; drain it, and use a new id"
                        .to_owned(),
                );
            }
            return Assigned::Nothing;
        }
        self.serials += 1;
        let refused = (light.max_ongoing_requests == 0)
            .then(|| Failure::permanent("max_ongoing_requests is 0; a replica must take at least one"));
        let (assigned, state) = match refused {
            Some(failure) => (Assigned::Nothing, State::Failed(failure)),
            None => (Assigned::Load(self.serials), State::Starting),
        };
        let id = spec.replica_id.as_str().into();
        let entry = Entry {
            serial: self.serials,
            spec,
            in_force: String::new(),
            light,
            checks: Checks::default(),
            ongoing: 0,
            state,
            conflict: None,
        };
        self.entries.insert(id, entry);
        assigned
    }

    /// Takes what can change while a replica runs.
    pub(crate) fn reconfigure(&mut self, id: &str, light: LightConfig) {
        if let Some(entry) = self.entries.get_mut(id)
            && light.max_ongoing_requests > 0
        {
            entry.light = light;
        }
    }

    /// Running replicas whose `user_config` is not in force yet, each with it; it is in force once it was taken.
    pub(crate) fn due_for_config(&mut self) -> Vec<(Retiree<R>, String)> {
        let mut due = Vec::new();
        for (id, entry) in &mut self.entries {
            if let State::Running(replica) = &entry.state
                && entry.in_force != version(&entry.light)
            {
                entry.in_force = version(&entry.light);
                let running = Retiree {
                    id: id.clone(),
                    serial: entry.serial,
                    replica: replica.clone(),
                };
                due.push((running, entry.light.user_config.clone()));
            }
        }
        due
    }

    /// Running replicas that are to be checked now, each with how long that may take.
    pub(crate) fn due_for_check(&mut self, now: Instant) -> Vec<(Retiree<R>, Policy)> {
        let mut due = Vec::new();
        for (id, entry) in &mut self.entries {
            let policy = Policy::of(&entry.light);
            if let State::Running(replica) = &entry.state
                && entry.checks.begin(&policy, now)
            {
                let running = Retiree {
                    id: id.clone(),
                    serial: entry.serial,
                    replica: replica.clone(),
                };
                due.push((running, policy));
            }
        }
        due
    }

    /// Takes a check's result; why the replica is unhealthy, when it is.
    pub(crate) fn checked(
        &mut self,
        (id, serial): (&str, u64),
        result: Result<(), String>,
        now: Instant,
    ) -> Result<(), String> {
        match self.entries.get_mut(id).filter(|entry| entry.serial == serial) {
            Some(entry) => entry.checks.end(result, &Policy::of(&entry.light), now),
            None => Ok(()),
        }
    }

    /// Takes what loading gave. Returns the replica when nobody wants it any more: it is to be retired.
    pub(crate) fn loaded(
        &mut self,
        id: &str,
        serial: u64,
        result: Result<Arc<R>, Failure>,
    ) -> Option<Arc<R>> {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.serial == serial) else {
            return result.ok();
        };
        match (&mut entry.state, result) {
            (State::Starting, Ok(replica)) => entry.state = State::Running(replica),
            (State::Starting, Err(failure)) => entry.state = State::Failed(failure),
            (State::Stopping { replica: slot, .. }, Ok(replica)) => *slot = Some(replica),
            (State::Stopping { .. }, Err(_)) => {
                self.entries.remove(id);
            }
            // A serial is loaded once, so these cannot be; the replica is still not leaked.
            (State::Running(_) | State::Retiring | State::Failed(_), result) => return result.ok(),
        }
        None
    }

    /// Begins to drain a replica, or moves the end of its drain closer. One that failed is forgotten.
    pub(crate) fn drain(&mut self, id: &str, drain: Drain) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        match &mut entry.state {
            State::Starting => entry.state = State::Stopping { replica: None, drain },
            State::Running(replica) => {
                entry.state = State::Stopping {
                    replica: Some(replica.clone()),
                    drain,
                };
            }
            State::Stopping { drain: current, .. } => {
                current.refuse_from = current.refuse_from.min(drain.refuse_from);
                current.until = current.until.min(drain.until);
            }
            State::Retiring => {}
            State::Failed(_) => {
                self.entries.remove(id);
            }
        }
    }

    pub(crate) fn drain_all(&mut self, drain: Drain) {
        for id in self.ids() {
            self.drain(&id, drain);
        }
    }

    /// Takes one of a replica's places.
    pub(crate) fn lease(&mut self, id: &str, now: Instant) -> Result<(Arc<str>, u64, Arc<R>), Refused> {
        let key = self
            .entries
            .get_key_value(id)
            .map(|(key, _)| key.clone())
            .ok_or(Refused::Unknown)?;
        let entry = self.entries.get_mut(id).ok_or(Refused::Unknown)?;
        let replica = match &entry.state {
            State::Starting => return Err(Refused::Starting),
            State::Running(replica) => replica,
            State::Stopping {
                replica: Some(replica),
                drain,
            } if now < drain.refuse_from => replica,
            State::Stopping { .. } | State::Retiring => return Err(Refused::Draining),
            State::Failed(failure) => return Err(Refused::Failed(failure.why.clone())),
        };
        if entry.ongoing >= entry.light.max_ongoing_requests {
            return Err(Refused::Full {
                max: entry.light.max_ongoing_requests,
            });
        }
        let replica = replica.clone();
        entry.ongoing += 1;
        Ok((key, entry.serial, replica))
    }

    /// Gives a place back; true when a draining replica has none taken any more.
    pub(crate) fn release(&mut self, id: &str, serial: u64) -> bool {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.serial == serial) else {
            return false;
        };
        entry.ongoing = entry.ongoing.saturating_sub(1);
        entry.ongoing == 0 && matches!(entry.state, State::Stopping { .. })
    }

    /// Marks a running replica as failed for good, and hands it out for retirement.
    pub(crate) fn fail(&mut self, id: &str, serial: u64, failure: Failure) -> Option<Arc<R>> {
        let entry = self.entries.get_mut(id).filter(|entry| entry.serial == serial)?;
        let State::Running(replica) = &entry.state else {
            return None;
        };
        let replica = replica.clone();
        entry.state = State::Failed(failure);
        Some(replica)
    }

    /// Hands out the replicas whose drain is over. One that still loads at its end is forgotten; what loading gives is
    /// handed back by [`Table::loaded`].
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Retiree<R>> {
        let mut due = Vec::new();
        self.entries.retain(|id, entry| {
            let State::Stopping { replica, drain } = &mut entry.state else {
                return true;
            };
            if now < over(entry.ongoing, drain) {
                return true;
            }
            match replica.take() {
                Some(replica) => {
                    due.push(Retiree {
                        id: id.clone(),
                        serial: entry.serial,
                        replica,
                    });
                    entry.state = State::Retiring;
                    true
                }
                None => now < drain.until,
            }
        });
        due
    }

    /// When [`Table::due`] has something to say next, if nothing happens before.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| match &entry.state {
                State::Stopping {
                    replica: Some(_),
                    drain,
                } => Some(over(entry.ongoing, drain)),
                State::Stopping { replica: None, drain } => Some(drain.until),
                State::Starting | State::Running(_) | State::Retiring | State::Failed(_) => None,
            })
            .min()
    }

    /// Forgets a replica whose retirement is done.
    pub(crate) fn retired(&mut self, id: &str, serial: u64) {
        let retiring = |entry: &Entry<R>| entry.serial == serial && matches!(entry.state, State::Retiring);
        if self.entries.get(id).is_some_and(retiring) {
            self.entries.remove(id);
        }
    }

    /// All running replicas, to ask them for their health.
    pub(crate) fn running(&self) -> Vec<Retiree<R>> {
        self.entries
            .iter()
            .filter_map(|(id, entry)| match &entry.state {
                State::Running(replica) => Some(Retiree {
                    id: id.clone(),
                    serial: entry.serial,
                    replica: replica.clone(),
                }),
                State::Starting | State::Stopping { .. } | State::Retiring | State::Failed(_) => None,
            })
            .collect()
    }

    /// How many requests each replica takes.
    pub(crate) fn places(&self) -> BTreeMap<Arc<str>, u32> {
        let entries = self.entries.iter();
        entries
            .map(|(id, entry)| (id.clone(), entry.light.max_ongoing_requests))
            .collect()
    }

    /// How every replica is, in the order of their ids; with the replica itself where it can be asked for more.
    pub(crate) fn reports(&self, now: Instant) -> Vec<(ReplicaReport, u32, Option<Arc<R>>)> {
        self.entries.values().map(|entry| entry.report(now)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn ids(&self) -> Vec<Arc<str>> {
        self.entries.keys().cloned().collect()
    }
}

/// When a draining replica with so many requests is done: at once after the notice when it has none.
fn over(ongoing: u32, drain: &Drain) -> Instant {
    if ongoing == 0 {
        drain.refuse_from.min(drain.until)
    } else {
        drain.until
    }
}

/// Takes out of a specification what can change while the replica runs. A controller that knows of no such thing says the
/// limit beside it.
fn split(spec: &mut ReplicaSpec) -> LightConfig {
    let limit = std::mem::take(&mut spec.max_ongoing_requests);
    let mut light = spec.light.take().unwrap_or_default();
    if light.max_ongoing_requests == 0 {
        light.max_ongoing_requests = limit;
    }
    light
}

/// What a replica reports as in force; never empty, so that every replica is told its config once.
fn version(light: &LightConfig) -> String {
    match light.version.as_str() {
        "" => "-".to_owned(),
        version => version.to_owned(),
    }
}

impl<R> Entry<R> {
    /// The specification as it is now, for a controller that lost its memory.
    fn whole(&self) -> ReplicaSpec {
        let limit = LightConfig {
            max_ongoing_requests: self.light.max_ongoing_requests,
            ..LightConfig::default()
        };
        ReplicaSpec {
            max_ongoing_requests: self.light.max_ongoing_requests,
            light: (self.light != limit).then(|| self.light.clone()),
            ..self.spec.clone()
        }
    }

    fn report(&self, now: Instant) -> (ReplicaReport, u32, Option<Arc<R>>) {
        let (state, message, replica) = match &self.state {
            State::Starting => (ReplicaState::Starting, "loading".to_owned(), None),
            State::Running(replica) => (ReplicaState::Running, String::new(), Some(replica.clone())),
            State::Stopping { replica, .. } => (
                ReplicaState::Stopping,
                format!("{} requests to finish", self.ongoing),
                replica.clone(),
            ),
            State::Retiring => (ReplicaState::Stopping, "releasing memory".to_owned(), None),
            State::Failed(failure) => (ReplicaState::Failed, failure.why.clone(), None),
        };
        let (state, message) = match &self.conflict {
            Some(conflict) => (ReplicaState::Failed, conflict.clone()),
            None => (state, message),
        };
        let report = ReplicaReport {
            replica_id: self.spec.replica_id.clone(),
            state: state.into(),
            message,
            load: None,
            model: None,
            spec: Some(self.whole()),
            light: self.in_force.clone(),
            healthy_ms_ago: self
                .checks
                .healthy()
                .map(|at| u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)),
            models: Vec::new(),
            permanent: matches!(&self.state, State::Failed(failure) if failure.permanent),
        };
        (report, self.ongoing, replica)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
