//! What is told of a request when it has ended, however it ends: counters, and a record for the controller.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mobula_proto::{common::v1::Timings, control::v1::FinishedRequest, image::v1::GenerateRequest};
use tokio::time::Instant;
use tonic::Code;

use super::{Served, Shared, millis};
use crate::{
    Error,
    metrics::{Door, Ingress},
    table::{Application, NAME_SHOWN},
    v2::{Ended, Statistics},
    validate::Plan,
};

/// Bytes of an error's text that are kept: enough for a dozen fields that are wrong.
const MESSAGE_MAX: usize = 1024;
/// Replicas of one request that are kept: more than any sensible number of attempts.
const REPLICAS_MAX: usize = 16;

/// What is known of a request so far; a cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trail(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    record: FinishedRequest,
    /// How long it waited where there was no replica.
    without: Duration,
    /// Where it is counted.
    ingress: Option<Arc<Ingress>>,
    /// Where its model's work is counted.
    statistics: Option<Arc<Statistics>>,
    /// Which stage it is a call of; empty is none.
    stage: &'static str,
    /// Rows of such a call.
    rows: u32,
}

impl Trail {
    /// Its id, and what it asked for.
    pub(super) fn named(&self, id: &str, request: &GenerateRequest) {
        let mut noted = self.lock();
        noted.record.request_id = id.to_owned();
        noted.record.application = request.model.chars().take(NAME_SHOWN).collect();
        noted.record.model_id = request.model_id.chars().take(NAME_SHOWN).collect();
    }

    /// Which application that is.
    pub(super) fn application(&self, application: &Application) {
        let mut noted = self.lock();
        if noted.ingress.is_none() {
            noted.record.application.clone_from(&application.name);
            noted.ingress = Some(Arc::clone(&application.ingress));
        }
    }

    /// It is a call of one stage; empty is none.
    pub(super) fn stage(&self, stage: &'static str) {
        self.lock().stage = stage;
    }

    /// Such a call has so many rows.
    pub(crate) fn rows(&self, rows: usize) {
        self.lock().rows = u32::try_from(rows).unwrap_or(u32::MAX);
    }

    /// Which model that is.
    pub(super) fn found(&self, served: &Served) {
        let mut noted = self.lock();
        noted.record.model_id = served.id().to_owned();
        // Only of models that there are, so that nobody makes up names to be counted.
        noted.statistics = Some(Arc::clone(&served.application.statistics));
    }

    /// What is to be drawn.
    pub(super) fn planned(&self, plan: &Plan) {
        let mut noted = self.lock();
        let record = &mut noted.record;
        (record.width, record.height, record.steps) = (plan.width, plan.height, plan.steps);
        record.pictures = u32::try_from(plan.seeds.len()).unwrap_or(u32::MAX);
    }

    /// How many were ahead of it.
    pub(super) fn ahead(&self, ahead: usize) {
        self.lock().record.ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
    }

    /// A replica took it.
    pub(crate) fn had(&self, replica: &str) {
        let mut noted = self.lock();
        if noted.record.replica_ids.len() < REPLICAS_MAX {
            noted.record.replica_ids.push(replica.to_owned());
        }
    }

    /// True when a replica took it.
    pub(super) fn was_taken(&self) -> bool {
        !self.lock().record.replica_ids.is_empty()
    }

    /// Where its time went, so far.
    pub(crate) fn timings(&self, timings: Timings) {
        self.lock().record.timings = Some(timings);
    }

    /// It waited so long where there was no replica.
    pub(crate) fn without(&self, waited: Duration) {
        self.lock().without += waited;
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request's end, however it comes.
#[derive(Debug)]
pub(super) struct Meter {
    shared: Arc<Shared>,
    door: Door,
    trail: Trail,
    begun: Instant,
    arrived_unix_ms: u64,
    code: Code,
    message: String,
}

impl Meter {
    /// A request that has just come.
    pub(super) fn new(shared: &Arc<Shared>, door: Door) -> Self {
        shared.metrics.in_flight.increment(1.0);
        if door == Door::Grpc {
            shared.metrics.ongoing(door).change(1.0);
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            shared: Arc::clone(shared),
            door,
            trail: Trail::default(),
            begun: Instant::now(),
            arrived_unix_ms: millis(unix.unwrap_or_default()),
            // Dropped before it ended: the caller left, or somebody cancelled it.
            code: Code::Cancelled,
            message: "the caller left, or somebody cancelled it".to_owned(),
        }
    }

    pub(super) fn trail(&self) -> &Trail {
        &self.trail
    }

    /// It ended so.
    pub(super) fn ended(&mut self, result: &Result<(), impl std::borrow::Borrow<Error>>) {
        let error = result.as_ref().err().map(std::borrow::Borrow::borrow);
        self.code = error.map_or(Code::Ok, Error::code);
        self.message = error.map_or_else(String::new, message);
    }

    /// It ended before it began; gives the error back.
    pub(super) fn refused(&mut self, error: Error) -> Error {
        self.code = error.code();
        self.message = message(&error);
        error
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let metrics = &self.shared.metrics;
        metrics.in_flight.decrement(1.0);
        metrics.ended(self.door, self.code);
        let noted = std::mem::take(&mut *self.trail.lock());
        if self.door == Door::Grpc {
            metrics.ongoing(self.door).change(-1.0);
            let ingress = noted.ingress.as_ref().unwrap_or(&metrics.nowhere);
            ingress.called(self.code, self.begun);
        }
        // One without an id was refused for its id.
        if noted.record.request_id.is_empty() {
            return;
        }
        let total = self.begun.elapsed();
        if let Some(statistics) = &noted.statistics {
            let record = &noted.record;
            let ended = SystemTime::now().duration_since(UNIX_EPOCH);
            statistics.ended(Ended {
                model_id: &record.model_id,
                stage: noted.stage,
                is_success: self.code == Code::Ok,
                count: record.pictures.max(noted.rows),
                timings: record.timings.unwrap_or_default(),
                total,
                at_unix_ms: millis(ended.unwrap_or_default()),
            });
        }
        self.shared.records.push(FinishedRequest {
            code: u32::try_from(i32::from(self.code)).unwrap_or_default(),
            message: std::mem::take(&mut self.message),
            arrived_unix_ms: self.arrived_unix_ms,
            total_ms: millis(total),
            // Several waits at a time count once.
            no_replica_ms: millis(noted.without.min(total)),
            ..noted.record
        });
    }
}

fn message(error: &Error) -> String {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(MESSAGE_MAX));
    text
}
