//! A request's JSON, and the tensors behind it, to what is asked. Pure.
//!
//! Invariant: what is read of numbers takes a few times the bytes that they are written in, and no more of them are read than
//! the largest picture has.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{
    Deserialize,
    de::{self, Deserializer, SeqAccess, Visitor},
};
use serde_json::Value as Json;

use super::{
    body::Parts,
    error::{Failure, malformed},
};
use crate::v2::{Ask, Datatype, Elements, Head, Parameters, Value, refused, shown, wrong};

/// Numbers and texts of a request that are JSON: those of a picture of 1024 x 1024, with room. More go as binary data.
const ELEMENTS_MAX: usize = 4 << 20;
/// A parameter of a tensor: that so many bytes of it are behind the JSON.
const BINARY_SIZE: &str = "binary_data_size";
/// A parameter of an output: that it goes behind the JSON.
const BINARY: &str = "binary_data";
/// The same of a request: that all outputs do which do not say.
const BINARY_OUTPUT: &str = "binary_data_output";

/// A request's body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: BTreeMap<String, Json>,
    #[serde(default)]
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    name: String,
    datatype: String,
    #[serde(default)]
    shape: Vec<i64>,
    #[serde(default)]
    parameters: BTreeMap<String, Json>,
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: BTreeMap<String, Json>,
}

/// Elements of a tensor, nested or not, in their order.
#[derive(Debug, Default)]
struct Data(Vec<Element>);

#[derive(Debug, Clone, PartialEq)]
enum Element {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Number(f64),
    Text(Box<str>),
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, texts, or arrays of them")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data(vec![Element::Bool(value)]))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(Data(vec![Element::Unsigned(value)]))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data(vec![Element::Signed(value)]))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
        Ok(Data(vec![Element::Number(value)]))
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data(vec![Element::Text(value.into())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
        let mut whole = Data::default();
        while seq.next_element_seed(&mut whole)?.is_some() {}
        Ok(whole)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

/// Adds what comes next, however deep it is, to what is there.
impl<'de> de::DeserializeSeed<'de> for &mut Data {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Data(mut more) = deserializer.deserialize_any(DataVisitor)?;
        if self.0.len().saturating_add(more.len()) > ELEMENTS_MAX {
            let why = format!("data has more than {ELEMENTS_MAX} elements; send them as binary data");
            return Err(de::Error::custom(why));
        }
        if self.0.is_empty() {
            self.0 = more;
        } else {
            self.0.append(&mut more);
        }
        Ok(())
    }
}

/// Which outputs go behind the JSON.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Binary {
    /// Those that do not say.
    all: bool,
    by_name: BTreeMap<String, bool>,
}

impl Binary {
    pub(super) fn has(&self, output: &str) -> bool {
        self.by_name.get(output).copied().unwrap_or(self.all)
    }
}

/// Reads a request.
///
/// # Errors
/// Everything that is wrong with its tensors, or that it is no request.
pub(super) fn read(parts: Parts) -> Result<(Ask, Binary), Failure> {
    // A struct is read from an array too, which is no request.
    if parts.json.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("is no JSON of a request: it must be an object"));
    }
    let body: Body = serde_json::from_slice(&parts.json)
        .map_err(|error| malformed(format!("is no JSON of a request: {error}")))?;
    let mut problems = Vec::new();
    let mut binary = Binary::default();
    let mut parameters = Parameters::new();
    for (name, value) in body.parameters {
        match (name.as_str(), scalar(value)) {
            (BINARY_OUTPUT, Some(Value::Bool(all))) => binary.all = all,
            (_, Some(value)) => {
                parameters.insert(name, value);
            }
            (_, None) => problems.push(wrong(shown(name), "must be a text, a number, true or false")),
        }
    }
    let mut rest = parts.binary;
    let mut inputs = Vec::with_capacity(body.inputs.len());
    for input in body.inputs {
        let name = shown(input.name.clone());
        if let Some(why) = refused(input.parameters.keys()) {
            problems.push(wrong(name, why));
            continue;
        }
        let raw = match take(&input, &mut rest) {
            Ok(raw) => raw,
            Err(why) => {
                // Where the next one begins is not known either.
                problems.push(wrong(name, why));
                break;
            }
        };
        let tensor =
            Head::new(input.name, &input.datatype, input.shape).and_then(|head| match (raw, input.data) {
                (Some(raw), None) => head.raw(raw),
                (None, Some(data)) => {
                    let elements = pack(&head, data).map_err(|why| wrong(head.name().to_owned(), why))?;
                    let is_bytes = head.datatype() == Datatype::Bytes;
                    head.with(elements, is_bytes)
                }
                (Some(_), Some(_)) => Err(wrong(
                    head.name().to_owned(),
                    format!("has data and {BINARY_SIZE}; one of the two"),
                )),
                (None, None) => Err(wrong(head.name().to_owned(), "has no data")),
            });
        match tensor {
            Ok(tensor) => inputs.push(tensor),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() && !rest.is_empty() {
        problems.push(wrong(
            "request",
            format!("has {} bytes that belong to no tensor", rest.len()),
        ));
    }
    let mut outputs = Vec::with_capacity(body.outputs.len());
    for output in body.outputs {
        if let Some(why) = refused(output.parameters.keys()) {
            problems.push(wrong(shown(output.name.clone()), why));
        }
        match output.parameters.get(BINARY) {
            None => {}
            Some(Json::Bool(is_binary)) => {
                binary.by_name.insert(output.name.clone(), *is_binary);
            }
            Some(_) => problems.push(wrong(BINARY, "must be true or false")),
        }
        outputs.push(output.name);
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let ask = Ask {
        id: body.id,
        parameters,
        inputs,
        outputs,
    };
    Ok((ask, binary))
}

fn scalar(value: Json) -> Option<Value> {
    match value {
        Json::Bool(value) => Some(Value::Bool(value)),
        Json::String(text) => Some(Value::Text(text)),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => Some(Value::Integer(value.into())),
            (None, Some(value)) => Some(Value::Integer(value.into())),
            (None, None) => number.as_f64().map(Value::Number),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Takes a tensor's bytes from those behind the JSON, where it says that it has some there.
fn take(input: &Input, rest: &mut Bytes) -> Result<Option<Bytes>, String> {
    let Some(size) = input.parameters.get(BINARY_SIZE) else {
        return Ok(None);
    };
    let left = rest.len();
    let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
    match size.filter(|size| *size <= left) {
        Some(size) => Ok(Some(rest.split_to(size))),
        None => Err(format!(
            "has a {BINARY_SIZE} that is no number of the {left} bytes left"
        )),
    }
}

/// Elements as they travel.
fn pack(head: &Head, data: Data) -> Result<Elements, String> {
    let name = head.datatype().name();
    if data.0.len() != head.count() {
        return Err(format!(
            "has {} elements of data, and its shape has {}",
            data.0.len(),
            head.count()
        ));
    }
    if head.datatype() == Datatype::Bytes {
        let text = |element| match element {
            Element::Text(text) => Some(Bytes::from(String::from(text))),
            Element::Bool(_) | Element::Unsigned(_) | Element::Signed(_) | Element::Number(_) => None,
        };
        let texts: Option<Vec<_>> = data.0.into_iter().map(text).collect();
        return texts
            .map(Elements::Each)
            .ok_or_else(|| "is BYTES, and has data that is no text".to_owned());
    }
    let mut packed = Vec::with_capacity(head.count().saturating_mul(head.datatype().size().unwrap_or(1)));
    for element in &data.0 {
        put(&mut packed, head.datatype(), element)
            .ok_or_else(|| format!("has the element {element}, which is none of {name}"))?;
    }
    Ok(Elements::Raw(packed.into()))
}

fn put(packed: &mut Vec<u8>, datatype: Datatype, element: &Element) -> Option<()> {
    match datatype {
        Datatype::Bool => packed.push(element.flag()?.into()),
        Datatype::Uint8 => packed.extend(u8::try_from(element.integer()?).ok()?.to_le_bytes()),
        Datatype::Uint16 => packed.extend(u16::try_from(element.integer()?).ok()?.to_le_bytes()),
        Datatype::Uint32 => packed.extend(u32::try_from(element.integer()?).ok()?.to_le_bytes()),
        Datatype::Uint64 => packed.extend(u64::try_from(element.integer()?).ok()?.to_le_bytes()),
        Datatype::Int8 => packed.extend(i8::try_from(element.integer()?).ok()?.to_le_bytes()),
        Datatype::Int16 => packed.extend(i16::try_from(element.integer()?).ok()?.to_le_bytes()),
        Datatype::Int32 => packed.extend(i32::try_from(element.integer()?).ok()?.to_le_bytes()),
        Datatype::Int64 => packed.extend(i64::try_from(element.integer()?).ok()?.to_le_bytes()),
        Datatype::Fp32 => packed.extend((element.number()? as f32).to_le_bytes()),
        Datatype::Fp64 => packed.extend(element.number()?.to_le_bytes()),
        // As Triton has it: binary data only.
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => return None,
    }
    Some(())
}

impl Element {
    fn flag(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Unsigned(value) if *value <= 1 => Some(*value == 1),
            Self::Unsigned(_) | Self::Signed(_) | Self::Number(_) | Self::Text(_) => None,
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Unsigned(value) => Some((*value).into()),
            Self::Signed(value) => Some((*value).into()),
            Self::Bool(_) | Self::Number(_) | Self::Text(_) => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Unsigned(value) => Some(*value as f64),
            Self::Signed(value) => Some(*value as f64),
            Self::Number(value) => Some(*value),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(text) => write!(f, "{:?}", shown(text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
