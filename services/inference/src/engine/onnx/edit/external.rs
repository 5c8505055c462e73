//! Weights that are kept in files of their own: where they are, checked before anything opens them.
//!
//! A location is a name inside the model's folder. One that is absolute, or goes up, or has a drive, is refused; what a link
//! inside the folder points to is its owner's affair, because stores of models are made of links.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use super::Refused;
use super::graph::{
    ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS, ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS, GRAPH_INITIALIZER, GRAPH_NODE,
    NODE_ATTRIBUTE, TENSOR_EXTERNAL, TENSOR_NAME, text,
};
use super::stream::graph_fields;
use super::wire::{self, Field, Malformed};

/// `StringStringEntryProto`.
const ENTRY_KEY: u64 = 1;
const ENTRY_VALUE: u64 = 2;
/// Graphs inside graphs at most; exporters nest two.
pub(super) const MAX_DEPTH: usize = 16;

/// Where one tensor's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct External<'a> {
    location: &'a str,
    offset: u64,
    length: Option<u64>,
}

impl<'a> External<'a> {
    /// What a `TensorProto` says, when its bytes are elsewhere.
    pub(super) fn of(tensor: &'a [u8]) -> Result<Option<Self>, Refused> {
        let (mut location, mut offset, mut length) = (None, 0, None);
        for field in wire::collect(tensor)? {
            if field.number != TENSOR_EXTERNAL {
                continue;
            }
            let value = text(field.bytes, ENTRY_VALUE);
            let amount = || {
                value.parse().map_err(|_| Refused::Tensor {
                    name: text(tensor, TENSOR_NAME).to_owned(),
                    why: format!("its place in another file is {value:?}, expected a whole number"),
                })
            };
            match text(field.bytes, ENTRY_KEY) {
                "location" => location = Some(value),
                "offset" => offset = amount()?,
                "length" => length = Some(amount()?),
                _ => {}
            }
        }
        let Some(location) = location else {
            return Ok(None);
        };
        if is_inside(location) {
            Ok(Some(Self {
                location,
                offset,
                length,
            }))
        } else {
            Err(Refused::Outside(location.to_owned()))
        }
    }

    /// Reads exactly so many bytes, which the caller has computed from the tensor's dimensions.
    pub(super) fn read(&self, folder: &Path, expected: u64) -> Result<Vec<u8>, Refused> {
        let failed = |why: String| Refused::Weights {
            file: self.location.to_owned(),
            why,
        };
        if self.length.is_some_and(|length| length != expected) {
            return Err(failed(format!(
                "a tensor has {:?} bytes, expected {expected}",
                self.length
            )));
        }
        let mut file = File::open(folder.join(self.location)).map_err(|error| failed(error.to_string()))?;
        let size = file.metadata().map_err(|error| failed(error.to_string()))?.len();
        // Before anything is reserved: the dimensions may say whatever they like.
        if self.offset.checked_add(expected).is_none_or(|end| end > size) {
            return Err(failed(format!(
                "it has {size} bytes, a tensor would end after it"
            )));
        }
        let length = usize::try_from(expected).map_err(|error| failed(error.to_string()))?;
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| failed(error.to_string()))?;
        Ok(bytes)
    }
}

/// Whether a location stays inside the folder that it is relative to, on every system.
fn is_inside(location: &str) -> bool {
    let drive = location.contains([':', '\\']);
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    !location.is_empty() && !drive && !location.contains('\0') && Path::new(location).components().all(normal)
}

/// Checks the locations of all tensors of a model of so many bytes, those in nested graphs included.
///
/// # Errors
/// [`Refused::Outside`] with the first location outside the model's folder; [`Refused::Malformed`], [`Refused::Unreadable`].
pub(crate) fn check(model: impl Read + Seek, size: u64) -> Result<(), Refused> {
    graph_fields(model, size, |number, bytes| check_field(number, bytes, 0))
}

fn check_graph(graph: &[u8], depth: usize) -> Result<(), Refused> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    for field in wire::collect(graph)? {
        check_field(field.number, field.bytes, depth)?;
    }
    Ok(())
}

/// Checks a field of a graph that is so deep.
fn check_field(number: u64, bytes: &[u8], depth: usize) -> Result<(), Refused> {
    match number {
        GRAPH_INITIALIZER => {
            External::of(bytes)?;
        }
        GRAPH_NODE => {
            for attribute in within(bytes, NODE_ATTRIBUTE)? {
                for field in wire::collect(attribute.bytes)? {
                    match field.number {
                        ATTRIBUTE_TENSOR | ATTRIBUTE_TENSORS => {
                            External::of(field.bytes)?;
                        }
                        ATTRIBUTE_GRAPH | ATTRIBUTE_GRAPHS => check_graph(field.bytes, depth + 1)?,
                        _ => {}
                    }
                }
            }
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn too_deep() -> Refused {
    Refused::Tensor {
        name: "in a nested graph".to_owned(),
        why: format!("graphs are nested more than {MAX_DEPTH} deep"),
    }
}

fn within(message: &[u8], number: u64) -> Result<Vec<Field<'_>>, Malformed> {
    let mut all = wire::collect(message)?;
    all.retain(|field| field.number == number);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut tensor = Vec::new();
        for (key, value) in entries {
            let mut entry = Vec::new();
            wire::put_bytes(&mut entry, ENTRY_KEY, key.as_bytes());
            wire::put_bytes(&mut entry, ENTRY_VALUE, value.as_bytes());
            wire::put_bytes(&mut tensor, TENSOR_EXTERNAL, &entry);
        }
        tensor
    }

    #[test]
    fn only_files_inside_the_models_folder_are_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("unet")).unwrap();
        std::fs::write(folder.path().join("secret"), "12345678").unwrap();
        std::fs::write(folder.path().join("unet/weights.pb"), "abcdefgh").unwrap();
        let unet = folder.path().join("unet");
        let good = tensor(&[("location", "weights.pb"), ("offset", "2"), ("length", "4")]);
        let good = External::of(&good).unwrap().unwrap();
        assert_eq!(good.read(&unet, 4).unwrap(), b"cdef");
        assert!(good.read(&unet, 5).is_err());
        for outside in [
            "../secret",
            "/etc/passwd",
            "a/../../secret",
            "C:\\x",
            "..\\secret",
            "",
            "C:x",
        ] {
            let wrong = tensor(&[("location", outside)]);
            assert_eq!(
                External::of(&wrong),
                Err(Refused::Outside(outside.to_owned())),
                "{outside:?}"
            );
        }
        assert_eq!(External::of(&tensor(&[])), Ok(None));
    }

    #[test]
    fn a_tensor_that_would_end_after_its_file_reserves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w"), "abc").unwrap();
        for (offset, expected) in [("0", 1 << 60), ("18446744073709551615", 8), ("2", 2)] {
            let tensor = tensor(&[("location", "w"), ("offset", offset)]);
            let external = External::of(&tensor).unwrap().unwrap();
            let error = external.read(folder.path(), expected).unwrap_err().to_string();
            assert!(error.contains("would end after it"), "{error}");
        }
        assert!(External::of(&tensor(&[("location", "w"), ("offset", "-1")])).is_err());
    }
}
