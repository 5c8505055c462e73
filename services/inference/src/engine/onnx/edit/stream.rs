//! The fields of a model's graph from a file, one after the other: gigabytes are looked through in the memory of one tensor.

use std::io::{BufReader, Read, Seek};

use super::Refused;
use super::graph::MODEL_GRAPH;
use super::wire::Malformed;

/// Reads a model of so many bytes and gives the messages and strings of its graph: a field number and the content.
///
/// # Errors
/// [`Refused::Malformed`], [`Refused::Unreadable`], and those of `each`, after which nothing more is read.
pub(crate) fn graph_fields(
    reader: impl Read + Seek,
    size: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut input = Input {
        reader: BufReader::new(reader),
        at: 0,
    };
    let mut content = Vec::new();
    while let Some((number, length)) = input.next(size)? {
        let end = input.at + length;
        if number != MODEL_GRAPH {
            input.skip(length)?;
            continue;
        }
        while let Some((number, length)) = input.next(end)? {
            content.clear();
            input.read(length, &mut content)?;
            each(number, &content)?;
        }
    }
    Ok(())
}

struct Input<R> {
    reader: BufReader<R>,
    /// Bytes behind it.
    at: u64,
}

impl<R: Read + Seek> Input<R> {
    /// The number of the next length-delimited field of a message that ends at `end`, and its length; none at the end.
    fn next(&mut self, end: u64) -> Result<Option<(u64, u64)>, Refused> {
        while self.at < end {
            let tag = self.varint(end)?;
            let length = match tag & 7 {
                0 => {
                    self.varint(end)?;
                    0
                }
                1 => 8,
                2 => self.varint(end)?,
                5 => 4,
                _ => return Err(Malformed("an unknown wire type").into()),
            };
            if self.at.checked_add(length).is_none_or(|after| after > end) {
                return Err(Malformed("a field is cut off").into());
            }
            if tag & 7 == 2 {
                return Ok(Some((tag >> 3, length)));
            }
            self.skip(length)?;
        }
        Ok(None)
    }

    fn varint(&mut self, end: u64) -> Result<u64, Refused> {
        let mut value = 0;
        for index in 0..10 {
            if self.at >= end {
                break;
            }
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7F) << (7 * index);
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is cut off").into())
    }

    fn skip(&mut self, length: u64) -> Result<(), Refused> {
        let step = i64::try_from(length).map_err(|_| Malformed("a length is too large"))?;
        self.reader.seek_relative(step)?;
        self.at += length;
        Ok(())
    }

    /// Appends the next bytes, of which there are so many.
    fn read(&mut self, length: u64, content: &mut Vec<u8>) -> Result<(), Refused> {
        let read = self.reader.by_ref().take(length).read_to_end(content)?;
        if read as u64 != length {
            return Err(Malformed("a field is cut off").into());
        }
        self.at += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::wire;
    use super::*;
    use proptest::prelude::*;

    /// Those fields by way of the whole model in memory.
    fn whole(model: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, Malformed> {
        let mut all = Vec::new();
        for graph in wire::collect(model)? {
            if graph.number == MODEL_GRAPH {
                let fields = wire::collect(graph.bytes)?;
                let messages = fields.iter().filter(|field| field.raw[0] & 7 == 2);
                all.extend(messages.map(|field| (field.number, field.bytes.to_vec())));
            }
        }
        Ok(all)
    }

    fn streamed(model: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, Refused> {
        let mut all = Vec::new();
        graph_fields(Cursor::new(model), model.len() as u64, |number, bytes| {
            all.push((number, bytes.to_vec()));
            Ok(())
        })?;
        Ok(all)
    }

    proptest! {
        #[test]
        fn a_stream_gives_what_the_whole_gives(
            fields in prop::collection::vec((1..30_u64, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            numbers in prop::collection::vec((1..30_u64, any::<u64>()), 0..3),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut graph = Vec::new();
            for (number, content) in &fields {
                wire::put_bytes(&mut graph, *number, content);
            }
            let mut model = Vec::new();
            for (number, value) in &numbers {
                wire::put_number(&mut model, *number, *value);
                wire::put_number(&mut graph, *number, *value);
            }
            wire::put_bytes(&mut model, MODEL_GRAPH, &graph);
            wire::put_bytes(&mut model, 8, b"later");
            prop_assert_eq!(streamed(&model).unwrap(), whole(&model).unwrap());
            let cut = &model[..cut.index(model.len())];
            prop_assert_eq!(streamed(cut).is_err(), whole(cut).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused_as_the_whole_is(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let (streamed, whole) = (streamed(&bytes), whole(&bytes));
            prop_assert_eq!(streamed.is_err(), whole.is_err(), "{:?} {:?}", streamed, whole);
        }
    }

    #[test]
    fn what_a_caller_refuses_ends_the_reading() {
        let mut graph = Vec::new();
        wire::put_bytes(&mut graph, 1, b"a");
        wire::put_bytes(&mut graph, 1, b"b");
        let mut model = Vec::new();
        wire::put_bytes(&mut model, MODEL_GRAPH, &graph);
        let mut seen = 0;
        let ended = graph_fields(Cursor::new(&model), model.len() as u64, |_, _| {
            seen += 1;
            Err(Refused::NoGraph)
        });
        assert_eq!((ended, seen), (Err(Refused::NoGraph), 1));
        // The file became shorter meanwhile.
        let cut = Cursor::new(&model[..model.len() - 1]);
        assert!(graph_fields(cut, model.len() as u64, |_, _| Ok(())).is_err());
    }
}
