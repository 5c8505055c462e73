//! Token windows to what text encoders make of them, and both as tensors. Pure.

use bytes::{Bytes, BytesMut};
use mobula_proto::{
    common::v1::{DataType, Tensor as Numbers},
    inference::v1::{EncodedText, TextWindow},
};

use super::super::{datatype::Datatype, given::Given, tensor::Tensor};
use crate::Error;

/// Windows that a call may have: twenty megabytes of Stable Diffusion XL's states, which a message has room for.
pub(super) const WINDOWS_MAX: usize = 32;
/// Tokens that a window may have: more than any encoder takes.
const TOKENS_MAX: usize = 1024;

/// Token windows, with the sides that are before a window's tokens.
#[derive(Debug, Default)]
pub(super) struct Windows {
    pub(super) windows: Vec<TextWindow>,
    pub(super) sides: Vec<i64>,
}

/// Rows of a tensor of numbers: the last side is a row's.
fn rows(given: &mut Given, field: &'static str) -> Option<(Vec<i64>, Vec<i128>)> {
    let tensor = given.tensor(field)?;
    let Some(values) = tensor.integers() else {
        let why = format!(
            "is {}, and must be INT64 or another type of whole numbers",
            tensor.datatype.name()
        );
        given.wrong(field, why);
        return None;
    };
    Some((tensor.shape, values))
}

/// Reads token windows from two fields; the second may be absent.
pub(super) fn windows(
    given: &mut Given,
    (first, second): (&'static str, &'static str),
    clip_skip: u32,
) -> Windows {
    let Some((shape, ids)) = rows(given, first) else {
        given.complain(first, crate::problem::Rule::Missing);
        return Windows::default();
    };
    let other = rows(given, second);
    let Some((tokens, sides)) = shape.split_last() else {
        given.wrong(first, "has the shape []; it must be [windows, tokens]");
        return Windows::default();
    };
    let tokens = usize::try_from(*tokens).unwrap_or(0);
    let count = ids.len().checked_div(tokens).unwrap_or(0);
    if count == 0 || count > WINDOWS_MAX || tokens > TOKENS_MAX {
        let why = format!(
            "has the shape {shape:?}; there must be 1 to {WINDOWS_MAX} windows of at most {TOKENS_MAX} tokens"
        );
        given.wrong(first, why);
        return Windows::default();
    }
    if let Some((other, _)) = &other
        && *other != shape
    {
        given.wrong(
            second,
            format!("has the shape {other:?} and must have {shape:?}, as {first}"),
        );
        return Windows::default();
    }
    let other = other.map(|(_, ids)| ids).unwrap_or_default();
    let narrow = |given: &mut Given, field: &'static str, ids: &[i128]| -> Vec<u32> {
        let ids: Result<Vec<u32>, _> = ids.iter().map(|id| u32::try_from(*id)).collect();
        ids.unwrap_or_else(|_| {
            given.wrong(field, "has a token that is none");
            Vec::new()
        })
    };
    let (ids, ids_2) = (narrow(given, first, &ids), narrow(given, second, &other));
    let windows = (0..count).map(|nth| {
        let of = |ids: &[u32]| {
            ids.get(nth * tokens..(nth + 1) * tokens)
                .unwrap_or_default()
                .to_vec()
        };
        TextWindow {
            ids: of(&ids),
            ids_2: of(&ids_2),
            clip_skip,
        }
    });
    Windows {
        windows: windows.collect(),
        sides: sides.to_vec(),
    }
}

/// What encoders made of windows, as tensors with the same sides before their own.
pub(super) fn write(texts: &[EncodedText], sides: &[i64]) -> Result<Vec<Tensor>, Error> {
    let states: Option<Vec<_>> = texts.iter().map(|text| text.states.as_ref()).collect();
    let states = states.ok_or(Error::Answer("a window was encoded without states"))?;
    let mut outputs = vec![side_by_side("hidden_states", sides, &states)?];
    let pooled: Option<Vec<_>> = texts.iter().map(|text| text.pooled.as_ref()).collect();
    if let Some(pooled) = pooled {
        outputs.push(side_by_side("pooled", sides, &pooled)?);
    }
    Ok(outputs)
}

/// Tensors of one shape as one.
pub(super) fn side_by_side(name: &str, sides: &[i64], each: &[&Numbers]) -> Result<Tensor, Error> {
    let wrong = Error::Answer("a worker's tensors have several shapes");
    let Some(first) = each.first() else {
        return Err(wrong);
    };
    let count = first
        .shape
        .iter()
        .try_fold(4u64, |count, side| count.checked_mul(*side));
    let fits = |one: &&Numbers| {
        one.shape == first.shape && one.data_type() == DataType::Fp32 && Some(one.data.len() as u64) == count
    };
    if !each.iter().all(fits) {
        return Err(wrong);
    }
    let data = match each {
        [only] => only.data.clone(),
        several => {
            let mut whole = BytesMut::with_capacity(several.iter().map(|one| one.data.len()).sum());
            several.iter().for_each(|one| whole.extend_from_slice(&one.data));
            whole.freeze()
        }
    };
    let own = first.shape.iter().map(|side| *side as i64);
    let shape = sides.iter().copied().chain(own).collect();
    Ok(Tensor::of(name, Datatype::Fp32, shape, data))
}

/// A tensor of numbers with so many sides as workers take it.
pub(super) fn floats(given: &mut Given, field: &'static str, sides: usize) -> Option<(Vec<u64>, Bytes)> {
    let tensor = given.tensor(field)?;
    if tensor.datatype != Datatype::Fp32 {
        given.wrong(field, format!("is {}, and must be FP32", tensor.datatype.name()));
        return None;
    }
    // Who sends one more side has one of it.
    let mut shape: Vec<u64> = tensor.shape.iter().map(|side| *side as u64).collect();
    while shape.len() > sides && shape[0] == 1 {
        shape.remove(0);
    }
    if shape.len() != sides || shape.contains(&0) {
        let why = format!(
            "has the shape {:?}, and must have {sides} sides, none of them 0",
            tensor.shape
        );
        given.wrong(field, why);
        return None;
    }
    let finite = tensor
        .numbers()
        .is_some_and(|all| all.iter().all(|value| value.is_finite()));
    if !finite {
        given.complain(field, crate::problem::Rule::NotFinite);
        return None;
    }
    Some((shape, tensor.into_raw()))
}

/// The same as one tensor.
pub(super) fn numbers(shape: Vec<u64>, data: Bytes) -> Numbers {
    Numbers {
        data_type: DataType::Fp32.into(),
        shape,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(shape: &[i64], values: &[i64]) -> Tensor {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::of("input_ids", Datatype::Int64, shape.to_vec(), data)
    }

    fn read(tensors: Vec<Tensor>) -> (Windows, Vec<String>) {
        let mut given = Given::new(tensors, Default::default());
        let windows = windows(&mut given, ("input_ids", "input_ids_2"), 1);
        let told = given.problems.iter().map(|p| format!("{} {}", p.field, p.rule));
        (windows, told.collect())
    }

    #[test]
    fn windows_are_the_last_side_of_tokens() {
        let (read, told) = read(vec![ids(&[2, 1, 2], &[1, 2, 3, 4])]);
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(read.sides, [2, 1]);
        let of: Vec<_> = read
            .windows
            .iter()
            .map(|window| (&window.ids[..], window.clip_skip))
            .collect();
        assert_eq!(of, [(&[1, 2][..], 1), (&[3, 4][..], 1)]);
    }

    #[test]
    fn windows_that_are_none_are_told_by_name() {
        let mut second = ids(&[1, 2], &[1, 2]);
        second.name = "input_ids_2".into();
        for (tensors, start) in [
            (vec![], "input_ids is required"),
            (
                vec![ids(&[0, 2], &[])],
                "input_ids has the shape [0, 2]; there must be",
            ),
            (vec![ids(&[], &[1])], "input_ids has the shape []"),
            (vec![ids(&[1, 1], &[-1])], "input_ids has a token that is none"),
            (
                vec![ids(&[1, 1], &[1]), second],
                "input_ids_2 has the shape [1, 2] and must have [1, 1]",
            ),
        ] {
            let (_, told) = read(tensors);
            assert!(told[0].starts_with(start), "{told:?}");
        }
    }

    #[test]
    fn states_stand_side_by_side() {
        let state = |value: f32| EncodedText {
            states: Some(numbers(
                vec![1, 2],
                [value; 2].iter().flat_map(|v| v.to_le_bytes()).collect(),
            )),
            ..EncodedText::default()
        };
        let tensors = write(&[state(1.0), state(2.0)], &[2]).unwrap();
        assert_eq!((tensors.len(), &tensors[0].shape[..]), (1, &[2, 1, 2][..]));
        assert_eq!(tensors[0].numbers(), Some(vec![1.0, 1.0, 2.0, 2.0]));
        let mut odd = state(1.0);
        odd.states.as_mut().unwrap().shape = vec![2, 1];
        assert!(write(&[state(1.0), odd], &[2]).is_err());
    }
}
