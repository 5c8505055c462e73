//! Tensors: a name, a type, sides, and elements as they travel. Pure.
//!
//! Elements stay as they came, raw and little endian, and are looked at where a model reads them. It refuses elements that
//! are more or fewer than the sides say, by the tensor's name.
//!
//! Invariant: a [`Tensor`] has exactly as many elements as its sides say.

use bytes::{BufMut as _, Bytes, BytesMut};
use mobula_proto::oip::InferTensorContents;

use super::datatype::Datatype;
use crate::problem::{Problem, Rule};

/// Sides of a tensor: more than any model has.
const SIDES_MAX: usize = 8;
/// Bytes before each element of a raw BYTES tensor, which say how many it has.
const LENGTH_BYTES: usize = 4;

/// A tensor's elements.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Elements {
    /// Numbers, row by row, little endian, without gaps.
    Raw(Bytes),
    /// Elements of a BYTES tensor.
    Each(Vec<Bytes>),
}

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<i64>,
    pub(crate) elements: Elements,
    /// It came as JSON, where bytes are text.
    pub(crate) is_text: bool,
}

/// A tensor as its head says, before its elements are read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
    /// Elements that the sides make.
    count: usize,
}

impl Head {
    /// Reads what a tensor is to be.
    ///
    /// # Errors
    /// A problem with the tensor.
    pub(crate) fn new(name: String, datatype: &str, shape: Vec<i64>) -> Result<Self, Problem> {
        if name.is_empty() {
            return Err(wrong("inputs", "one has no name"));
        }
        let name = shown(name);
        let Some(known) = Datatype::read(datatype) else {
            let given = shown(datatype.to_owned());
            let known: Vec<_> = Datatype::ALL.iter().map(|datatype| datatype.name()).collect();
            let why = format!("has datatype {given:?}, which is none of {}", known.join(", "));
            return Err(wrong(name, why));
        };
        if shape.len() > SIDES_MAX {
            let why = format!("has {} sides and may have at most {SIDES_MAX}", shape.len());
            return Err(wrong(name, why));
        }
        let count = shape.iter().try_fold(1usize, |count, side| {
            usize::try_from(*side)
                .ok()
                .and_then(|side| count.checked_mul(side))
        });
        match count {
            Some(count) => Ok(Self {
                name,
                datatype: known,
                shape,
                count,
            }),
            None => {
                let why = format!("has the shape {shape:?}, whose sides must be 0 at least and not too many");
                Err(wrong(name, why))
            }
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its elements' type.
    pub(crate) fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// How many elements its sides make.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Gives it elements that came raw.
    ///
    /// # Errors
    /// There are more or fewer than the sides say.
    pub(crate) fn raw(self, data: Bytes) -> Result<Tensor, Problem> {
        let Some(size) = self.datatype.size() else {
            let elements = split(&self, data)?;
            return self.with(Elements::Each(elements), false);
        };
        if self.count.checked_mul(size) != Some(data.len()) {
            let (has, shape, name) = (data.len(), &self.shape, self.datatype.name());
            let why = format!(
                "has {has} bytes, and {shape:?} of {name} are {} x {size}",
                self.count
            );
            return Err(wrong(self.name, why));
        }
        self.with(Elements::Raw(data), false)
    }

    /// Gives it elements that came typed in a message.
    ///
    /// # Errors
    /// There are more or fewer than the sides say, or they have another type.
    pub(crate) fn typed(self, contents: InferTensorContents) -> Result<Tensor, Problem> {
        let (field, found) = match self.datatype {
            Datatype::Bytes => {
                let each = contents.bytes_contents;
                return self.with(Elements::Each(each), false);
            }
            Datatype::Bool => ("bool_contents", pack(&contents.bool_contents, |v| [u8::from(*v)])),
            Datatype::Int8 => (
                "int_contents",
                narrow(&contents.int_contents, |v| i8::try_from(*v).map(i8::to_le_bytes)),
            ),
            Datatype::Int16 => (
                "int_contents",
                narrow(&contents.int_contents, |v| {
                    i16::try_from(*v).map(i16::to_le_bytes)
                }),
            ),
            Datatype::Int32 => ("int_contents", pack(&contents.int_contents, |v| v.to_le_bytes())),
            Datatype::Int64 => (
                "int64_contents",
                pack(&contents.int64_contents, |v| v.to_le_bytes()),
            ),
            Datatype::Uint8 => (
                "uint_contents",
                narrow(&contents.uint_contents, |v| u8::try_from(*v).map(u8::to_le_bytes)),
            ),
            Datatype::Uint16 => (
                "uint_contents",
                narrow(&contents.uint_contents, |v| {
                    u16::try_from(*v).map(u16::to_le_bytes)
                }),
            ),
            Datatype::Uint32 => (
                "uint_contents",
                pack(&contents.uint_contents, |v| v.to_le_bytes()),
            ),
            Datatype::Uint64 => (
                "uint64_contents",
                pack(&contents.uint64_contents, |v| v.to_le_bytes()),
            ),
            Datatype::Fp32 => (
                "fp32_contents",
                pack(&contents.fp32_contents, |v| v.to_le_bytes()),
            ),
            Datatype::Fp64 => (
                "fp64_contents",
                pack(&contents.fp64_contents, |v| v.to_le_bytes()),
            ),
            Datatype::Fp16 | Datatype::Bf16 => {
                let why = format!(
                    "is {}, which travels in raw_input_contents only",
                    self.datatype.name()
                );
                return Err(wrong(self.name, why));
            }
        };
        let Some(data) = found else {
            let why = format!("has a value in {field} that is none of {}", self.datatype.name());
            return Err(wrong(self.name, why));
        };
        let size = self.datatype.size().unwrap_or(1);
        if self.count.checked_mul(size) != Some(data.len()) {
            let (shape, has) = (&self.shape, data.len() / size);
            let why = format!("has {has} values in {field}, and {shape:?} are {}", self.count);
            return Err(wrong(self.name, why));
        }
        self.with(Elements::Raw(data), false)
    }

    /// Gives it its elements, which are counted where they are bytes.
    pub(crate) fn with(self, elements: Elements, is_text: bool) -> Result<Tensor, Problem> {
        if let Elements::Each(each) = &elements
            && each.len() != self.count
        {
            let (has, shape) = (each.len(), &self.shape);
            let why = format!("has {has} elements, and {shape:?} are {}", self.count);
            return Err(wrong(self.name, why));
        }
        Ok(Tensor {
            name: self.name,
            datatype: self.datatype,
            shape: self.shape,
            elements,
            is_text,
        })
    }
}

impl Tensor {
    /// A tensor of bytes.
    pub(crate) fn bytes(name: impl Into<String>, each: Vec<Bytes>) -> Self {
        Self {
            name: name.into(),
            datatype: Datatype::Bytes,
            shape: vec![each.len() as i64],
            elements: Elements::Each(each),
            is_text: false,
        }
    }

    /// A tensor of numbers that lie as they travel.
    pub(crate) fn of(name: impl Into<String>, datatype: Datatype, shape: Vec<i64>, data: Bytes) -> Self {
        Self {
            name: name.into(),
            datatype,
            shape,
            elements: Elements::Raw(data),
            is_text: false,
        }
    }

    /// A row of whole numbers.
    pub(crate) fn uint64(name: impl Into<String>, values: &[u64]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::of(name, Datatype::Uint64, vec![values.len() as i64], data)
    }

    /// How many elements it has.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        match &self.elements {
            Elements::Each(each) => each.len(),
            Elements::Raw(data) => data.len() / self.datatype.size().unwrap_or(1),
        }
    }

    /// Its elements as they travel raw.
    pub(crate) fn into_raw(self) -> Bytes {
        match self.elements {
            Elements::Raw(data) => data,
            Elements::Each(each) => {
                let length = each.iter().map(|one| LENGTH_BYTES + one.len()).sum();
                let mut whole = BytesMut::with_capacity(length);
                for one in each {
                    whole.put_u32_le(u32::try_from(one.len()).unwrap_or(u32::MAX));
                    whole.extend_from_slice(&one);
                }
                whole.freeze()
            }
        }
    }

    /// Its elements as whole numbers; none where they are none.
    pub(crate) fn integers(&self) -> Option<Vec<i128>> {
        let Elements::Raw(data) = &self.elements else {
            return None;
        };
        match self.datatype {
            Datatype::Uint8 => Some(each(data, |b: [u8; 1]| b[0].into())),
            Datatype::Uint16 => Some(each(data, |b| u16::from_le_bytes(b).into())),
            Datatype::Uint32 => Some(each(data, |b| u32::from_le_bytes(b).into())),
            Datatype::Uint64 => Some(each(data, |b| u64::from_le_bytes(b).into())),
            Datatype::Int8 => Some(each(data, |b| i8::from_le_bytes(b).into())),
            Datatype::Int16 => Some(each(data, |b| i16::from_le_bytes(b).into())),
            Datatype::Int32 => Some(each(data, |b| i32::from_le_bytes(b).into())),
            Datatype::Int64 => Some(each(data, |b| i64::from_le_bytes(b).into())),
            Datatype::Bool
            | Datatype::Fp16
            | Datatype::Fp32
            | Datatype::Fp64
            | Datatype::Bf16
            | Datatype::Bytes => None,
        }
    }

    /// Its elements as numbers; none where they are none.
    pub(crate) fn numbers(&self) -> Option<Vec<f64>> {
        let Elements::Raw(data) = &self.elements else {
            return None;
        };
        match self.datatype {
            Datatype::Fp32 => Some(each(data, |b| f32::from_le_bytes(b).into())),
            Datatype::Fp64 => Some(each(data, f64::from_le_bytes)),
            Datatype::Bf16 => Some(each(data, |[low, high]| {
                f32::from_le_bytes([0, 0, low, high]).into()
            })),
            Datatype::Fp16 | Datatype::Bool | Datatype::Bytes => None,
            Datatype::Uint8
            | Datatype::Uint16
            | Datatype::Uint32
            | Datatype::Uint64
            | Datatype::Int8
            | Datatype::Int16
            | Datatype::Int32
            | Datatype::Int64 => {
                let whole = self.integers()?;
                Some(whole.into_iter().map(|value| value as f64).collect())
            }
        }
    }

    /// Its elements as yes or no; none where they are none.
    pub(crate) fn flags(&self) -> Option<Vec<bool>> {
        match (&self.elements, self.datatype) {
            (Elements::Raw(data), Datatype::Bool) => Some(data.iter().map(|byte| *byte != 0).collect()),
            (Elements::Raw(_) | Elements::Each(_), _) => None,
        }
    }
}

/// Splits raw elements of a BYTES tensor, each behind its length.
fn split(head: &Head, mut data: Bytes) -> Result<Vec<Bytes>, Problem> {
    let mut elements = Vec::new();
    while !data.is_empty() {
        let length = data
            .first_chunk::<LENGTH_BYTES>()
            .map(|length| u32::from_le_bytes(*length) as usize);
        let left = data.len().saturating_sub(LENGTH_BYTES);
        match length {
            Some(length) if length <= left && elements.len() < head.count => {
                let _ = data.split_to(LENGTH_BYTES);
                elements.push(data.split_to(length));
            }
            Some(length) if length <= left => {
                let why = format!("has more elements than {:?} are", head.shape);
                return Err(wrong(head.name.clone(), why));
            }
            Some(_) | None => {
                let nth = elements.len();
                let why = format!(
                    "has an element {nth} that ends too early; every element is its length, {LENGTH_BYTES} bytes little endian, and its bytes"
                );
                return Err(wrong(head.name.clone(), why));
            }
        }
    }
    Ok(elements)
}

/// Numbers, one after the other.
fn each<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|chunk| read(*chunk)).collect()
}

fn pack<const N: usize, T>(values: &[T], write: impl Fn(&T) -> [u8; N]) -> Option<Bytes> {
    Some(values.iter().flat_map(write).collect())
}

/// The same where values may not fit.
fn narrow<const N: usize, T, E>(values: &[T], write: impl Fn(&T) -> Result<[u8; N], E>) -> Option<Bytes> {
    let all: Result<Vec<_>, _> = values.iter().map(write).collect();
    Some(all.ok()?.into_iter().flatten().collect())
}

/// A name as far as it is told.
pub(crate) fn shown(name: String) -> String {
    match name.char_indices().nth(crate::table::NAME_SHOWN) {
        Some((end, _)) => name[..end].to_owned(),
        None => name,
    }
}

pub(crate) fn wrong(field: impl Into<std::borrow::Cow<'static, str>>, why: impl Into<String>) -> Problem {
    Problem::new(field, Rule::Wrong(why.into()))
}

#[cfg(test)]
mod tests;
