//! The bytes of an answer in pieces: a picture is turned into base64 as it is read, so that a slow reader costs the
//! picture and one piece, and no call takes long. Pure.

use std::{collections::VecDeque, convert::Infallible};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

/// Bytes of a picture that become 64 KiB of text; a multiple of three, so that only the last piece is padded.
const PIECE: usize = 48 << 10;

#[derive(Debug)]
enum Piece {
    Text(String),
    Base64(Bytes),
}

/// What is left to send.
#[derive(Debug, Default)]
pub(super) struct Pieces(VecDeque<Piece>);

impl Pieces {
    /// Adds text.
    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.0.push_back(Piece::Text(text.into()));
        self
    }

    /// Adds a JSON object with a picture in its field `b64_json`, and with all of `rest`, which is an object with fields.
    pub(super) fn picture(mut self, data: Bytes, rest: &Value) -> Self {
        let rest = rest.to_string();
        self.0.push_back(Piece::Text("{\"b64_json\":\"".to_owned()));
        self.0.push_back(Piece::Base64(data));
        self.text(format!("\",{}", rest.trim_start_matches('{')))
    }

    /// Bytes that are left.
    pub(super) fn length(&self) -> u64 {
        let length = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Base64(data) => data.len().div_ceil(3) * 4,
        };
        self.0.iter().map(|piece| length(piece) as u64).sum()
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = match self.0.pop_front()? {
            Piece::Text(text) => Bytes::from(text),
            Piece::Base64(mut data) => {
                let piece = data.split_to(data.len().min(PIECE));
                if !data.is_empty() {
                    self.0.push_front(Piece::Base64(data));
                }
                Bytes::from(STANDARD.encode(piece))
            }
        };
        Some(Ok(piece))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pictures_of_any_length_are_whole_in_json() {
        for length in [0, 1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 2] {
            let data: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let pieces = Pieces::default()
                .picture(data.clone().into(), &json!({ "seed": 7 }))
                .text("\n");
            let told = pieces.length();
            let all: Vec<Bytes> = pieces
                .map(|piece| piece.unwrap_or_else(|never| match never {}))
                .collect();
            assert!(all.iter().all(|piece| piece.len() <= PIECE / 3 * 4));
            let all = all.concat();
            assert_eq!(all.len() as u64, told, "{length}");
            let read: Value = serde_json::from_slice(&all).unwrap();
            assert_eq!(read["seed"], 7);
            assert_eq!(
                STANDARD.decode(read["b64_json"].as_str().unwrap()).unwrap(),
                data,
                "{length}"
            );
        }
    }
}
