//! What callers ask an application for beside a whole picture: tokens, pixels, that a model is loaded. The application is
//! found and waited for as for a request that draws, and the end is counted and reported as such a one's.

use std::sync::Arc;

use mobula_kit::Deadline;
use mobula_proto::image::v1 as image;
use tokio::time::Instant;

use super::{Generator, Job, Served, Trail, find::Wanted, meter::Meter, new_id};
use crate::{
    Error,
    caller::{Caller, Under},
    events::Emit,
    metrics::Door,
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

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            application: &self.application,
            model_id: &self.model_id,
        }
    }
}

impl Generator {
    /// Runs `work` with what serves an application, until it ends, its deadline passes, or its caller drops it. Gives the
    /// request's id, and what came of it.
    pub(crate) async fn beside<T>(
        &self,
        asked: Beside,
        work: impl AsyncFnOnce(&Job, &Served) -> Result<T, Error>,
    ) -> Result<(Arc<str>, T), Error> {
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
        let job = self.job(&asked, Arc::clone(&id), (meter.trail().clone(), under));
        let work = async {
            let served = job.find(asked.wanted()).await?;
            job.trail.found(&served);
            work(&job, &served).await
        };
        let result = match job.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.0, work)
                .await
                .unwrap_or(Err(Error::DeadlinePassed)),
            None => work.await,
        };
        meter.ended(&result.as_ref().map(|_| ()));
        if let Err(error) = &result {
            job.log(error);
        }
        Ok((id, result?))
    }

    /// A small call for a request that is counted already, and has its deadline.
    pub(crate) async fn within<T>(
        &self,
        asked: Beside,
        work: impl AsyncFnOnce(&Job, &Served) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.keys().check(&asked.caller)?;
        let beside = (Trail::default(), Under::default());
        let job = self.job(&asked, asked.request_id.as_str().into(), beside);
        let call = async {
            let served = job.find(asked.wanted()).await?;
            work(&job, &served).await
        };
        match job.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.0, call)
                .await
                .unwrap_or(Err(Error::DeadlinePassed)),
            None => call.await,
        }
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

    /// Has a model loaded that is served on demand, if no replica holds it; any other is waited for.
    pub(crate) async fn load(&self, asked: Beside) -> Result<(), Error> {
        let load = async |job: &Job, served: &Served| {
            if let Some(model_id) = &served.model_id {
                let holds =
                    |replica: &Arc<_>| crate::replica::Replica::model(replica, Some(model_id)).is_some();
                if !served.pipeline.replicas().iter().any(holds) {
                    job.load(&served.pipeline, model_id).await?;
                }
            }
            Ok(())
        };
        self.beside(asked, load).await.map(|_| ())
    }
}
