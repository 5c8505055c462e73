//! Models on demand of which nothing is known yet: one replica is asked to load the model and to say what it is, once for
//! all requests that wait for it.
//!
//! A request is checked, and its defaults are filled in, by what its model is; another model's sizes would draw another
//! picture. So the first request for a model waits for its load here, as it would at the replica.

use std::{sync::Arc, time::Duration};

use mobula_proto::{
    control::v1::ModelInfo,
    inference::v1::{LoadModelRequest, inference_service_client::InferenceServiceClient},
};
use tokio::{sync::Mutex, time::Instant};
use tonic::Status;
use tracing::{Instrument, debug_span};

use super::Job;
use crate::{Error, aside, pool::Pool, table::Application};

/// Whose turn it is to ask about a model; with how the last one failed, and when.
pub(crate) type Turn = Mutex<Option<(Duration, Status)>>;

impl Job {
    /// What a model is.
    pub(super) async fn learn(
        &self,
        pool: &Arc<Pool>,
        application: &Application,
        model_id: &Arc<str>,
    ) -> Result<Arc<ModelInfo>, Error> {
        let gone = || Error::UnknownModelId {
            application: application.name.clone(),
            model_id: model_id.as_ref().to_owned(),
            known: pool.models().into_keys().collect(),
        };
        let begun = self.shared.clock.now();
        let turn = pool.turn(model_id).ok_or_else(gone)?;
        let mut failed = turn.lock().await;
        if let Some(model) = pool.model(model_id).ok_or_else(gone)?.1 {
            return Ok(model);
        }
        if let Some((_, status)) = failed.as_ref().filter(|(at, _)| *at >= begun) {
            return Err(Error::Worker(Box::new(status.clone())));
        }
        let loaded = self.load(pool, model_id).await;
        if let Err(Error::Worker(status)) = &loaded {
            *failed = Some((self.shared.clock.now(), Status::clone(status)));
        }
        loaded
    }

    /// Has the model loaded.
    pub(super) async fn load(&self, pool: &Arc<Pool>, model_id: &Arc<str>) -> Result<Arc<ModelInfo>, Error> {
        let make = |replica_id| LoadModelRequest {
            replica_id,
            model_id: model_id.as_ref().to_owned(),
        };
        let span = debug_span!("load model", model = &**model_id, otel.kind = "client");
        let answer = aside::call(self, (pool, Some(model_id)), make, async |channel, request| {
            let begun = Instant::now();
            let answer = InferenceServiceClient::new(channel).load_model(request).await?;
            Ok((answer.into_inner(), begun.elapsed()))
        })
        .instrument(span)
        .await;
        let (answer, took) = answer?;
        let model = answer.model.map(Arc::new);
        let model = model.ok_or(Error::Answer("a model was loaded and not described"))?;
        tracing::info!(
            request_id = &*self.id,
            model = &**model_id,
            digest = model.digest,
            loaded = answer.was_loaded,
            elapsed_ms = super::millis(took),
            "a model on demand is known"
        );
        pool.loaded(model_id, Arc::clone(&model), answer.was_loaded.then_some(took));
        Ok(model)
    }
}
