//! Parts of one model: while an update replaces a split application's replicas, deployment by deployment, a request is drawn
//! by parts of the old model or of the new one, and never by some of each.
//!
//! Invariant: what another model encoded or drew is not used.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mobula_proto::control::v1::ModelInfo;
use tokio::time::Instant;

use super::{Draw, Half};
use crate::{Error, place::Place, pool::Pool};

/// How often parts of two models are looked at again, while an update replaces one deployment's replicas before another's: about
/// a tick of a large model.
const DISAGREE: Duration = Duration::from_millis(100);

/// The replica that was asked last.
pub(super) type Asked = Mutex<String>;

pub(super) fn noted(asked: &Asked, replica_id: String) -> String {
    asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone_from(&replica_id);
    replica_id
}

impl Draw<'_> {
    /// A replica draws now, whose model is this where it has said so.
    pub(super) fn draws_with(&mut self, model: Option<Arc<ModelInfo>>) {
        let is_split = self.drawer().served.split.is_some();
        let Some(model) = model else { return };
        if is_split && model.digest != self.drawer().model.digest {
            // What was drawn with another model is no use to this one's decoder.
            self.latents.fill(None);
        }
        self.drawer_mut().model = model;
    }

    /// Whether a decoder's model is the one that drew; one that has not said what it is may be.
    pub(super) fn is_of_drawn(&self, model: Option<&ModelInfo>) -> bool {
        model.is_none_or(|model| model.digest == self.drawer().model.digest)
    }

    /// Whether latents of the denoiser's model can be decoded: one is there that may be of it, or none is there yet.
    pub(super) fn is_decodable(&self) -> bool {
        let served = self.drawer().served;
        let Some(split) = served
            .split
            .as_ref()
            .filter(|_| !matches!(self.half, Half::First(..)))
        else {
            return true;
        };
        let (replicas, model_id) = (split.decode.replicas(), served.model_id.as_deref());
        let mut models = replicas.iter().map(|replica| replica.model(model_id));
        replicas.is_empty() || models.any(|model| self.is_of_drawn(model.as_deref()))
    }

    /// Waits for a replica of the model that drew to be free, if there is one.
    ///
    /// # Errors
    /// [`Error::OtherModel`] when there is none any more.
    pub(super) async fn await_part(&self, pool: &Pool) -> Result<(), Error> {
        let model_id = self.drawer().served.model_id.as_deref();
        let replicas = pool.replicas();
        if !replicas
            .iter()
            .any(|replica| self.is_of_drawn(replica.model(model_id).as_deref()))
        {
            return Err(Error::OtherModel {
                deployment: pool.name.clone(),
            });
        }
        tokio::time::sleep(DISAGREE).await;
        Ok(())
    }

    /// Waits for an update to go on, whose parts are of two models.
    ///
    /// # Errors
    /// [`Error::OtherModel`] when they are for as long as a request waits for a replica that nobody expects,
    /// [`Error::WaitedTooLong`] when it may wait no longer.
    pub(super) async fn await_agreement(
        &self,
        since: &mut Option<Instant>,
        pool: &Pool,
    ) -> Result<(), Error> {
        let since = since.get_or_insert_with(Instant::now);
        let waited = since.elapsed();
        if waited > pool.settings.bounds.age {
            return Err(pool.waited_too_long(pool.settings.clock.now().saturating_sub(waited)));
        }
        // What is on its way is waited for as a first replica is.
        if waited > pool.settings.no_replica_timeout && !self.is_awaited() {
            return Err(Error::OtherModel {
                deployment: pool.name.clone(),
            });
        }
        tokio::time::sleep(DISAGREE).await;
        Ok(())
    }

    /// Whether every part has the replicas that it shall have, or is to have them.
    fn is_awaited(&self) -> bool {
        let split = self.drawer().served.split.as_ref();
        split.is_some_and(|split| split.encode_text.is_expected() && split.decode.is_expected())
    }

    /// A place for replicas of the denoiser's model; of models on demand any replica may have it.
    pub(super) fn of_denoiser(&self, place: Place) -> Place {
        let drawer = self.drawer();
        match drawer.served.model_id {
            Some(_) => place,
            None => place.of(&drawer.model.digest),
        }
    }

    /// Whether the replica of a pool that was asked last is of the denoiser's model; one that has not said what it is may be.
    pub(super) fn is_of_denoiser(&self, pool: &Pool, asked: &Asked) -> bool {
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let replica = pool.replicas().into_iter().find(|replica| replica.id == *asked);
        let model_id = self.drawer().served.model_id.as_deref();
        // One that has left since is replaced, perhaps by another model.
        replica.is_some_and(|replica| self.is_of_drawn(replica.model(model_id).as_deref()))
    }
}
