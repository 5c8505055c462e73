//! A split application stage by stage: texts and pictures are encoded for the denoiser, and its latents are decoded, each by
//! the deployment that does it.
//!
//! Invariant: what a stage is asked for is what a whole replica does inside, so that the bytes are the same.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use mobula_proto::{
    common::v1::{Prompt, Timings},
    inference::v1::{
        DecodeRequest, DenoiseRequest, EncodeRequest, EncodeTextRequest, EncodedText, GenerateRequest,
        LatentsDone, Moments, TextWindow, inference_service_client::InferenceServiceClient,
    },
};
use mobula_serving::route::Cost;
use tonic::{Request, Status, transport::Channel};
use tracing::{Instrument, debug_span};

use super::{
    Draw, Half,
    agree::{Asked, noted},
    told::Told,
    whole,
};
use crate::{
    Error, aside,
    permit::Permit,
    place::Place,
    pool::{Pool, Want},
    problem::{Problem, Rule},
    table::Split,
};

/// Windows that are encoded in one call: twenty megabytes of Stable Diffusion XL's states.
const WINDOWS: usize = 32;
/// Bytes of encoded texts and pictures that go to a denoiser: a message has 32 MiB at most, and a mask is among it.
const MAX_ENCODED: usize = 24 << 20;

/// What other deployments made for a denoiser.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    texts: Vec<EncodedText>,
    moments: Option<Moments>,
    /// Digest of the denoiser's model that it is for.
    digest: String,
}

fn client(channel: Channel) -> InferenceServiceClient<Channel> {
    InferenceServiceClient::new(channel)
        .max_decoding_message_size(mobula_kit::grpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(mobula_kit::grpc::MAX_MESSAGE_BYTES)
}

impl Draw<'_> {
    /// Asks the replica of a permit for what it is at.
    pub(super) async fn ask(&self, permit: &Permit) -> Result<Told, Status> {
        let replica = &permit.replica().id;
        if self.decodes {
            let mut client = client(permit.channel());
            let asked = self.outgoing(self.latents_to_decode(replica));
            return Ok(Told::Decoded(Box::pin(client.decode(asked)).await?.into_inner()));
        }
        let Some(encoded) = &self.drawer().encoded else {
            let asked = self.outgoing(self.asked(replica));
            return Ok(Told::Whole(whole::generate(permit.channel(), asked).await?));
        };
        let (mut client, mut request) = (client(permit.channel()), self.request(replica));
        // Files are written, and pictures are encoded, elsewhere.
        (request.init_image, request.text_chunks) = (None, Vec::new());
        let asked = self.outgoing(DenoiseRequest {
            request: Some(request),
            texts: encoded.texts.clone(),
            init_moments: encoded.moments.clone(),
        });
        Ok(Told::Denoised(
            Box::pin(client.denoise(asked)).await?.into_inner(),
        ))
    }

    fn outgoing<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(deadline) = self.job.deadline {
            deadline.apply(&mut request);
        }
        mobula_kit::trace::inject(request.metadata_mut());
        request
    }

    /// The pictures that the caller does not have, as latents.
    fn latents_to_decode(&self, replica: &str) -> DecodeRequest {
        let (plan, drawer) = (self.plan, self.drawer());
        let left = (0u32..).zip(&self.latents).zip(&self.sent);
        DecodeRequest {
            replica_id: replica.to_owned(),
            request_id: self.job.id.as_ref().to_owned(),
            model_id: drawer.served.id().to_owned(),
            width: plan.width,
            height: plan.height,
            latents: left
                .filter(|(_, sent)| !**sent)
                .map(|((index, latents), _)| LatentsDone {
                    index,
                    latents: latents.clone(),
                })
                .collect(),
            format: plan.output.format.into(),
            quality: plan.output.quality,
            text_chunks: self.chunks(),
            determinism: plan.determinism.into(),
            as_pixels: false,
        }
    }

    /// A place at the deployment that decodes what was just drawn; none where a whole replica did, or latents are wanted.
    pub(super) fn decoder(&self) -> Option<Place> {
        if matches!(self.half, Half::First(..)) {
            return None;
        }
        let served = self.drawer().served;
        let split = served.split.as_ref()?;
        let pictures = self.sent.iter().filter(|sent| !**sent).count();
        let who = (&self.job.claim, self.job.failfast);
        let want = Want {
            cost: Cost::rows(pictures as u64),
            ..Want::least(who, served.model_id.as_ref())
        };
        Some(self.of_denoiser(split.decode.place(want)))
    }

    /// A stage is done; the next one begins.
    pub(super) fn passed(&mut self, timings: Timings) {
        let before = self.before;
        self.before = Timings {
            queue_us: before.queue_us.saturating_add(timings.queue_us),
            encode_us: before.encode_us.saturating_add(timings.encode_us),
            denoise_us: before.denoise_us.saturating_add(timings.denoise_us),
            ticks: before.ticks.saturating_add(timings.ticks),
            ..Timings::default()
        };
        self.last = Timings::default();
    }

    /// Has texts and the picture to start from encoded, where other deployments than the one that draws do that. False when
    /// what encoded them is of another model, as it may be while an update goes on.
    pub(super) async fn encode(&mut self) -> Result<bool, Error> {
        match self.drawer().served.split.clone() {
            Some(split) => Box::pin(self.encode_elsewhere(&split)).await,
            None => Ok(true),
        }
    }

    async fn encode_elsewhere(&mut self, split: &Split) -> Result<bool, Error> {
        let drawer = self.drawer();
        let digest = drawer.model.digest.clone();
        let is_known = |encoded: &Encoded| encoded.digest == digest;
        if drawer.encoded.as_ref().is_some_and(is_known) {
            return Ok(true);
        }
        let request = self.request("");
        let encoded = async { tokio::try_join!(self.texts(split, &request), self.moments(split, &request)) };
        let (texts, moments) = match encoded.await {
            Err(Error::OtherModel { .. }) => return Ok(false),
            encoded => encoded?,
        };
        let Some(((texts, times), moments)) = texts.zip(moments) else {
            return Ok(false);
        };
        let (moments, took) = moments.unzip();
        for timings in times.into_iter().chain(took) {
            self.passed(timings);
        }
        let encoded = Encoded {
            texts,
            moments,
            digest,
        };
        encoded.check()?;
        self.drawer_mut().encoded = Some(encoded);
        Ok(true)
    }

    /// A place at a part that encodes for the denoiser.
    fn beside(&self, pool: &Arc<Pool>) -> Place {
        let who = (&self.job.claim, self.job.failfast);
        let want = Want::least(who, self.drawer().served.model_id.as_ref());
        self.of_denoiser(pool.place(want))
    }

    /// Every window of the prompts, encoded; none where that was by another model than the denoiser's.
    async fn texts(
        &self,
        split: &Split,
        request: &GenerateRequest,
    ) -> Result<Option<(Vec<EncodedText>, Vec<Timings>)>, Error> {
        let windows = windows(request);
        let (mut all, mut times) = (Vec::with_capacity(windows.len()), Vec::new());
        let asked = Asked::default();
        for windows in windows.chunks(WINDOWS) {
            let make = |replica_id: String| EncodeTextRequest {
                replica_id: noted(&asked, replica_id),
                request_id: request.request_id.clone(),
                model_id: request.model_id.clone(),
                windows: windows.to_vec(),
            };
            let place = self.beside(&split.encode_text);
            let answer = aside::at(self.job, place, make, async |channel, asked| {
                client(channel).encode_text(asked).await
            })
            .instrument(debug_span!(
                "encode text",
                windows = windows.len(),
                otel.kind = "client"
            ))
            .await
            .map_err(|error| {
                named(error, |field| {
                    if field == "clip_skip" {
                        "clip_skip"
                    } else {
                        "prompt"
                    }
                })
            })?;
            let answer = answer.into_inner();
            if answer.texts.len() != windows.len() {
                return Err(Error::Answer(
                    "encode text gave another number of texts than windows",
                ));
            }
            if !self.is_of_denoiser(&split.encode_text, &asked) {
                return Ok(None);
            }
            all.extend(answer.texts);
            times.extend(answer.timings);
        }
        Ok(Some((all, times)))
    }

    /// The picture to start from, encoded, if there is one; none where that was by another model than the denoiser's.
    async fn moments(
        &self,
        split: &Split,
        request: &GenerateRequest,
    ) -> Result<Option<Option<(Moments, Timings)>>, Error> {
        let Some(image) = &request.init_image else {
            return Ok(Some(None));
        };
        let asked = Asked::default();
        let make = |replica_id: String| EncodeRequest {
            replica_id: noted(&asked, replica_id),
            request_id: request.request_id.clone(),
            model_id: request.model_id.clone(),
            image: Some(image.clone()),
            mask: request.mask_image.clone(),
        };
        let place = self.beside(&split.encode);
        let answer = aside::at(self.job, place, make, async |channel, asked| {
            client(channel).encode(asked).await
        })
        .instrument(debug_span!("encode", otel.kind = "client"))
        .await
        .map_err(|error| {
            named(error, |field| {
                if field == "mask" {
                    "mask_image"
                } else {
                    "init_image"
                }
            })
        })?;
        let answer = answer.into_inner();
        let moments = answer.moments.ok_or(Error::Answer("encode gave no moments"))?;
        let is_right = self.is_of_denoiser(&split.encode, &asked);
        Ok(is_right.then(|| Some((moments, answer.timings.unwrap_or_default()))))
    }
}

impl Encoded {
    /// Refuses more than a message carries.
    fn check(&self) -> Result<(), Error> {
        let size = |tensor: &Option<mobula_proto::common::v1::Tensor>| {
            tensor.as_ref().map_or(0, |tensor| Bytes::len(&tensor.data))
        };
        let texts = self
            .texts
            .iter()
            .map(|text| size(&text.states) + size(&text.pooled));
        let moments = self
            .moments
            .iter()
            .map(|moments| size(&moments.mean) + size(&moments.deviation));
        let bytes: usize = texts.chain(moments).sum();
        if bytes <= MAX_ENCODED {
            return Ok(());
        }
        let why = format!(
            "its {} different windows of text take {bytes} bytes of states, and an application that is split carries {MAX_ENCODED} \
             at most; shorten it, or serve the model by one deployment",
            self.texts.len()
        );
        Err(Error::Invalid(vec![Problem::new("prompt", Rule::Wrong(why))]))
    }
}

/// Every window of both prompts once, as it is to be encoded.
fn windows(request: &GenerateRequest) -> Vec<TextWindow> {
    let of = |prompt: &Option<Prompt>, clip_skip: u32| -> Vec<TextWindow> {
        let spans = prompt.iter().flat_map(|prompt| &prompt.spans);
        let windows = spans
            .flat_map(|span| &span.variants)
            .flat_map(|variant| &variant.windows);
        let empty = prompt.iter().flat_map(|prompt| &prompt.empty);
        let window = |window: &mobula_proto::common::v1::PromptWindow| TextWindow {
            ids: window.ids.clone(),
            ids_2: window.ids_2.clone(),
            clip_skip,
        };
        windows.chain(empty).map(window).collect()
    };
    let mut all = of(&request.prompt, request.clip_skip);
    all.extend(of(&request.negative_prompt, request.negative_clip_skip));
    let mut known = HashSet::new();
    all.retain(|window| known.insert((window.ids.clone(), window.ids_2.clone(), window.clip_skip)));
    all
}

/// The worker speaks of its own fields, the caller knows others.
fn named(error: Error, field: impl Fn(&str) -> &'static str) -> Error {
    let Error::Worker(status) = &error else {
        return error;
    };
    let found = mobula_kit::status::violations(status);
    if found.is_empty() {
        return error;
    }
    let problem = |(its, why): (String, String)| Problem::new(field(&its), Rule::Wrong(why));
    Error::Invalid(found.into_iter().map(problem).collect())
}

#[cfg(test)]
mod tests;
