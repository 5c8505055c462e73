//! What callers ask an application for beside a whole picture: tokens, pixels, that a model is loaded. The application is
//! found and waited for as for a request that draws, and the end is counted and reported as such a one's. As such a one it can
//! be cancelled by its id while it runs, and is ended when its reader stays and does not read: nobody else would drive it on,
//! and it would keep its place at a replica.

use std::sync::Arc;

use futures::{StreamExt as _, future::BoxFuture};
use mobula_kit::Deadline;
use mobula_proto::image::v1 as image;
use tokio::{sync::oneshot, time::Instant};

use super::{Generator, Job, Served, Trail, find::Wanted, meter::Meter, new_id};
use crate::{
    Error,
    caller::{Caller, Under},
    events::{Emit, Events},
    metrics::Door,
    registry::Entry,
    replica::Replica,
    validate,
};

/// What is asked for, and by whom.
#[derive(Debug)]
pub(crate) struct Beside {
    /// Name of the application.
    pub(crate) application: String,
    /// Which of its models on demand; empty is its own.
    pub(crate) model_id: String,
    /// The caller's name for the request; empty takes a new one.
    pub(crate) request_id: String,
    /// Which stage it is a call of, for the statistics; empty is none.
    pub(crate) stage: &'static str,
    /// Who asks.
    pub(crate) caller: Arc<Caller>,
    pub(crate) deadline: Option<Deadline>,
    /// Who goes first; 0 is nobody.
    pub(crate) priority: i32,
    pub(crate) door: Door,
}

impl Beside {
    /// As a request that draws names it.
    fn named(&self) -> image::GenerateRequest {
        image::GenerateRequest {
            model: self.application.clone(),
            model_id: self.model_id.clone(),
            priority: self.priority,
            ..Default::default()
        }
    }
}

/// Such a call. It is counted when it has ended or is dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    asked: Beside,
    job: Job,
    /// Its id, until it runs.
    entry: Option<Entry>,
    /// None for a part of a request that is counted already.
    meter: Option<Meter>,
}

impl Generator {
    /// Begins a call.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a request id that cannot be one, [`Error::Duplicate`] for one that is taken, and what the
    /// caller's key does not allow.
    pub(crate) fn beside(&self, asked: Beside) -> Result<Aside, Error> {
        let mut meter = Meter::new(&self.0, asked.door);
        if let Err(problem) = validate::request_id(&asked.request_id) {
            return Err(meter.refused(Error::Invalid(vec![problem])));
        }
        let id: Arc<str> = match asked.request_id.as_str() {
            "" => new_id().into(),
            given => given.into(),
        };
        meter.trail().named(&id, &asked.named());
        meter.trail().stage(asked.stage);
        let under = self.enter(&asked.caller).map_err(|error| meter.refused(error))?;
        let taken = self.0.registry.take(&asked.caller, Arc::clone(&id));
        let entry = taken.map_err(|error| meter.refused(error))?;
        let job = self.job(&asked, id, (meter.trail().clone(), under));
        Ok(Aside {
            asked,
            job,
            entry: Some(entry),
            meter: Some(meter),
        })
    }

    /// Begins a small call for a request that is counted already, under its id.
    ///
    /// # Errors
    /// The caller's key is good no more.
    pub(crate) fn within(&self, asked: Beside) -> Result<Aside, Error> {
        self.keys().check(&asked.caller)?;
        // The request's own id may be another's already: its drawing has ended.
        let entry = self.0.registry.take(&asked.caller, new_id().into())?;
        let beside = (Trail::default(), Under::default());
        let job = self.job(&asked, asked.request_id.as_str().into(), beside);
        Ok(Aside {
            asked,
            job,
            entry: Some(entry),
            meter: None,
        })
    }

    fn job(&self, asked: &Beside, id: Arc<str>, (trail, under): (Trail, Under)) -> Job {
        Job {
            shared: Arc::clone(&self.0),
            id,
            arrived: Instant::now(),
            deadline: self.deadline(asked.deadline, asked.door),
            door: asked.door,
            claim: asked.caller.claim(asked.named().priority()),
            failfast: self.0.failfast,
            caller: Arc::clone(&asked.caller),
            _under: under,
            emit: Emit::default(),
            trail,
        }
    }
}

impl Aside {
    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    /// What serves the application; waits for it as far as it is on its way. `is_admitted`: some deployment has let it in.
    pub(crate) async fn served(&self, is_admitted: bool) -> Result<Served, Error> {
        let wanted = Wanted {
            application: &self.asked.application,
            model_id: &self.asked.model_id,
            is_admitted,
        };
        let served = self.job.find(wanted).await?;
        self.job.trail.found(&served);
        Ok(served)
    }

    /// Has a model loaded that is served on demand, if no replica holds it; any other is waited for.
    pub(crate) async fn load(&self) -> Result<(), Error> {
        let mut moves = 0;
        loop {
            let loaded = self.load_here().await;
            if !self.job.follows(&loaded, &mut moves) {
                return loaded;
            }
        }
    }

    async fn load_here(&self) -> Result<(), Error> {
        let served = self.served(false).await?;
        if let Some(model_id) = &served.model_id {
            let holds = |replica: &Arc<Replica>| replica.model(Some(model_id)).is_some();
            if !served.pipeline.replicas().iter().any(holds) {
                self.job.load(&served.pipeline, model_id).await?;
            }
        }
        Ok(())
    }

    /// Does its work, until the deadline at the longest; gives the request's id, and what came of it. It runs while this is
    /// polled, and ends when this is dropped.
    pub(crate) async fn run<T, W>(mut self, work: W) -> Result<(Arc<str>, T), Error>
    where
        T: Send + 'static,
        W: for<'a> FnOnce(&'a Self) -> BoxFuture<'a, Result<T, Error>> + Send + 'static,
    {
        let entry = self.entry.take();
        let (tell, told) = oneshot::channel();
        let mut events = Events::new(Emit::default(), async move {
            let result = self.limited(work(&self)).await;
            // Whoever has left hears nothing.
            let _ = tell.send(self.ended(result)?);
            Ok(())
        });
        if let Some(entry) = entry {
            entry.attach(events.running());
            events.hold(entry);
        }
        while let Some(event) = events.next().await {
            event?;
        }
        told.await.map_err(|_| Error::Cancelled)
    }

    /// Runs a part of it until the deadline.
    async fn limited<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.job.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.0, work)
                .await
                .unwrap_or(Err(Error::DeadlinePassed)),
            None => work.await,
        }
    }

    /// It ended so; gives the request's id, and what came of it.
    fn ended<T>(mut self, result: Result<T, Error>) -> Result<(Arc<str>, T), Error> {
        if let Some(meter) = &mut self.meter {
            meter.ended(&result.as_ref().map(|_| ()));
            if let Err(error) = &result {
                self.job.log(error);
            }
        }
        Ok((Arc::clone(&self.job.id), result?))
    }
}
