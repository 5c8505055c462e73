//! The call to a replica that draws whole pictures, with prompts that are written already.

use bytes::{BufMut, Bytes};
use http::uri::PathAndQuery;
use mobula_kit::grpc::MAX_MESSAGE_BYTES;
use mobula_proto::inference::v1::{GenerateRequest, GenerateResponse};
use prost::{EncodeError, Message as _};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_prost::{ProstCodec, ProstDecoder};

/// Where `InferenceService` takes it.
const PATH: &str = "/mobula.inference.v1.InferenceService/Generate";

/// What a replica is asked for, in two messages that are one on the wire: messages that follow one another are read as one
/// with the fields of both (Protocol Buffers, "Merging").
#[derive(Debug)]
pub(super) struct Asked {
    /// In a box: it is moved through many futures.
    pub(super) request: Box<GenerateRequest>,
    /// The prompts that it lacks.
    pub(super) prompts: Bytes,
}

impl Asked {
    fn len(&self) -> usize {
        self.request.encoded_len() + self.prompts.len()
    }

    fn encode(&self, into: &mut impl BufMut) -> Result<(), EncodeError> {
        self.request.encode(into)?;
        into.put(&*self.prompts);
        Ok(())
    }
}

/// As `InferenceServiceClient::generate` calls it.
///
/// # Errors
/// What the replica says, or UNAVAILABLE where it cannot be reached.
pub(super) async fn generate(
    channel: Channel,
    asked: Request<Asked>,
) -> Result<Streaming<GenerateResponse>, Status> {
    let mut client = Grpc::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let ready = client.ready().await;
    ready.map_err(|error| Status::unknown(format!("Service was not ready: {error}")))?;
    let path = PathAndQuery::from_static(PATH);
    Ok(client.server_streaming(asked, path, Writes).await?.into_inner())
}

/// Writes what is asked, and reads what a replica says.
#[derive(Debug, Clone, Copy)]
struct Writes;

impl Codec for Writes {
    type Encode = Asked;
    type Decode = GenerateResponse;
    type Encoder = Self;
    type Decoder = ProstDecoder<GenerateResponse>;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<GenerateRequest, GenerateResponse>::default().decoder()
    }
}

impl Encoder for Writes {
    type Item = Asked;
    type Error = Status;

    fn encode(&mut self, asked: Asked, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(asked.len());
        asked
            .encode(into)
            .map_err(|error| Status::internal(format!("a request cannot be written: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use mobula_proto::{common::v1::Prompt, inference::v1::inference_service_server::SERVICE_NAME};

    use super::*;

    #[test]
    fn it_goes_where_the_service_is() {
        assert_eq!(PATH, format!("/{SERVICE_NAME}/Generate"));
    }

    #[test]
    fn two_messages_are_read_as_one() {
        let request = GenerateRequest {
            request_id: "one".into(),
            seeds: vec![7],
            quality: 3,
            ..GenerateRequest::default()
        };
        let prompt = Some(Prompt {
            is_empty: true,
            ..Prompt::default()
        });
        let prompts = GenerateRequest {
            prompt: prompt.clone(),
            ..GenerateRequest::default()
        };
        for (prompts, prompt) in [(prompts.encode_to_vec().into(), prompt), (Bytes::new(), None)] {
            let asked = Asked {
                request: Box::new(request.clone()),
                prompts,
            };
            let mut written = Vec::new();
            asked.encode(&mut written).unwrap();
            assert_eq!(written.len(), asked.len());
            let expected = GenerateRequest {
                prompt,
                ..request.clone()
            };
            assert_eq!(GenerateRequest::decode(&*written), Ok(expected));
        }
    }
}
