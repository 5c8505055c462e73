//! Drawing on a replica, and on another one when it is lost.
//!
//! Invariants: a picture that the caller has is never sent again; the caller hears of every loss by one `restarted`
//! event; what was asked of the second replica is what was asked of the first.

use std::{sync::Arc, time::Duration};

use mobula_proto::{
    common::v1::Timings,
    control::v1::ModelInfo,
    image::v1::{self as image, generate_response::Event},
    inference::v1::{
        self as inference, generate_response::Event as Drawn,
        inference_service_client::InferenceServiceClient,
    },
};
use mobula_serving::retry::Attempts;
use tokio::time::Instant;
use tonic::{Request, Status};
use tracing::{Instrument, debug_span};

use crate::{
    Error,
    fault::{Fault, classify},
    generate::{Job, Served},
    infotext,
    metrics::Reroute,
    permit::Permit,
    place::Place,
    tokenize::Tokens,
    validate::Plan,
};

/// A planned and tokenized request that is drawn.
pub(crate) struct Draw<'a> {
    job: &'a Job,
    served: &'a Served,
    plan: &'a Plan,
    tokens: Tokens,
    preprocess: Duration,
    queued: Duration,
    /// The pictures that the caller has.
    sent: Vec<bool>,
    /// The model that drew, as the replica reports it.
    model: Arc<ModelInfo>,
    /// Timings of the last picture, should the replica be lost between it and its last word.
    last: Timings,
}

/// How an attempt ended, short of success.
struct Ended {
    fault: Fault,
    accepted: bool,
}

impl<'a> Draw<'a> {
    pub(crate) fn new(
        job: &'a Job,
        served: &'a Served,
        plan: &'a Plan,
        tokens: Tokens,
        preprocess: Duration,
    ) -> Self {
        Self {
            job,
            served,
            plan,
            tokens,
            preprocess,
            // What came before the tokens was waiting too: for a route table or a first replica.
            queued: job.arrived.elapsed().saturating_sub(preprocess),
            sent: vec![false; plan.seeds.len()],
            model: Arc::clone(&served.model),
            last: Timings::default(),
        }
    }

    /// Draws every picture and says so.
    pub(crate) async fn run(mut self, mut place: Place) -> Result<(), Error> {
        let mut attempts = Attempts::default();
        let timings = loop {
            let asked = Instant::now();
            let mut permit = place.acquire(self.plan.cost).await?;
            self.queued += asked.elapsed();
            if let Some(model) = permit.replica().model() {
                self.model = model;
            }
            let span = debug_span!("draw", replica = permit.replica().id, otel.kind = "client");
            let ended = match self.attempt(&mut permit).instrument(span).await {
                Ok(timings) => break timings,
                Err(ended) => ended,
            };
            if ended.accepted {
                place.served();
            }
            match ended.fault {
                Fault::Full => {
                    self.job.shared.metrics.rerouted(Reroute::Full);
                    permit.refused();
                }
                Fault::Gone(status) => {
                    permit.failed();
                    let replica = Arc::clone(permit.replica());
                    // Now, not after the event below: the slot is free whether the caller reads or not.
                    drop(permit);
                    let request_id = &*self.job.id;
                    tracing::info!(
                        request_id,
                        replica = replica.id,
                        why = status.message(),
                        accepted = ended.accepted,
                        "replica lost"
                    );
                    if self.sent.iter().all(|sent| *sent) {
                        break self.last;
                    }
                    if ended.accepted {
                        self.restart(&mut attempts, status).await?;
                    } else {
                        self.job.shared.metrics.rerouted(Reroute::Unreachable);
                    }
                }
                Fault::TimedOut => return Err(Error::DeadlinePassed),
                Fault::Final(status) => return Err(Error::Worker(Box::new(status))),
            }
        };
        self.done(timings).await;
        Ok(())
    }

    /// Tells the caller that it starts again, if it may.
    async fn restart(&self, attempts: &mut Attempts, status: Status) -> Result<(), Error> {
        let policy = self.job.shared.policy;
        match self
            .job
            .shared
            .budget(|budget, now| attempts.lost(policy, budget, now))
        {
            Ok(attempt) => {
                self.job.shared.metrics.restarts.increment(1);
                let reason = "the replica was lost".to_owned();
                self.job
                    .emit
                    .send(Event::Restarted(image::Restarted { reason, attempt }))
                    .await;
                Ok(())
            }
            Err(why) => Err(Error::GaveUp {
                why,
                last: Box::new(status),
            }),
        }
    }

    /// Draws on one replica what the caller does not have yet.
    async fn attempt(&mut self, permit: &mut Permit) -> Result<Timings, Ended> {
        let mut client = InferenceServiceClient::new(permit.channel())
            .max_decoding_message_size(mobula_kit::grpc::MAX_MESSAGE_BYTES);
        let mut request = Request::new(self.request(permit));
        if let Some(deadline) = self.job.deadline {
            deadline.apply(&mut request);
        }
        mobula_kit::trace::inject(request.metadata_mut());
        let mut accepted = false;
        let ended = |status, accepted| Ended {
            fault: classify(status, accepted),
            accepted,
        };
        let mut stream = client
            .generate(request)
            .await
            .map_err(|status| ended(status, false))?
            .into_inner();
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(ended(Status::unavailable("the stream ended too early"), accepted)),
                Err(status) => return Err(ended(status, accepted)),
            };
            if !accepted {
                accepted = true;
                permit.accepted();
            }
            if let Some(load) = message.load {
                permit.load(load);
            }
            match message.event {
                Some(Drawn::Done(done)) => {
                    if self.sent.iter().all(|sent| *sent) {
                        return Ok(done.timings.unwrap_or(self.last));
                    }
                    return Err(ended(Status::unavailable("pictures are missing"), accepted));
                }
                Some(event) => self.pass_on(event, permit).await,
                None => {}
            }
        }
    }

    fn request(&self, permit: &Permit) -> inference::GenerateRequest {
        let plan = self.plan;
        let model = infotext::Model {
            name: &self.served.application.name,
            digest: &self.model.digest,
        };
        inference::GenerateRequest {
            replica_id: permit.replica().id.clone(),
            request_id: self.job.id.as_ref().to_owned(),
            prompt_ids: self.tokens.prompt.ids.clone(),
            negative_prompt_ids: self.tokens.negative.ids.clone(),
            width: plan.width,
            height: plan.height,
            steps: plan.steps,
            guidance_scale: plan.guidance_scale,
            scheduler: plan.scheduler.clone(),
            seeds: plan.seeds.clone(),
            preview_interval: plan.preview_interval,
            text_chunks: infotext::chunks(plan, model),
            skip_images: (0u32..)
                .zip(&self.sent)
                .filter_map(|(i, sent)| sent.then_some(i))
                .collect(),
        }
    }

    /// Passes an event on in the words of the public API.
    async fn pass_on(&mut self, event: Drawn, permit: &mut Permit) {
        let event = match event {
            Drawn::Accepted(_) | Drawn::Done(_) => return,
            Drawn::Started(_) => Event::Started(image::Started {
                replica_id: permit.replica().id.clone(),
            }),
            Drawn::Step(step) => {
                let left = u64::from(step.of.saturating_sub(step.index));
                permit.progress(self.plan.cost.get() * left / u64::from(step.of.max(1)));
                Event::Step(image::Step {
                    index: step.index,
                    of: step.of,
                })
            }
            Drawn::Preview(preview) => Event::Preview(image::Preview {
                image_index: preview.image_index,
                step: preview.step,
                png: preview.png,
            }),
            Drawn::Image(drawn) => match self.picture(drawn) {
                Some(event) => event,
                None => return,
            },
        };
        self.job.emit.send(event).await;
    }

    /// A finished picture, unless the caller has it or never asked for it.
    fn picture(&mut self, drawn: inference::Image) -> Option<Event> {
        let index = drawn.index as usize;
        let sent = self.sent.get_mut(index)?;
        if std::mem::replace(sent, true) {
            return None;
        }
        self.last = drawn.timings.unwrap_or_default();
        self.job.shared.metrics.images.increment(1);
        Some(Event::Image(image::Image {
            index: drawn.index,
            seed: self.plan.seeds[index],
            data: drawn.png,
            format: image::ImageFormat::Png.into(),
            width: self.plan.width,
            height: self.plan.height,
            digest: drawn.digest,
            timings: Some(self.merged(self.last)),
        }))
    }

    /// The replica's timings with this proxy's share.
    fn merged(&self, drawn: Timings) -> Timings {
        Timings {
            queue_us: drawn.queue_us.saturating_add(micros(self.queued)),
            preprocess_us: micros(self.preprocess),
            total_us: micros(self.job.arrived.elapsed()),
            ..drawn
        }
    }

    async fn done(self, timings: Timings) {
        let timings = self.merged(timings);
        self.job.shared.metrics.timed(&timings);
        let plan = self.plan;
        let parameters = image::Parameters {
            model: self.served.application.name.clone(),
            model_digest: self.model.digest.clone(),
            width: plan.width,
            height: plan.height,
            steps: plan.steps,
            guidance_scale: plan.guidance_scale,
            scheduler: plan.scheduler.clone(),
            seeds: plan.seeds.clone(),
            truncated_prompt: self.tokens.prompt.truncated_text,
            truncated_negative_prompt: self.tokens.negative.truncated_text,
        };
        let done = image::Done {
            timings: Some(timings),
            parameters: Some(parameters),
        };
        self.job.emit.send(Event::Done(done)).await;
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
