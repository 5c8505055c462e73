//! One replica as this proxy sees it: where it is, what it serves, how busy it is.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mobula_proto::{
    common::v1::Load,
    control::v1::{ModelInfo, ReplicaEndpoint},
};
use mobula_serving::route::{Book, Report};
use tonic::transport::Channel;

/// A replica in the route table.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) channel: Channel,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    book: Book,
    model: Option<Arc<ModelInfo>>,
    /// What the table said last; the table repeats it until the controller hears anew.
    told: Option<Load>,
}

impl Replica {
    /// A replica that is new in the table.
    pub(crate) fn new(endpoint: &ReplicaEndpoint, channel: Channel, max_ongoing: u32) -> Self {
        let inner = Inner {
            book: Book::new(max_ongoing),
            model: None,
            told: None,
        };
        Self {
            id: endpoint.replica_id.clone(),
            address: endpoint.address.clone(),
            channel,
            inner: Mutex::new(inner),
        }
    }

    /// Takes in what the table says of it now.
    pub(crate) fn update(&self, endpoint: &ReplicaEndpoint, max_ongoing: u32, now: Duration) {
        let mut inner = self.lock();
        inner.book.set_max_ongoing(max_ongoing);
        if let Some(model) = &endpoint.model
            && inner.model.as_deref() != Some(model)
        {
            inner.model = Some(Arc::new(model.clone()));
        }
        if let Some(load) = endpoint.load
            && inner.told != Some(load)
        {
            inner.told = Some(load);
            inner.book.report(report(load), now);
        }
    }

    /// Its model, once it was reported.
    pub(crate) fn model(&self) -> Option<Arc<ModelInfo>> {
        self.lock().model.clone()
    }

    /// Looks into its book, or writes into it.
    pub(crate) fn book<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.lock().book)
    }

    /// Nothing under this lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load as the router reads it.
pub(crate) fn report(load: Load) -> Report {
    Report {
        queued_rows: load.queued_rows,
        row_ns: load.row_ns,
    }
}
