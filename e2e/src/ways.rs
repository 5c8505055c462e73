//! One request by each of the proxy's doors, and what came back in the same words.

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use mobula_proto::image::v1::{GenerateRequest, Parameters};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use tonic::{Code, Status};

use crate::client::{Drawn, Picture};
use crate::http::{Answer, send};

/// How a caller asks for a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `ImageService.Generate`.
    Grpc,
    /// `GET /imagine`.
    Imagine,
    /// OpenAI's Images API.
    OpenAi,
    /// The Open Inference Protocol over HTTP.
    Infer,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Grpc, Self::Imagine, Self::OpenAi, Self::Infer];

    fn request(self, asked: &GenerateRequest) -> anyhow::Result<http::Request<String>> {
        let (model, prompt) = (&asked.model, &asked.prompt);
        let seed = asked.seeds.first().context("a request names its seed")?;
        let steps = asked.steps.context("a request names its steps")?;
        let with_id = |builder: http::request::Builder| {
            let builder = builder.header(CONTENT_TYPE, "application/json");
            builder.header("x-request-id", &asked.request_id)
        };
        let post = |path: &str, body: Value| Ok(with_id(http::Request::post(path)).body(body.to_string())?);
        match self {
            Self::Grpc => anyhow::bail!("gRPC is asked by its own client"),
            Self::Imagine => {
                let prompt = prompt.replace(' ', "%20");
                let path = format!("/{model}/imagine?prompt={prompt}&steps={steps}&seed={seed}");
                Ok(with_id(http::Request::get(path)).body(String::new())?)
            }
            Self::OpenAi => post(
                "/v1/images/generations",
                json!({
                    "model": model, "prompt": prompt, "response_format": "b64_json",
                    "num_inference_steps": steps, "seed": seed,
                }),
            ),
            Self::Infer => post(
                &format!("/v2/models/{model}/infer"),
                json!({
                    "inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [prompt]}],
                    "parameters": {"steps": steps, "seed": seed},
                    "outputs": [{"name": "image"}],
                }),
            ),
        }
    }

    /// The files of an answer.
    fn files(self, answer: &Answer) -> anyhow::Result<Vec<Bytes>> {
        let decoded = |text: &Value| -> anyhow::Result<Bytes> {
            let text = text.as_str().context("base64")?;
            Ok(BASE64_STANDARD.decode(text)?.into())
        };
        let body = || serde_json::from_slice::<Value>(&answer.body).context("JSON");
        let all = |pictures: &Value, of: fn(&Value) -> &Value| {
            let pictures = pictures.as_array().context("a list of pictures")?;
            pictures.iter().map(|picture| decoded(of(picture))).collect()
        };
        match self {
            Self::Grpc | Self::Imagine => Ok(vec![answer.body.clone()]),
            Self::OpenAi => all(&body()?["data"], |picture| &picture["b64_json"]),
            Self::Infer => all(&body()?["outputs"][0]["data"], |picture| picture),
        }
    }
}

/// Asks by HTTP and reads to the end. A connection that breaks is a status with a cause, as gRPC's client makes it.
pub(crate) async fn ask(address: SocketAddr, way: Way, asked: &GenerateRequest) -> Result<Drawn, Status> {
    let wrong = |error: anyhow::Error| Status::internal(format!("{way:?}: {error:#}"));
    let request = way.request(asked).map_err(wrong)?;
    let answer = send(address, request)
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    if !answer.status.is_success() {
        let text = format!("{way:?}: {}: {}", answer.status, answer.text());
        return Err(Status::new(Code::Unknown, text));
    }
    let files = way.files(&answer).map_err(wrong)?;
    let picture = |(index, file): (u32, Bytes)| Picture {
        index,
        seed: 0,
        digest: format!("{:x}", Sha256::digest(&file)),
        png: file,
    };
    Ok(Drawn {
        request_id: answer.header("x-request-id").to_owned(),
        pictures: (0..).zip(files).map(picture).collect(),
        parameters: Some(Parameters::default()),
        ..Drawn::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_over_http_asks_for_the_same_and_reads_the_file_out_of_its_answer() -> anyhow::Result<()> {
        let asked = GenerateRequest {
            model: "sd".into(),
            steps: Some(3),
            request_id: "id".into(),
            ..crate::prompt("a red circle", 7)
        };
        for way in [Way::Imagine, Way::OpenAi, Way::Infer] {
            let request = way.request(&asked)?;
            let text = format!("{} {}", request.uri(), request.body());
            assert!(
                text.contains("sd") && text.contains('3') && text.contains('7'),
                "{text}"
            );
            assert_eq!(request.headers()["x-request-id"], "id");
        }
        let answer = |body: &str| Answer {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let two = answer(r#"{"data": [{"b64_json": "YQ=="}, {"b64_json": "Yg=="}]}"#);
        assert_eq!(Way::OpenAi.files(&two)?, ["a", "b"]);
        let one = answer(r#"{"outputs": [{"name": "image", "data": ["YQ=="]}]}"#);
        assert_eq!(Way::Infer.files(&one)?, ["a"]);
        assert!(Way::Infer.files(&answer("{}")).is_err());
        Ok(())
    }
}
