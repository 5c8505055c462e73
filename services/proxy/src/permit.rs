//! The right to send one request to one replica; travels by value, freed by drop.

use std::{sync::Arc, time::Duration};

use mobula_proto::common::v1::Load;
use mobula_serving::route::Cost;
use tonic::transport::Channel;

use crate::{pool::Pool, replica::Replica};

/// A request's slot at a replica.
#[derive(Debug)]
pub(crate) struct Permit {
    pool: Arc<Pool>,
    replica: Arc<Replica>,
    cost: Cost,
    /// Which model it is for, where the replica has several on demand.
    model_id: Option<Arc<str>>,
    /// The replica took the request.
    was_taken: bool,
    /// Rows of the request that the replica has not computed.
    rows_left: u64,
    /// When the replica began to draw it.
    begun: Option<Duration>,
    /// How long it took, by the replica's own count: what its reader took does not belong to it.
    took: Option<Duration>,
}

impl Permit {
    /// A slot that is counted in the replica's book and in the pool's already.
    pub(crate) fn new(
        pool: Arc<Pool>,
        replica: Arc<Replica>,
        cost: Cost,
        model_id: Option<Arc<str>>,
    ) -> Self {
        if let Some(model_id) = &model_id {
            replica.uses(model_id, pool.settings.clock.now());
        }
        Self {
            pool,
            replica,
            cost,
            model_id,
            was_taken: false,
            rows_left: cost.get(),
            begun: None,
            took: None,
        }
    }

    /// The replica takes the request to draw it.
    pub(crate) fn draws(&mut self) {
        self.begun = Some(self.now());
    }

    /// It is drawn; that took so long.
    pub(crate) fn drawn(&mut self, took: Duration) {
        self.replica.book(|book| book.did());
        self.took = Some(took);
    }

    /// The replica did a small call.
    pub(crate) fn helped(&self) {
        self.pool.helped(&self.replica);
    }

    /// The replica.
    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// The connection to its worker.
    pub(crate) fn channel(&self) -> Channel {
        self.replica.channel.clone()
    }

    /// The replica took the request.
    pub(crate) fn accepted(&mut self) {
        self.replica.book(|book| book.accepted());
        self.was_taken = true;
        self.pool.note_alive();
    }

    /// Uncounts rows that were computed: all but `left`.
    pub(crate) fn progress(&mut self, left: u64) {
        let done = self.rows_left.saturating_sub(left);
        if done > 0 {
            self.rows_left -= done;
            self.replica.book(|book| book.progress(done));
            self.pool.progress(done);
        }
    }

    /// The replica says how busy it is.
    pub(crate) fn load(&self, load: Load) {
        self.pool.note_load(&self.replica, load);
    }

    /// The replica says that it is full.
    pub(crate) fn refused(&self) {
        let now = self.now();
        self.replica.refused(self.model_id.as_ref(), now);
        self.pool.note_alive();
    }

    /// The replica does not have the model.
    pub(crate) fn lacks(&self) {
        if let Some(model_id) = &self.model_id {
            self.replica.lacks(model_id);
        }
    }

    /// The replica failed the request that it took, by its own fault.
    pub(crate) fn broke(&self) {
        self.pool.broke(&self.replica);
    }

    /// The replica is lost.
    pub(crate) fn failed(&self) {
        let now = self.now();
        self.replica.book(|book| book.failed(now));
    }

    fn now(&self) -> Duration {
        self.pool.settings.clock.now()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.replica.book(|book| book.give_back(self.rows_left));
        if let Some(model_id) = &self.model_id {
            self.replica.used(model_id, self.was_taken, self.now());
        }
        let drawing = match (self.took, self.begun) {
            (Some(took), _) => Some((took, true)),
            (None, Some(begun)) => Some((self.now().saturating_sub(begun), false)),
            (None, None) => None,
        };
        self.pool
            .given_back(&self.replica, (self.cost, self.rows_left), drawing);
    }
}
