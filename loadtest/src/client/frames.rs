//! gRPC's length-prefixed messages out of a stream of bytes. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A compressed flag and four bytes of length.
const PREFIX: usize = 5;

/// What is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A message that is compressed, which nobody asked for.
    Compressed,
    /// A message that is longer than anything that can be right.
    TooLong,
}

/// Collects bytes and gives back whole messages.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: BytesMut,
}

impl Frames {
    /// More bytes came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, as far as it is there; none is longer than `most`.
    ///
    /// # Errors
    /// When what comes next is no message.
    pub fn next(&mut self, most: usize) -> Result<Option<Bytes>, Malformed> {
        let Some((prefix, _)) = self.bytes.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 {
            return Err(Malformed::Compressed);
        }
        if length > most {
            return Err(Malformed::TooLong);
        }
        if self.bytes.len() < PREFIX + length {
            return Ok(None);
        }
        self.bytes.advance(PREFIX);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }

    /// Whether a message was begun and has not come whole.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Writes a message in this form.
    pub fn write(message: &impl prost::Message, out: &mut BytesMut) {
        out.put_u8(0);
        out.put_u32(message.encoded_len() as u32);
        message
            .encode(out)
            .expect("a growing buffer has room for every message");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_come_back_however_they_are_cut(
            messages in proptest::collection::vec(".{0,60}", 0..8),
            cuts in proptest::collection::vec(1usize..20, 1..50),
        ) {
            let mut stream = BytesMut::new();
            for message in &messages {
                Frames::write(message, &mut stream);
            }
            let mut frames = Frames::default();
            let mut found = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            while !stream.is_empty() {
                let cut = cuts.next().unwrap().min(stream.len());
                frames.push(&stream.split_to(cut));
                while let Some(message) = frames.next(1000).unwrap() {
                    found.push(<String as prost::Message>::decode(message).unwrap());
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(!frames.is_cut());
        }
    }

    #[test]
    fn what_is_no_message_is_refused_before_it_is_kept() {
        let mut frames = Frames::default();
        frames.push(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.next(1000), Err(Malformed::TooLong));
        let mut frames = Frames::default();
        frames.push(&[1, 0, 0, 0, 0]);
        assert_eq!(frames.next(1000), Err(Malformed::Compressed));
    }
}
