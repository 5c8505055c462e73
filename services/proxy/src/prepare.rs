//! Files to pixels of a plan's size, on any preprocess replica.

use bytes::Bytes;
use mobula_proto::{
    common::v1::Pixels,
    image::v1::MaskChannel,
    preprocess::v1::{ImageKind, PrepareImageRequest},
};
use tracing::{Instrument, debug_span};

use crate::{
    Error, aside,
    generate::{Job, Served},
    problem::{Problem, Rule},
    validate::{Plan, Source},
};

/// What a plan starts from, as pixels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) image: Option<Pixels>,
    pub(crate) mask: Option<Pixels>,
}

/// Prepares the files of a plan, if it has any.
pub(crate) async fn run(job: &Job, served: &Served, plan: &Plan) -> Result<Inputs, Error> {
    match &plan.source {
        // In a box: most requests start from no picture.
        Some(source) => Box::pin(files(job, served, plan, source)).await,
        None => Ok(Inputs::default()),
    }
}

async fn files(job: &Job, served: &Served, plan: &Plan, source: &Source) -> Result<Inputs, Error> {
    let image = file(job, served, plan, (ImageKind::Picture, &source.image));
    let mask = async {
        match &source.mask {
            Some(mask) => {
                let kind = match source.channel {
                    MaskChannel::Unspecified | MaskChannel::Luminance => ImageKind::Mask,
                    MaskChannel::Transparency => ImageKind::Transparency,
                };
                file(job, served, plan, (kind, mask)).await.map(Some)
            }
            None => Ok(None),
        }
    };
    let (image, mask) = tokio::try_join!(image, mask)?;
    Ok(Inputs {
        image: Some(image),
        mask,
    })
}

async fn file(
    job: &Job,
    served: &Served,
    plan: &Plan,
    (kind, data): (ImageKind, &Bytes),
) -> Result<Pixels, Error> {
    let (field, channels) = match kind {
        ImageKind::Mask | ImageKind::Transparency => ("mask_image", 1),
        ImageKind::Picture | ImageKind::Unspecified => ("init_image", 3),
    };
    let make = |replica_id| PrepareImageRequest {
        replica_id,
        data: data.clone(),
        width: plan.width,
        height: plan.height,
        kind: kind.into(),
        model_id: served.id().to_owned(),
    };
    let span = debug_span!("prepare", field, otel.kind = "client");
    let pool = (&served.preprocess, served.model_id.as_ref());
    let answer = aside::call(job, pool, make, async |channel, request| {
        aside::client(channel).prepare_image(request).await
    })
    .instrument(span)
    .await
    .map_err(|error| named(error, field))?;
    let pixels = answer.into_inner().pixels.unwrap_or_default();
    let bytes = u64::from(plan.width) * u64::from(plan.height) * channels;
    if (pixels.width, pixels.height) != (plan.width, plan.height) || pixels.data.len() as u64 != bytes {
        return Err(Error::Answer("prepare gave a picture of another size"));
    }
    Ok(pixels)
}

/// The worker speaks of its own fields, the caller knows the file's.
fn named(error: Error, field: &'static str) -> Error {
    let Error::Worker(status) = &error else {
        return error;
    };
    let found = mobula_kit::status::violations(status);
    if found.is_empty() {
        return error;
    }
    let problem = |(_, why)| Problem::new(field, Rule::Wrong(why));
    Error::Invalid(found.into_iter().map(problem).collect())
}
