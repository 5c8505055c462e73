//! Protobuf on the wire, as much of it as an edit of an ONNX file needs: fields are found, replaced and dropped, and every
//! byte that is not understood is kept as it is.
//!
//! It knows no schema. Invariant: writing back the fields that were read gives the same bytes.

/// Why bytes are not protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message: {0}")]
pub(crate) struct Malformed(pub(super) &'static str);

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    /// Field number.
    pub(crate) number: u64,
    /// Tag and value, to copy the field unchanged.
    pub(crate) raw: &'a [u8],
    /// The content of a length-delimited field (string, bytes, message); empty for the others.
    pub(crate) bytes: &'a [u8],
    /// The value of a field that is a number; 0 for the others.
    pub(crate) value: u64,
}

impl<'a> Field<'a> {
    /// The content as text; empty when it is no UTF-8.
    pub(crate) fn text(&self) -> &'a str {
        std::str::from_utf8(self.bytes).unwrap_or_default()
    }

    /// The value of a field that is a 32-bit float.
    pub(crate) fn float(&self) -> Option<f32> {
        let bits = self.raw.last_chunk().filter(|_| self.raw[0] & 7 == 5);
        bits.map(|bits| f32::from_le_bytes(*bits))
    }
}

/// Iterates over the fields of a message, in order; ends after the first malformed one.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// Reads a message.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// Reads all fields of a message at once.
pub(crate) fn collect(message: &[u8]) -> Result<Vec<Field<'_>>, Malformed> {
    fields(message).collect()
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = take_field(self.rest);
        self.rest = match &field {
            Ok(field) => &self.rest[field.raw.len()..],
            Err(_) => &[],
        };
        Some(field)
    }
}

fn take_field(message: &[u8]) -> Result<Field<'_>, Malformed> {
    let (tag, after_tag) = take_varint(message)?;
    let number = tag >> 3;
    let mut value = 0;
    let (bytes, rest): (&[u8], &[u8]) = match tag & 7 {
        0 => {
            let (number, rest) = take_varint(after_tag)?;
            value = number;
            (&[], rest)
        }
        1 => (
            &[],
            after_tag.get(8..).ok_or(Malformed("a 64-bit field is cut off"))?,
        ),
        2 => {
            let (length, content) = take_varint(after_tag)?;
            let length = usize::try_from(length).map_err(|_| Malformed("a length is too large"))?;
            content
                .split_at_checked(length)
                .ok_or(Malformed("a field is cut off"))?
        }
        5 => (
            &[],
            after_tag.get(4..).ok_or(Malformed("a 32-bit field is cut off"))?,
        ),
        _ => return Err(Malformed("an unknown wire type")),
    };
    Ok(Field {
        number,
        raw: &message[..message.len() - rest.len()],
        bytes,
        value,
    })
}

/// Reads numbers that are packed one after another.
pub(crate) fn packed(mut bytes: &[u8]) -> Result<Vec<u64>, Malformed> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let (number, rest) = take_varint(bytes)?;
        numbers.push(number);
        bytes = rest;
    }
    Ok(numbers)
}

fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0_u64;
    // Ten bytes of seven bits hold any 64-bit number.
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * index as u32);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(Malformed("a number is cut off"))
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    put_varint(out, (number << 3) | 2);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Appends a number's field.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

/// Appends the field of a 32-bit float.
pub(crate) fn put_float(out: &mut Vec<u8>, number: u64, value: f32) {
    put_varint(out, (number << 3) | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_of_every_wire_type_is_read_and_copied() {
        // 1: varint 300, 2: "ab", 3: fixed64, 4: fixed32
        let mut message = vec![0x08, 0xAC, 0x02, 0x12, 2, b'a', b'b', 0x19];
        message.extend([7; 8]);
        message.push(0x25);
        message.extend([9; 4]);
        let read = collect(&message).unwrap();
        assert_eq!(read.iter().map(|f| f.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(read[1].text(), "ab");
        assert_eq!(
            read.iter().flat_map(|f| f.raw).copied().collect::<Vec<_>>(),
            message
        );
    }

    #[test]
    fn a_cut_message_is_an_error() {
        for cut in [&[0x12_u8, 5, 1][..], &[0x80], &[0x19, 1], &[0x25, 1], &[0x0B]] {
            assert!(collect(cut).is_err(), "{cut:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(read) = collect(&bytes) {
                prop_assert_eq!(read.iter().flat_map(|f| f.raw).copied().collect::<Vec<_>>(), bytes);
            }
        }

        #[test]
        fn what_is_put_is_read(number in 1..1000_u64, content in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_bytes(&mut out, number, &content);
            let read = collect(&out).unwrap();
            prop_assert_eq!((read.len(), read[0].number, read[0].bytes), (1, number, &content[..]));
            out.clear();
            put_number(&mut out, number, content.len() as u64);
            let read = collect(&out).unwrap();
            prop_assert_eq!((read.len(), read[0].number, read[0].raw), (1, number, &out[..]));
            prop_assert_eq!(read[0].float(), None);
            out.clear();
            put_float(&mut out, number, content.len() as f32);
            let read = collect(&out).unwrap();
            prop_assert_eq!((read.len(), read[0].number, read[0].raw), (1, number, &out[..]));
            prop_assert_eq!(read[0].float(), Some(content.len() as f32));
        }
    }
}
