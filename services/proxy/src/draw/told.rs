//! What replicas of whole and of split applications say, in the same words.

use mobula_proto::{
    common::v1::Load,
    inference::v1::{
        DecodeResponse, DenoiseResponse, GenerateResponse, decode_response, denoise_response,
        generate_response::Event as Drawn,
    },
};
use tonic::{Status, Streaming};

/// What a replica says of what it was asked for, in the words of a whole one.
pub(super) enum Told {
    Whole(Streaming<GenerateResponse>),
    Denoised(Streaming<DenoiseResponse>),
    Decoded(Streaming<DecodeResponse>),
}

impl Told {
    /// The next thing that happened, and the replica's load where it says it.
    pub(super) async fn message(&mut self) -> Result<Option<(Option<Load>, Option<Drawn>)>, Status> {
        Ok(match self {
            Self::Whole(stream) => stream.message().await?.map(|told| (told.load, told.event)),
            Self::Denoised(stream) => stream
                .message()
                .await?
                .map(|told| (told.load, told.event.map(denoised))),
            Self::Decoded(stream) => stream
                .message()
                .await?
                .map(|told| (told.load, told.event.map(decoded))),
        })
    }
}

fn denoised(event: denoise_response::Event) -> Drawn {
    use denoise_response::Event;
    match event {
        Event::Accepted(accepted) => Drawn::Accepted(accepted),
        Event::Started(started) => Drawn::Started(started),
        Event::Step(step) => Drawn::Step(step),
        Event::Preview(preview) => Drawn::Preview(preview),
        Event::Latents(latents) => Drawn::Latents(latents),
        Event::Done(done) => Drawn::Done(done),
    }
}

fn decoded(event: decode_response::Event) -> Drawn {
    use decode_response::Event;
    match event {
        Event::Accepted(accepted) => Drawn::Accepted(accepted),
        Event::Image(image) => Drawn::Image(image),
        Event::Done(done) => Drawn::Done(done),
    }
}
