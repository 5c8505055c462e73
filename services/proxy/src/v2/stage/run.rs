//! Stages on workers: what was read of a request goes to any replica that has the stage, and comes back as tensors.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::{Bytes, BytesMut};
use mobula_kit::grpc::MAX_MESSAGE_BYTES;
use mobula_proto::{
    inference::v1::{
        self as inference, DecodeRequest, DenoiseRequest, EncodeRequest, EncodeTextRequest, LatentsDone,
        decode_response::Event as Decoded, denoise_response::Event as Denoised,
        inference_service_client::InferenceServiceClient,
    },
    preprocess::v1::TokenizeRequest,
};
use tonic::{Status, transport::Channel};
use tracing::{Instrument as _, debug_span};

use super::{
    super::{
        ask::Answer,
        datatype::Datatype,
        spec::{IMAGE, MASK, PIXELS, SEED},
        tensor::{Tensor, wrong},
    },
    call::Asked,
    denoise::{self, Draw},
    text::{self, Windows},
    tokenize::{self, Texts},
    vae::{Decode, Encode},
};
use crate::{
    Error, aside,
    draw::common,
    generate::{Job, Served},
    infotext,
    place::Place,
    pool::Pool,
    problem::{Problem, Rule},
    validate::{self, Models},
    words,
};
use mobula_serving::route::Cost;

/// Steps that texts are tokenized for: so many that one which changes on the way is seen to.
const STEPS: u32 = 1_000;

/// A call at some deployments; it is admitted, and paid for, by the first that it comes to.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    pub(super) job: &'a Job,
    /// Whether one has let it in.
    pub(super) admitted: &'a AtomicBool,
}

/// Has a stage answer.
pub(super) async fn run(asked: &Asked, visit: Visit<'_>, served: Served) -> Result<Answer, Error> {
    match asked {
        Asked::Tokenize(texts) => tokenized(texts, visit, served).await,
        Asked::Encode(windows) => encoded(windows, visit, served).await,
        Asked::Denoise(draw) => denoised(draw, visit, served).await,
        Asked::Decode(decode) => decoded(decode, visit, served).await,
        Asked::Moments(encode) => moments(encode, visit, served).await,
    }
}

fn client(channel: Channel) -> InferenceServiceClient<Channel> {
    InferenceServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

async fn tokenized(texts: &Texts, visit: Visit<'_>, mut served: Served) -> Result<Answer, Error> {
    let job = visit.job;
    job.trail.rows(texts.texts.len());
    let pool = Arc::clone(&served.preprocess);
    let place = admitted(&pool, visit, &mut served, texts.texts.len())?;
    let make = |replica_id| TokenizeRequest {
        replica_id,
        texts: texts.texts.clone(),
        syntax: texts.syntax,
        steps: STEPS,
        model_id: served.id().to_owned(),
    };
    let send = async |channel, request| aside::client(channel).tokenize(request).await;
    let span = debug_span!("tokenize", otel.kind = "client");
    let answer = aside::at(job, place, make, send).instrument(span).await;
    let answer =
        answer.map_err(|error| named(error, |field| field.starts_with("texts").then_some("prompt")))?;
    tokenize::write(&answer.into_inner().texts)
}

/// A place in a pool for a call that costs so much, if its queue has room.
fn admitted(pool: &Arc<Pool>, visit: Visit<'_>, served: &mut Served, rows: usize) -> Result<Place, Error> {
    let costs = (Cost::rows(rows as u64), 0);
    if visit.admitted.load(Ordering::Relaxed) {
        return Ok(served.place_at(pool, visit.job, costs));
    }
    let place = served.admit_at(pool, visit.job, costs)?.place;
    visit.admitted.store(true, Ordering::Relaxed);
    Ok(place)
}

async fn encoded(windows: &Windows, visit: Visit<'_>, mut served: Served) -> Result<Answer, Error> {
    let job = visit.job;
    job.trail.rows(windows.windows.len());
    let split = served.split.as_ref();
    let pool = Arc::clone(split.map_or(&served.pipeline, |split| &split.encode_text));
    let place = admitted(&pool, visit, &mut served, windows.windows.len())?;
    let request_id = job.id.to_string();
    let make = |replica_id| EncodeTextRequest {
        replica_id,
        request_id: request_id.clone(),
        model_id: served.id().to_owned(),
        windows: windows.windows.clone(),
    };
    let send = async |channel, request| client(channel).encode_text(request).await;
    let span = debug_span!("encode text", otel.kind = "client");
    let answer = aside::at(job, place, make, send).instrument(span).await;
    let answer = answer.map_err(|error| named(error, window))?.into_inner();
    if answer.texts.len() != windows.windows.len() {
        return Err(Error::Answer("windows were encoded in another number"));
    }
    Ok(Answer {
        outputs: text::write(&answer.texts, &windows.sides)?,
        ..Answer::default()
    })
}

fn window(field: &str) -> Option<&'static str> {
    match field {
        _ if field.ends_with("ids_2") => Some("input_ids_2"),
        _ if field.starts_with("windows") => Some("input_ids"),
        _ => None,
    }
}

async fn denoised(draw: &Draw, visit: Visit<'_>, mut served: Served) -> Result<Answer, Error> {
    let job = visit.job;
    let models = Models {
        first: &served.model,
        refiner: None,
    };
    let plan = validate::plan(
        draw.request.clone(),
        models,
        job.shared.limits(),
        crate::generate::draw_seed,
    );
    let plan = plan.map_err(|problems| super::super::infer::named(Error::Invalid(problems)))?;
    if plan.is_guided && draw.negative.is_none() {
        let problem = Problem::new("negative_input_ids", Rule::Missing);
        return Err(Error::Invalid(vec![problem]));
    }
    job.trail.rows(plan.seeds.len());
    let costs = (plan.cost, draw.bytes());
    let place = if visit.admitted.load(Ordering::Relaxed) {
        served.place(job, costs)
    } else {
        let charge = job.charge(plan.pixels())?;
        let place = served.admit(job, costs)?.place;
        // What a replica begins is paid for.
        charge.keep();
        visit.admitted.store(true, Ordering::Relaxed);
        place
    };
    let prompt = draw.prompt.clone();
    let negative = draw.negative.clone().unwrap_or_default();
    let request = inference::GenerateRequest {
        request_id: job.id.to_string(),
        model_id: served.id().to_owned(),
        prompt: Some(prompt.prompt),
        negative_prompt: plan.is_guided.then_some(negative.prompt),
        guidance_scale: plan.guidance_scale,
        guidance_interval: plan.guidance_interval,
        strength: draw.strength.unwrap_or_default(),
        mask_image: draw.mask.clone(),
        ..common(&plan)
    };
    let mut texts = prompt.texts;
    texts.extend(negative.texts);
    let make = |replica_id| DenoiseRequest {
        request: Some(inference::GenerateRequest {
            replica_id,
            ..request.clone()
        }),
        texts: texts.clone(),
        init_moments: draw.moments.clone(),
    };
    let send = async |channel, request| {
        let mut events = client(channel).denoise(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(message) = events.message().await? {
            match message.event {
                Some(Denoised::Latents(done)) => all.extend(done.latents.map(|one| (done.index, one))),
                Some(Denoised::Done(_)) => return Ok(all),
                Some(
                    Denoised::Accepted(_) | Denoised::Started(_) | Denoised::Step(_) | Denoised::Preview(_),
                )
                | None => {}
            }
        }
        Err(Status::unavailable("the stream ended too early"))
    };
    let span = debug_span!("denoise", otel.kind = "client");
    let latents = aside::at(job, place, make, send).instrument(span).await;
    let latents = latents.map_err(|error| named(error, picture))?;
    Ok(Answer {
        outputs: vec![
            denoise::write(in_order(latents, plan.seeds.len())?)?,
            Tensor::uint64(SEED, &plan.seeds),
        ],
        ..Answer::default()
    })
}

fn picture(field: &str) -> Option<&'static str> {
    match field {
        "mask_image" => Some(MASK),
        "init_moments.deviation" => Some("deviation"),
        _ if field.starts_with("init_moments") => Some("mean"),
        _ => None,
    }
}

async fn decoded(asked: &Decode, visit: Visit<'_>, mut served: Served) -> Result<Answer, Error> {
    let job = visit.job;
    let count = asked.latents.len();
    job.trail.rows(count);
    let split = served.split.as_ref();
    let pool = Arc::clone(split.map_or(&served.pipeline, |split| &split.decode));
    let place = admitted(&pool, visit, &mut served, count)?;
    let latents = (0u32..).zip(&asked.latents).map(|(index, latents)| LatentsDone {
        index,
        latents: Some(latents.clone()),
    });
    let latents: Vec<_> = latents.collect();
    let chunks = match asked.is_marked {
        true => infotext::marker(),
        false => Vec::new(),
    };
    let request_id = job.id.to_string();
    let make = |replica_id| DecodeRequest {
        replica_id,
        request_id: request_id.clone(),
        model_id: served.id().to_owned(),
        width: asked.width,
        height: asked.height,
        latents: latents.clone(),
        format: asked.format.into(),
        quality: asked.quality,
        text_chunks: chunks.clone(),
        as_pixels: asked.as_pixels,
        determinism: asked.determinism.into(),
    };
    let send = async |channel, request| {
        let mut events = client(channel).decode(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(message) = events.message().await? {
            match message.event {
                Some(Decoded::Image(image)) => all.push((image.index, image.data)),
                Some(Decoded::Done(_)) => return Ok(all),
                Some(Decoded::Accepted(_)) | None => {}
            }
        }
        Err(Status::unavailable("the stream ended too early"))
    };
    let span = debug_span!("decode", otel.kind = "client");
    let pictures = aside::at(job, place, make, send).instrument(span).await;
    let pictures =
        pictures.map_err(|error| named(error, |field| field.starts_with("latents").then_some("latents")))?;
    let pictures = in_order(pictures, count)?;
    let tensor = match asked.as_pixels {
        false => Tensor::bytes(IMAGE, pictures),
        true => pixels(&pictures, asked.width, asked.height)?,
    };
    Ok(Answer {
        outputs: vec![tensor],
        ..Answer::default()
    })
}

/// What came for each of so many pictures, in their order.
fn in_order<T>(mut all: Vec<(u32, T)>, count: usize) -> Result<Vec<T>, Error> {
    all.sort_by_key(|(index, _)| *index);
    let is_whole = all.len() == count && (0u32..).zip(&all).all(|(nth, (index, _))| nth == *index);
    if !is_whole {
        return Err(Error::Answer(
            "a worker's pictures are not those that were asked for",
        ));
    }
    Ok(all.into_iter().map(|(_, one)| one).collect())
}

fn pixels(pictures: &[Bytes], width: u32, height: u32) -> Result<Tensor, Error> {
    let size = u64::from(width) * u64::from(height) * 3;
    if pictures.iter().any(|picture| picture.len() as u64 != size) {
        return Err(Error::Answer("a picture's pixels are of another size"));
    }
    let mut whole = BytesMut::new();
    pictures
        .iter()
        .for_each(|picture| whole.extend_from_slice(picture));
    let shape = vec![pictures.len() as i64, height.into(), width.into(), 3];
    Ok(Tensor::of(PIXELS, Datatype::Uint8, shape, whole.freeze()))
}

async fn moments(asked: &Encode, visit: Visit<'_>, mut served: Served) -> Result<Answer, Error> {
    let job = visit.job;
    job.trail.rows(1);
    let split = served.split.as_ref();
    let pool = Arc::clone(split.map_or(&served.pipeline, |split| &split.encode));
    let place = admitted(&pool, visit, &mut served, 1)?;
    let request_id = job.id.to_string();
    let make = |replica_id| EncodeRequest {
        replica_id,
        request_id: request_id.clone(),
        model_id: served.id().to_owned(),
        image: Some(asked.image.clone()),
        mask: asked.mask.clone(),
    };
    let send = async |channel, request| client(channel).encode(request).await;
    let span = debug_span!("encode", otel.kind = "client");
    let answer = aside::at(job, place, make, send).instrument(span).await;
    let answer =
        answer.map_err(|error| named(error, |field| field.starts_with("image").then_some(PIXELS)))?;
    let moments = answer.into_inner().moments.unwrap_or_default();
    let mean = moments
        .mean
        .as_ref()
        .ok_or(Error::Answer("a picture was encoded to nothing"))?;
    let mut outputs = vec![text::side_by_side("mean", &[], &[mean])?];
    if let Some(deviation) = &moments.deviation {
        outputs.push(text::side_by_side("deviation", &[], &[deviation])?);
    }
    Ok(Answer {
        outputs,
        ..Answer::default()
    })
}

/// What a worker complains of, by the names of the tensors that it came from.
fn named(error: Error, name: impl Fn(&str) -> Option<&'static str>) -> Error {
    let Error::Worker(status) = &error else {
        return error;
    };
    let found = mobula_kit::status::violations(status);
    if found.is_empty() {
        return error;
    }
    let problem = |(field, why): (String, String)| match name(&field) {
        Some(name) => wrong(name, why),
        None => wrong(words::flat(&field).to_owned(), why),
    };
    Error::Invalid(found.into_iter().map(problem).collect())
}
