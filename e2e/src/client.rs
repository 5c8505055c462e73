//! A caller as any other: one request over the public gRPC API, and everything that came back.

use std::error::Error as _;

use mobula_proto::image::v1::generate_response::Event;
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use mobula_proto::image::v1::{GenerateRequest, Parameters};
use tonic::transport::Channel;
use tonic::{IntoRequest, Status};

/// Everything that a request brought.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// From the accepted event.
    pub request_id: String,
    /// Replicas that began with it, in order.
    pub replicas: Vec<String>,
    /// Last step that was told, and of how many.
    pub step: (u32, u32),
    /// Previews that came.
    pub previews: usize,
    /// In the order in which they came.
    pub pictures: Vec<Picture>,
    /// How often it started again elsewhere.
    pub restarts: usize,
    /// Calls of the model that it took part in, from the done event.
    pub calls: u32,
    /// From the done event; absent when the stream ended without one.
    pub parameters: Option<Parameters>,
}

/// One finished picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Counted from 0.
    pub index: u32,
    /// What draws it again.
    pub seed: u64,
    /// SHA-256 as the mesh tells it.
    pub digest: String,
    /// The file.
    pub png: bytes::Bytes,
}

impl Drawn {
    /// The only picture.
    ///
    /// # Errors
    /// When there is another number of pictures, or the stream had no proper end.
    pub fn picture(&self) -> anyhow::Result<&Picture> {
        match (self.pictures.as_slice(), &self.parameters) {
            ([picture], Some(_)) => Ok(picture),
            (pictures, done) => {
                anyhow::bail!("{} pictures, done: {}", pictures.len(), done.is_some())
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Accepted(accepted) => self.request_id = accepted.request_id,
            Event::Waiting(_) => {}
            Event::Started(started) => self.replicas.push(started.replica_id),
            Event::Step(step) => self.step = (step.index, step.of),
            Event::Preview(_) => self.previews += 1,
            Event::Image(image) => self.pictures.push(Picture {
                index: image.index,
                seed: image.seed,
                digest: image.digest,
                png: image.data,
            }),
            Event::Restarted(_) => self.restarts += 1,
            Event::Done(done) => {
                self.calls = done.timings.unwrap_or_default().ticks;
                self.parameters = Some(done.parameters.unwrap_or_default());
            }
        }
    }
}

/// A request for one picture with this seed.
#[must_use]
pub fn prompt(text: &str, seed: u64) -> GenerateRequest {
    GenerateRequest {
        prompt: text.into(),
        seeds: vec![seed],
        ..GenerateRequest::default()
    }
}

/// Asks and reads to the end.
///
/// # Errors
/// Whatever status the mesh ended with.
pub async fn draw(
    client: &ImageServiceClient<Channel>,
    request: impl IntoRequest<GenerateRequest>,
) -> Result<Drawn, Status> {
    let mut drawn = Drawn::default();
    draw_into(client, request, &mut drawn).await?;
    Ok(drawn)
}

/// The same, and what had come stays when it ends with an error.
pub(crate) async fn draw_into(
    client: &ImageServiceClient<Channel>,
    request: impl IntoRequest<GenerateRequest>,
    drawn: &mut Drawn,
) -> Result<(), Status> {
    let mut events = client.clone().generate(request).await?.into_inner();
    while let Some(message) = events.message().await? {
        if let Some(event) = message.event {
            drawn.take(event);
        }
    }
    Ok(())
}

/// Whether the connection broke, rather than the mesh answering: only such a status has a cause on this side.
#[must_use]
pub fn was_cut(status: &Status) -> bool {
    status.source().is_some()
}
