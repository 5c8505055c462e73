//! The events of one request as messages of the RPC that asked for it.
//!
//! Invariant: a request is cancelled before its place in the replica is free.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use mobula_proto::common::v1::Load;
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::{
    DecodeResponse, DenoiseResponse, GenerateResponse, decode_response, denoise_response,
};
use tonic::Status;

use super::Placed;
use crate::runner::Inbox;

/// A message of a stream.
pub trait Message: Sized {
    /// Tells an event, if this stream has a word for it.
    fn of(load: Option<Load>, event: Event) -> Option<Self>;
}

impl Message for GenerateResponse {
    fn of(load: Option<Load>, event: Event) -> Option<Self> {
        let event = Some(event);
        Some(Self { load, event })
    }
}

impl Message for DenoiseResponse {
    fn of(load: Option<Load>, event: Event) -> Option<Self> {
        use denoise_response::Event as Told;
        let event = Some(match event {
            Event::Accepted(accepted) => Told::Accepted(accepted),
            Event::Started(started) => Told::Started(started),
            Event::Step(step) => Told::Step(step),
            Event::Preview(preview) => Told::Preview(preview),
            Event::Latents(latents) => Told::Latents(latents),
            Event::Done(done) => Told::Done(done),
            Event::Image(_) => return None,
        });
        Some(Self { load, event })
    }
}

impl Message for DecodeResponse {
    fn of(load: Option<Load>, event: Event) -> Option<Self> {
        use decode_response::Event as Told;
        let event = Some(match event {
            Event::Accepted(accepted) => Told::Accepted(accepted),
            Event::Image(image) => Told::Image(image),
            Event::Done(done) => Told::Done(done),
            Event::Started(_) | Event::Step(_) | Event::Preview(_) | Event::Latents(_) => return None,
        });
        Some(Self { load, event })
    }
}

/// One request's events; holds its place in the replica until it is dropped.
#[derive(Debug)]
pub struct Events<T> {
    // Dropped first, so that the request is cancelled before its place is free.
    inbox: Inbox,
    placed: Placed,
    message: PhantomData<fn() -> T>,
}

impl<T> Events<T> {
    pub(super) fn new(inbox: Inbox, placed: Placed) -> Self {
        Self {
            inbox,
            placed,
            message: PhantomData,
        }
    }
}

impl<T: Message> Stream for Events<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(item) = ready!(Pin::new(&mut self.inbox).poll_next(context)) else {
                return Poll::Ready(None);
            };
            let lease = &self.placed.lease;
            let event = match item {
                Ok(event) => event,
                Err(error) => {
                    lease.fails(error.reason());
                    return Poll::Ready(Some(Err(error.into())));
                }
            };
            let tells_load = matches!(event, Event::Accepted(_) | Event::Done(_));
            if let Some(message) = T::of(tells_load.then(|| lease.load()), event) {
                return Poll::Ready(Some(Ok(message)));
            }
        }
    }
}
