//! Finding what serves a request, and waiting for it where it is on its way: a table at the start, a first replica, one
//! that was scaled away, a model that nobody has loaded yet.
//!
//! Invariant: a request that waits here counts as demand of every deployment that it needs, within the bounds of their
//! queues, and keeps its place in line by when it came.

use std::{sync::Arc, time::Duration};

use mobula_proto::control::v1::ModelInfo;
use mobula_serving::route::Cost;

use super::{Job, Shared};
use crate::{
    Error,
    place::Place,
    pool::{Admitted, Early, Pool, Want},
    replica::Replica,
    table::{Application, NAME_SHOWN, Split},
};

/// Which application, and which of its models.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its name; empty is the only one there is.
    pub(super) application: &'a str,
    /// One of the models on demand; empty is the application's own.
    pub(super) model_id: &'a str,
    /// Deployments that others have taken the place of let the request in: it is not refused by those.
    pub(super) is_admitted: bool,
}

/// An application that can be served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) application: Arc<Application>,
    pub(crate) model: Arc<ModelInfo>,
    /// Which of the models on demand it is; none is the application's own.
    pub(crate) model_id: Option<Arc<str>>,
    pub(crate) preprocess: Arc<Pool>,
    /// The deployment that draws: all of a picture's way, or the denoiser.
    pub(crate) pipeline: Arc<Pool>,
    /// The deployments of the other stages, where the application is split.
    pub(crate) split: Option<Split>,
    /// Its place, where it had to wait for any of that.
    early: Option<Early>,
}

impl Served {
    /// Name of what draws, for people: the application's, or the model's where there are several.
    pub(crate) fn name(&self) -> &str {
        self.model_id.as_deref().unwrap_or(&self.application.name)
    }

    /// Its id among the models on demand; empty for the application's own.
    pub(crate) fn id(&self) -> &str {
        self.model_id.as_deref().unwrap_or_default()
    }

    /// Admits a request that costs so much, and holds so many bytes.
    pub(crate) fn admit(&mut self, job: &Job, costs: (Cost, u64)) -> Result<Admitted, Error> {
        let pool = Arc::clone(&self.pipeline);
        self.admit_at(&pool, job, costs)
    }

    /// The same at the deployment that does what is asked for.
    pub(crate) fn admit_at(
        &mut self,
        pool: &Arc<Pool>,
        job: &Job,
        costs: (Cost, u64),
    ) -> Result<Admitted, Error> {
        let early = self.early.take().filter(|early| early.is_at(pool));
        let want = self.want(job, costs);
        match early {
            Some(early) => pool.settle(early, want),
            None => pool.admit(want),
        }
    }

    /// A place of a request that was admitted by the deployments before these.
    pub(crate) fn place(&self, job: &Job, costs: (Cost, u64)) -> Place {
        self.place_at(&self.pipeline, job, costs)
    }

    /// The same at the deployment that does what is asked for.
    pub(crate) fn place_at(&self, pool: &Arc<Pool>, job: &Job, costs: (Cost, u64)) -> Place {
        pool.place(self.want(job, costs))
    }

    fn want<'a>(&'a self, job: &'a Job, (cost, bytes): (Cost, u64)) -> Want<'a> {
        Want {
            cost,
            deadline: job.deadline,
            model_id: self.model_id.as_ref(),
            claim: &job.claim,
            bytes,
            failfast: job.failfast,
        }
    }
}

/// An application whose parts are all there, but for what may be known of the model.
struct Found {
    application: Arc<Application>,
    model: Option<Arc<ModelInfo>>,
    model_id: Option<Arc<str>>,
    preprocess: Arc<Pool>,
    pipeline: Arc<Pool>,
}

impl Found {
    /// What there is now; nothing while a part is missing that may come.
    fn of(application: &Arc<Application>, model_id: &str) -> Result<Option<Self>, Error> {
        let parts = application.preprocess.clone().zip(application.pipeline.clone());
        let Some((preprocess, pipeline)) = parts else {
            return Ok(None);
        };
        let (model, model_id) = if model_id.is_empty() {
            match &application.model {
                Some(model) => (Some(Arc::clone(model)), None),
                None => return own_model_missing(&pipeline),
            }
        } else {
            let Some((id, model)) = pipeline.model(model_id) else {
                return Err(Error::UnknownModelId {
                    application: application.name.clone(),
                    model_id: model_id.chars().take(NAME_SHOWN).collect(),
                    known: pipeline.models().into_keys().collect(),
                });
            };
            (model, Some(id))
        };
        Ok(Some(Self {
            application: Arc::clone(application),
            model,
            model_id,
            preprocess,
            pipeline,
        }))
    }
}

/// An application's own model is on its way, unless its replicas are there and have none.
fn own_model_missing<T>(pipeline: &Pool) -> Result<Option<T>, Error> {
    let known: Vec<_> = pipeline.models().into_keys().collect();
    let has_own = |replica: &Arc<Replica>| replica.model(None).is_some();
    // A pool may be ahead of the table that it was looked up in.
    if known.is_empty() || !pipeline.has_replicas() || pipeline.replicas().iter().any(has_own) {
        return Ok(None);
    }
    Err(Error::ModelIdNotNamed { known })
}

/// The place of a request whose cost is not known yet.
enum Held {
    /// It was let in there.
    Early(Early),
    /// It was let in elsewhere.
    Place(Place),
}

impl Held {
    fn take(pool: &Arc<Pool>, want: Want<'_>, is_admitted: bool) -> Result<Self, Error> {
        Ok(if is_admitted {
            Self::Place(pool.place(want))
        } else {
            Self::Early(pool.expect(want)?)
        })
    }

    fn is_at(&self, pool: &Arc<Pool>) -> bool {
        match self {
            Self::Early(early) => early.is_at(pool),
            Self::Place(place) => place.is_at(pool),
        }
    }

    /// What the pool has yet to hear its cost of.
    fn early(self) -> Option<Early> {
        match self {
            Self::Early(early) => Some(early),
            Self::Place(_) => None,
        }
    }
}

/// A request that waits for an application, as the application's pools count it.
#[derive(Default)]
struct Waiting {
    pipeline: Option<Held>,
    preprocess: Option<Place>,
}

impl Waiting {
    /// Takes places in the pools that there are now, or keeps those it has.
    fn at(self, application: &Application, want: Want<'_>, is_admitted: bool) -> Result<Self, Error> {
        let pipeline = match (&application.pipeline, self.pipeline) {
            (Some(pool), Some(held)) if held.is_at(pool) => Some(held),
            (Some(pool), _) => Some(Held::take(pool, want, is_admitted)?),
            (None, _) => None,
        };
        let preprocess = match (&application.preprocess, self.preprocess) {
            (Some(pool), Some(place)) if place.is_at(pool) => Some(place),
            (Some(pool), _) => Some(pool.place(want)),
            (None, _) => None,
        };
        Ok(Self { pipeline, preprocess })
    }
}

impl Shared {
    /// Until when a request waits for an application that it has waited for since `since`, as far as can be told now.
    fn waits_until(&self, application: &Application, since: Duration) -> Duration {
        let limits = application.pools().map(|pool| pool.waits_until(since));
        limits.max().unwrap_or(since + self.no_replica_timeout)
    }
}

impl Job {
    /// The application with everything that is needed to serve it.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] and its kin when there is none, [`Error::NoReplica`] when none can be had, or none came,
    /// [`Error::Overloaded`] when too many wait.
    pub(super) async fn find(&self, wanted: Wanted<'_>) -> Result<Served, Error> {
        let (mut moves, mut named) = (0, None);
        loop {
            let found = self.find_here(wanted, &mut named).await;
            // While it waited for a model to be loaded.
            if !self.follows(&found, &mut moves) {
                return found;
            }
        }
    }

    /// The same where the application is served now; `named` is which one it is, once that is known: one that is not named
    /// stays the one that it was when the request came.
    async fn find_here(
        &self,
        wanted: Wanted<'_>,
        named: &mut Option<Arc<Application>>,
    ) -> Result<Served, Error> {
        let shared = &self.shared;
        shared.heard().await;
        let mut tables = shared.tables.clone();
        let begun = shared.clock.now();
        let mut waiting: Option<Waiting> = None;
        let found = loop {
            let application = {
                let table = tables.borrow_and_update();
                let name = named.as_ref().map_or(wanted.application, |first| &first.name);
                Arc::clone(table.of_caller(name, &self.caller)?)
            };
            named.get_or_insert_with(|| Arc::clone(&application));
            self.caller.check(&application.name, wanted.model_id)?;
            self.trail.application(&application);
            let found = Found::of(&application, wanted.model_id);
            if let Some(found) = found.map_err(|error| self.caller.narrow(error))? {
                break found;
            }
            if waiting.is_none() && !wanted.is_admitted {
                refuse(&application)?;
            }
            if self.failfast {
                fail_fast(&application)?;
                return Err(self.in_vain(&application, begun));
            }
            let model_id = (!wanted.model_id.is_empty()).then(|| Arc::from(wanted.model_id));
            let want = Want::least((&self.claim, self.failfast), model_id.as_ref());
            let places = waiting.unwrap_or_default();
            waiting = Some(places.at(&application, want, wanted.is_admitted)?);
            let limit = shared.waits_until(&application, begun);
            tokio::select! {
                biased;
                changed = tables.changed() => changed.map_err(|_| Error::NoRoutes)?,
                () = tokio::time::sleep_until(shared.clock.at(limit)) => {
                    if shared.waits_until(&application, begun) <= shared.clock.now() {
                        return Err(self.in_vain(&application, begun));
                    }
                }
            }
        };
        if self.failfast {
            fail_fast(&found.application)?;
        }
        match &waiting {
            None if wanted.is_admitted => {}
            None => refuse(&found.application)?,
            Some(_) => self.trail.without(shared.clock.now().saturating_sub(begun)),
        }
        // What has come meanwhile may be other deployments than it waited at.
        let held = waiting.and_then(|waiting| waiting.pipeline);
        let held = held.filter(|held| held.is_at(&found.pipeline));
        self.known(found, held, wanted.is_admitted).await
    }

    /// The same application as it is now, for a request that it let in.
    ///
    /// # Errors
    /// As [`Job::find`].
    pub(super) async fn again(&self, served: &Served) -> Result<Served, Error> {
        self.find(Wanted {
            application: &served.application.name,
            model_id: served.id(),
            is_admitted: true,
        })
        .await
    }

    /// Learns what the model is, where that is not known yet.
    async fn known(&self, found: Found, held: Option<Held>, is_admitted: bool) -> Result<Served, Error> {
        let (model, held) = match (found.model, &found.model_id) {
            (None, Some(model_id)) => {
                let want = Want::least((&self.claim, self.failfast), Some(model_id));
                let held = match held {
                    Some(held) => held,
                    None => Held::take(&found.pipeline, want, is_admitted)?,
                };
                let model = Box::pin(self.learn(&found.pipeline, &found.application, model_id)).await?;
                (model, Some(held))
            }
            (Some(model), _) => (model, held),
            // An application's own model is always known here.
            (None, None) => return Err(Error::NoRoutes),
        };
        let split = found.application.split.clone();
        Ok(Served {
            application: found.application,
            model,
            model_id: found.model_id,
            preprocess: found.preprocess,
            pipeline: found.pipeline,
            split,
            early: held.and_then(Held::early),
        })
    }

    /// What a request is told that waited for an application in vain.
    fn in_vain(&self, application: &Application, since: Duration) -> Error {
        let pool = application.pipeline.as_ref().or(application.preprocess.as_ref());
        pool.map_or_else(
            || Error::NoReplica {
                deployment: application.name.clone(),
                waited: self.shared.clock.now().saturating_sub(since),
                why: String::new(),
            },
            |pool| pool.no_replica(since),
        )
    }
}

/// Refuses a request that does not wait where no replica can be reached.
fn fail_fast(application: &Application) -> Result<(), Error> {
    let pools = [&application.pipeline, &application.preprocess];
    pools.into_iter().flatten().try_for_each(|pool| pool.fail_fast())
}

/// Refuses a request that has just come where the table says why there is no replica.
fn refuse(application: &Application) -> Result<(), Error> {
    let refusal = application.pools().find_map(|pool| pool.refusal());
    refusal.map_or(Ok(()), Err)
}
