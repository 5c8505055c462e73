//! `ImageService.Generate` over a few HTTP/2 connections.

use mobula_kit::channel;
use mobula_proto::image::v1::GenerateRequest;
use mobula_proto::image::v1::generate_response::Event;
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::{Common, picture};
use crate::{Error, Outcome, Shot};

#[derive(Debug, Clone)]
pub(crate) struct Target {
    clients: Vec<ImageServiceClient<Channel>>,
    common: Common,
}

impl Target {
    pub(crate) fn new(address: &str, connections: usize, common: Common) -> Result<Self, Error> {
        let clients = (0..connections.max(1))
            .map(|_| channel::lazy(address).map(ImageServiceClient::new))
            .collect::<Result<_, _>>()
            .map_err(|_| Error::Target {
                target: address.into(),
            })?;
        Ok(Self { clients, common })
    }

    pub(crate) async fn draw(&self, number: u64, shot: &Shot) -> Outcome {
        let mut client = self.clients[number as usize % self.clients.len()].clone();
        let mut request = Request::new(GenerateRequest {
            model: self.common.model.clone(),
            prompt: shot.prompt.clone(),
            width: self.common.size,
            height: self.common.size,
            steps: self.common.steps,
            guidance_scale: self.common.guidance_scale,
            seeds: vec![shot.seed],
            ..GenerateRequest::default()
        });
        request.set_timeout(self.common.timeout);
        match last_picture(&mut client, request).await {
            Ok(Some((digest, bytes))) => picture(digest, &bytes),
            Ok(None) => Outcome::Failed("no picture".into()),
            Err(status) => Outcome::Failed(code_name(status.code())),
        }
    }
}

/// Reads the stream to its end; a stream that ends without `done` was cut.
async fn last_picture(
    client: &mut ImageServiceClient<Channel>,
    request: Request<GenerateRequest>,
) -> Result<Option<(String, bytes::Bytes)>, Status> {
    let mut events = client.generate(request).await?.into_inner();
    let mut last = None;
    let mut done = false;
    while let Some(message) = events.message().await? {
        match message.event {
            Some(Event::Image(image)) => last = Some((image.digest, image.data)),
            Some(Event::Done(_)) => done = true,
            Some(
                Event::Accepted(_)
                | Event::Started(_)
                | Event::Step(_)
                | Event::Preview(_)
                | Event::Restarted(_),
            )
            | None => {}
        }
    }
    if done {
        Ok(last)
    } else {
        Err(Status::data_loss("the stream ended without `done`"))
    }
}

fn code_name(code: Code) -> String {
    format!("{code:?}")
}
