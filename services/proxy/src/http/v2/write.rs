//! Answers: JSON, and tensors behind it that were asked for as they are in memory. Written piece by piece while it is read, so
//! that no piece takes long. Pure.

use std::{collections::VecDeque, convert::Infallible, fmt::Write as _};

use axum::{body::Body, response::Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Map, Value as Json, json};

use super::{body::JSON_LENGTH, read::Binary};
use crate::v2::{Answer, Datatype, Elements, Parameters, Tensor, To, VERSION, Value};

/// Bytes that become 64 KiB of base64; a multiple of three, so that only the last piece is padded.
const BASE64_PIECE: usize = 48 << 10;
/// Numbers that become some 64 KiB of text.
const NUMBERS_PIECE: usize = 8 << 10;

#[derive(Debug)]
enum Piece {
    Text(String),
    Base64(Bytes),
    /// Numbers with commas between them; true for the first of a tensor.
    Numbers(Datatype, Bytes, bool),
    Raw(Bytes),
}

/// What is left to send.
#[derive(Debug, Default)]
struct Pieces(VecDeque<Piece>);

impl Pieces {
    fn text(&mut self, text: impl Into<String>) {
        self.0.push_back(Piece::Text(text.into()));
    }

    /// Bytes that are left; none where that is not known before they are written.
    fn length(&self) -> Option<u64> {
        let length = |piece: &Piece| match piece {
            Piece::Text(text) => Some(text.len() as u64),
            Piece::Base64(data) => Some(data.len().div_ceil(3) as u64 * 4),
            Piece::Raw(data) => Some(data.len() as u64),
            Piece::Numbers(..) => None,
        };
        self.0.iter().map(length).sum()
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = match self.0.pop_front()? {
            Piece::Text(text) => Bytes::from(text),
            Piece::Raw(data) => data,
            Piece::Base64(mut data) => {
                let piece = data.split_to(data.len().min(BASE64_PIECE));
                if !data.is_empty() {
                    self.0.push_front(Piece::Base64(data));
                }
                Bytes::from(STANDARD.encode(piece))
            }
            Piece::Numbers(datatype, mut data, is_first) => {
                let size = datatype.size().unwrap_or(1);
                let piece = data.split_to(data.len().min(NUMBERS_PIECE * size));
                if !data.is_empty() {
                    self.0.push_front(Piece::Numbers(datatype, data, false));
                }
                numbers(datatype, piece, is_first)
            }
        };
        Some(Ok(piece))
    }
}

fn numbers(datatype: Datatype, data: Bytes, is_first: bool) -> Bytes {
    let count = data.len() / datatype.size().unwrap_or(1);
    let tensor = Tensor::of("", datatype, vec![count as i64], data);
    let mut text = String::new();
    let mut comma = if is_first { "" } else { "," };
    let mut put = |value: &dyn std::fmt::Display| {
        // A String takes everything.
        let _ = write!(text, "{comma}{value}");
        comma = ",";
    };
    match (tensor.integers(), tensor.flags(), datatype) {
        (Some(values), ..) => values.iter().for_each(|value| put(value)),
        (None, Some(values), _) => values.iter().for_each(|value| put(value)),
        (None, None, Datatype::Fp32) => {
            let values = tensor.numbers().unwrap_or_default();
            values.iter().for_each(|value| match value.is_finite() {
                // As short as reads back the same.
                true => put(&(*value as f32)),
                false => put(&"null"),
            });
        }
        (None, None, _) => {
            let values = tensor.numbers().unwrap_or_default();
            values.iter().for_each(|value| put(&Json::from(*value)));
        }
    }
    text.into()
}

/// The answer to a request.
pub(super) fn response(to: &To, answer: Answer, binary: &Binary) -> Response {
    let mut about = Map::new();
    about.insert("model_name".to_owned(), to.model.as_str().into());
    about.insert("model_version".to_owned(), VERSION.into());
    if !to.id.is_empty() {
        about.insert("id".to_owned(), to.id.as_str().into());
    }
    about.insert("parameters".to_owned(), parameters(answer.parameters));
    // The outputs come last, in place of the closing brace.
    let mut head = Json::Object(about).to_string();
    head.pop();
    let mut pieces = Pieces::default();
    pieces.text(format!("{head},\"outputs\":["));
    let mut behind = Vec::new();
    for (nth, tensor) in answer.outputs.into_iter().enumerate() {
        if nth > 0 {
            pieces.text(",");
        }
        let mut about =
            json!({ "name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape });
        if binary.has(&tensor.name) {
            let data = tensor.into_raw();
            about["parameters"] = json!({ "binary_data_size": data.len() });
            pieces.text(about.to_string());
            behind.push(data);
        } else {
            written(&mut pieces, about, tensor);
        }
    }
    pieces.text("]}");
    // Where numbers are written, and binary data are behind them, it must be known before where those begin.
    if !behind.is_empty() && pieces.length().is_none() {
        pieces = whole(pieces);
    }
    finish(pieces, behind)
}

/// Turns all that is left into text.
fn whole(pieces: Pieces) -> Pieces {
    let mut text = Vec::new();
    for piece in pieces {
        let Ok(piece) = piece;
        text.extend_from_slice(&piece);
    }
    Pieces(VecDeque::from([Piece::Raw(text.into())]))
}

fn finish(mut pieces: Pieces, behind: Vec<Bytes>) -> Response {
    let json_length = pieces.length().filter(|_| !behind.is_empty());
    pieces.0.extend(behind.into_iter().map(Piece::Raw));
    let length = pieces.length();
    let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
    let headers = response.headers_mut();
    let media_type = match json_length {
        Some(_) => "application/octet-stream",
        None => "application/json",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(length) = json_length {
        headers.insert(JSON_LENGTH, HeaderValue::from(length));
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Writes a tensor with its data; bytes as base64, and says so, since they need not be text.
fn written(pieces: &mut Pieces, mut about: Json, tensor: Tensor) {
    let is_bytes = tensor.datatype == Datatype::Bytes;
    if is_bytes {
        about["parameters"] = json!({ "content_type": "base64" });
    }
    let mut head = about.to_string();
    head.pop();
    pieces.text(format!("{head},\"data\":["));
    match tensor.elements {
        Elements::Raw(data) => {
            if data.len() <= NUMBERS_PIECE {
                let all = numbers(tensor.datatype, data, true);
                pieces.text(String::from_utf8_lossy(&all));
            } else {
                pieces.0.push_back(Piece::Numbers(tensor.datatype, data, true));
            }
        }
        Elements::Each(each) => {
            for (nth, data) in each.into_iter().enumerate() {
                pieces.text(if nth > 0 { ",\"" } else { "\"" });
                pieces.0.push_back(Piece::Base64(data));
                pieces.text("\"");
            }
        }
    }
    pieces.text("]}");
}

fn parameters(parameters: Parameters) -> Json {
    let value = |value| match value {
        Value::Bool(value) => Json::from(value),
        Value::Number(value) => Json::from(value),
        Value::Text(value) => Json::from(value),
        Value::Integer(value) => match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => Json::from(value),
            (Err(_), Ok(value)) => Json::from(value),
            (Err(_), Err(_)) => Json::from(value.to_string()),
        },
    };
    Json::Object(
        parameters
            .into_iter()
            .map(|(name, given)| (name, value(given)))
            .collect(),
    )
}

#[cfg(test)]
mod tests;
