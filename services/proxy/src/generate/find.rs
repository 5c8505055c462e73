//! Finding what serves a request, and waiting for it where it is on its way: a table at the start, a first replica, one
//! that was scaled away, a model that nobody has loaded yet.
//!
//! Invariant: a request that waits here counts as demand of every deployment that it needs, within the bounds of their
//! queues, and keeps its place in line by when it came.

use std::{sync::Arc, time::Duration};

use mobula_proto::control::v1::ModelInfo;
use mobula_serving::{fair::Claim, route::Cost};

use super::{Job, MAX_MOVES, Shared};
use crate::{
    Error,
    place::Place,
    pool::{Admitted, Early, Pool, Want},
    table::{Application, NAME_SHOWN, Split},
};

/// Which application, and which of its models.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its name; empty is the only one there is.
    pub(super) application: &'a str,
    /// One of the models on demand; empty is the application's own.
    pub(super) model_id: &'a str,
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
        let early = self.early.take();
        let want = self.want(job, costs);
        match early {
            Some(early) => self.pipeline.settle(early, want),
            None => self.pipeline.admit(want),
        }
    }

    /// A place of a request that was admitted by the deployments before these.
    pub(crate) fn place(&self, job: &Job, costs: (Cost, u64)) -> Place {
        self.pipeline.place(self.want(job, costs))
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
    if known.is_empty() || !pipeline.has_replicas() {
        return Ok(None);
    }
    Err(Error::ModelIdNotNamed { known })
}

/// A request that waits for an application, as the application's pools count it.
#[derive(Default)]
struct Waiting {
    pipeline: Option<Early>,
    preprocess: Option<Place>,
}

impl Waiting {
    /// Takes places in the pools that there are now, or keeps those it has.
    fn at(
        self,
        application: &Application,
        model_id: Option<&Arc<str>>,
        who: (&Claim, bool),
    ) -> Result<Self, Error> {
        let want = Want::least(who, model_id);
        let same = |place: &Place, pool: &Arc<Pool>| Arc::ptr_eq(place.pool(), pool);
        let pipeline = match (&application.pipeline, self.pipeline) {
            (Some(pool), Some(early)) if same(early.place(), pool) => Some(early),
            (Some(pool), _) => Some(pool.expect(want)?),
            (None, _) => None,
        };
        let preprocess = match (&application.preprocess, self.preprocess) {
            (Some(pool), Some(place)) if same(&place, pool) => Some(place),
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
        let mut moves = 0;
        loop {
            match self.find_here(wanted).await {
                // While it waited for a model to be loaded.
                Err(Error::Moved { .. }) if moves < MAX_MOVES => moves += 1,
                found => return found,
            }
        }
    }

    /// The same where the application is served now.
    async fn find_here(&self, wanted: Wanted<'_>) -> Result<Served, Error> {
        let shared = &self.shared;
        shared.heard().await;
        let mut tables = shared.tables.clone();
        let begun = shared.clock.now();
        let mut waiting: Option<Waiting> = None;
        let found = loop {
            let application = {
                let table = tables.borrow_and_update();
                Arc::clone(table.of_caller(wanted.application, &self.caller)?)
            };
            self.caller.check(&application.name, wanted.model_id)?;
            self.trail.application(&application);
            let found = Found::of(&application, wanted.model_id);
            if let Some(found) = found.map_err(|error| self.caller.narrow(error))? {
                break found;
            }
            if waiting.is_none() {
                refuse(&application)?;
            }
            if self.failfast {
                fail_fast(&application)?;
                return Err(self.in_vain(&application, begun));
            }
            let model_id = (!wanted.model_id.is_empty()).then(|| Arc::from(wanted.model_id));
            let places = waiting.unwrap_or_default();
            waiting = Some(places.at(&application, model_id.as_ref(), (&self.claim, self.failfast))?);
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
            None => refuse(&found.application)?,
            Some(_) => self.trail.without(shared.clock.now().saturating_sub(begun)),
        }
        self.known(found, waiting.and_then(|waiting| waiting.pipeline))
            .await
    }

    /// The same application as it is now.
    ///
    /// # Errors
    /// As [`Job::find`].
    pub(super) async fn again(&self, served: &Served) -> Result<Served, Error> {
        self.find(Wanted {
            application: &served.application.name,
            model_id: served.id(),
        })
        .await
    }

    /// Learns what the model is, where that is not known yet.
    async fn known(&self, found: Found, early: Option<Early>) -> Result<Served, Error> {
        let (model, early) = match (found.model, &found.model_id) {
            (None, Some(model_id)) => {
                let early = match early {
                    Some(early) => early,
                    None => found
                        .pipeline
                        .expect(Want::least((&self.claim, self.failfast), Some(model_id)))?,
                };
                let model = Box::pin(self.learn(&found.pipeline, &found.application, model_id)).await?;
                (model, Some(early))
            }
            (Some(model), _) => (model, early),
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
            early,
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
