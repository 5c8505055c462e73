//! The models that a replica serves on demand: loaded when a request names one, beside each other, and given up when
//! another needs the place or the memory.
//!
//! Who goes is decided by [`Shelf`]; here it is loaded and retired. Invariants: a model is loaded once however many ask for
//! it at the same time; a model in use is never retired; one that could not be loaded is tried again by the next request.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobula_kit::worker::{HeldModel, Load, Multiplexed, ReplicaSpec};
use mobula_serving::shelf::{Shelf, Taken};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::error::Error;
use crate::loader::Stock;
use crate::replica::Loaded;
use crate::shared::Share;

type Cell = Arc<OnceCell<Share<Loaded>>>;

/// The models of a replica beside its own.
#[derive(Debug)]
pub(crate) struct OnDemand {
    stock: Arc<Stock>,
    spec: ReplicaSpec,
    metrics: Multiplexed,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    shelf: Shelf,
    cells: HashMap<String, Cell>,
}

/// A model in use; others may take its place once this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    of: Arc<OnDemand>,
    id: String,
    cell: Cell,
}

impl Deref for Held {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        // Handed out only when it is loaded, and taken away only when nobody uses it.
        self.cell.get().expect("a model in use is loaded")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.of.lock();
        inner.shelf.leave(&self.id);
        if self.cell.get().is_none() && inner.shelf.forget(&self.id) {
            inner.cells.remove(&self.id);
        }
    }
}

impl OnDemand {
    /// Makes the place for the models of a specification; none when it names none.
    pub(crate) fn new(stock: &Arc<Stock>, spec: &ReplicaSpec) -> Option<Arc<Self>> {
        let inner = Inner {
            shelf: Shelf::new(spec.max_models as usize),
            cells: HashMap::new(),
        };
        (!spec.models.is_empty()).then(|| {
            Arc::new(Self {
                stock: Arc::clone(stock),
                spec: spec.clone(),
                metrics: Multiplexed::new(spec),
                inner: Mutex::new(inner),
            })
        })
    }

    /// Gives a model, loading it first if it is not held; and whether it was loaded for this.
    ///
    /// # Errors
    /// [`Error::Request`] for an id that is not known, [`Error::NoRoom`] when all models are in use, what loading said, or
    /// [`Error::DeadlinePassed`].
    pub(crate) async fn take(
        self: &Arc<Self>,
        id: &str,
        deadline: Option<Instant>,
    ) -> Result<(Held, bool), Error> {
        let folder = self.spec.models.get(id).ok_or_else(|| self.unknown(id))?;
        self.metrics.asked();
        let (held, leaver) = self.reserve(id)?;
        let mut was_loaded = false;
        let load = held.cell.get_or_try_init(|| {
            was_loaded = true;
            self.load(id, folder, leaver)
        });
        match deadline {
            None => load.await?,
            Some(at) => tokio::time::timeout_at(at, load)
                .await
                .map_err(|_| Error::DeadlinePassed { started: false })??,
        };
        Ok((held, was_loaded))
    }

    /// The models that are loaded.
    pub(crate) fn models(&self) -> Vec<HeldModel> {
        let inner = self.lock();
        let loaded = inner.cells.iter().filter_map(|(id, cell)| {
            Some(HeldModel {
                model_id: id.clone(),
                info: Some(cell.get()?.info().clone()),
            })
        });
        let mut models: Vec<HeldModel> = loaded.collect();
        models.sort_by(|a, b| a.model_id.cmp(&b.model_id));
        models
    }

    /// How busy each of them is.
    pub(crate) fn loads(&self) -> Vec<Load> {
        let inner = self.lock();
        let loaded = inner.cells.values().filter_map(|cell| cell.get());
        loaded.map(|model| model.load()).collect()
    }

    /// Retires all of them. It blocks: not for async threads.
    pub(crate) fn retire(&self) {
        let cells: Vec<(String, Cell)> = self.lock().cells.drain().collect();
        for (id, cell) in cells {
            self.metrics.leaves(&id);
            self.give_up(&cell);
        }
    }

    /// Takes a place for a model; also gives what left for it.
    fn reserve(self: &Arc<Self>, id: &str) -> Result<(Held, Option<Cell>), Error> {
        let mut inner = self.lock();
        let taken = inner.shelf.take(id).map_err(|full| Error::NoRoom {
            id: id.to_owned(),
            why: full.to_string(),
        })?;
        let mut leaver = match taken {
            Taken::New { leaves: Some(leaves) } => {
                self.metrics.leaves(&leaves);
                inner.cells.remove(&leaves)
            }
            Taken::Held | Taken::New { leaves: None } => None,
        };
        let cell = inner.cells.entry(id.to_owned()).or_default();
        // One whose engine failed is of no use to anybody; those who still have it see it fail.
        if cell.get().is_some_and(|model| !model.is_sound()) {
            self.metrics.leaves(id);
            leaver = Some(std::mem::take(cell));
        }
        let held = Held {
            of: Arc::clone(self),
            id: id.to_owned(),
            cell: Arc::clone(cell),
        };
        Ok((held, leaver))
    }

    /// Loads a model; while memory is short, the models that nobody uses go first, the least recently used before others.
    async fn load(
        self: &Arc<Self>,
        id: &str,
        folder: &str,
        leaver: Option<Cell>,
    ) -> Result<Share<Loaded>, Error> {
        let mut leaver = leaver;
        loop {
            if let Some(cell) = leaver.take() {
                // Its memory must be back before another model asks for it.
                let of = Arc::clone(self);
                let _ = tokio::task::spawn_blocking(move || of.give_up(&cell)).await;
            }
            let begun = Instant::now();
            tracing::info!(model = id, folder, "loading on demand");
            let why = match self.stock.load(folder, &self.spec).await {
                Err(Error::Memory { needs, left, budget }) => Error::Memory { needs, left, budget },
                loaded => {
                    if loaded.is_ok() {
                        self.metrics.loaded(id, begun.elapsed());
                    }
                    return loaded;
                }
            };
            let mut inner = self.lock();
            leaver = inner.shelf.evict().and_then(|id| {
                self.metrics.leaves(&id);
                inner.cells.remove(&id)
            });
            if leaver.is_none() {
                return Err(Error::NoRoom {
                    id: id.to_owned(),
                    why: why.to_string(),
                });
            }
        }
    }

    fn give_up(&self, cell: &Cell) {
        if let Some(model) = cell.get() {
            let begun = Instant::now();
            model.give_up(Loaded::retire);
            self.metrics.unloaded(begun.elapsed());
        }
    }

    fn unknown(&self, id: &str) -> Error {
        let mut known: Vec<&str> = self.spec.models.keys().map(String::as_str).collect();
        known.sort_unstable();
        let why = format!(
            "is {id:?}, which this replica does not serve; it serves {}",
            known.join(", ")
        );
        Error::Request(vec![("model_id".to_owned(), why)])
    }

    /// Nothing under this lock can panic half-way, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
