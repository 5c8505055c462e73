//! States to latents: what a request of the denoiser asks for, and latents as tensors. Pure.

use mobula_proto::{
    common::v1::{Latents, Pixels},
    image::v1::GenerateRequest,
    inference::v1::Moments,
};

use super::{
    super::{datatype::Datatype, given::Given, pipeline, spec::MASK, tensor::Tensor},
    prompt::{self, Encoded, NEGATIVE, PROMPT},
    text::{floats, numbers},
    vae,
};
use crate::{Error, problem::Rule, words};

/// What latents are to be drawn of.
#[derive(Debug, Default)]
pub(super) struct Draw {
    pub(super) prompt: Encoded,
    pub(super) negative: Option<Encoded>,
    pub(super) moments: Option<Moments>,
    /// Where the picture is drawn anew.
    pub(super) mask: Option<Pixels>,
    pub(super) strength: Option<f32>,
    /// Everything else, to be checked as a request that draws is.
    pub(super) request: GenerateRequest,
}

impl Draw {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> u64 {
        let prompts = [Some(&self.prompt), self.negative.as_ref()].into_iter().flatten();
        let texts = prompts
            .flat_map(|prompt| &prompt.texts)
            .flat_map(|text| [&text.states, &text.pooled]);
        let moments = self
            .moments
            .iter()
            .flat_map(|moments| [&moments.mean, &moments.deviation]);
        texts
            .chain(moments)
            .flatten()
            .map(|tensor| tensor.data.len() as u64)
            .chain(self.mask.iter().map(|mask| mask.data.len() as u64))
            .sum()
    }
}

/// Reads a request.
pub(super) fn read(given: &mut Given) -> Draw {
    let emphasis = prompt::emphasis(given);
    let has_negative = NEGATIVE.is_in(given);
    let mut request = pipeline::single(given);
    request.seeds = pipeline::seeds(given, 1).into_iter().next().unwrap_or_default();
    // Checked as every request is; its texts are encoded already.
    request.prompt = "encoded".to_owned();
    let strength = request.strength.take();
    let is_a1111 = request.prompt_syntax == words::read("a1111", words::SYNTAXES).unwrap_or_default();
    let skips = (request.clip_skip, if is_a1111 { request.clip_skip } else { 0 });
    let prompt = prompt::encoded(given, &PROMPT, (emphasis, skips.0));
    let negative = has_negative.then(|| prompt::encoded(given, &NEGATIVE, (emphasis, skips.1)));
    let moments = floats(given, "mean", 4).map(|(shape, mean)| {
        let deviation = floats(given, "deviation", 4);
        if let Some((other, _)) = &deviation
            && *other != shape
        {
            given.wrong(
                "deviation",
                format!("has the shape {other:?} and must have {shape:?}, as mean"),
            );
        }
        Moments {
            mean: Some(numbers(shape, mean)),
            deviation: deviation.map(|(shape, data)| numbers(shape, data)),
        }
    });
    let mask = vae::mask(given);
    if mask.is_some() && moments.is_none() {
        given.wrong(MASK, "is of a picture to start from; give mean");
    }
    match (&moments, strength) {
        (Some(_), None) => given.complain("strength", Rule::Missing),
        (None, Some(_)) => given.wrong("strength", "is of a picture to start from; give mean"),
        (Some(_), Some(strength)) if !(strength > 0.0 && strength <= 1.0) => {
            given.wrong(
                "strength",
                format!("is {strength} and must be above 0 and at most 1"),
            );
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    Draw {
        prompt,
        negative,
        moments,
        mask,
        strength,
        request,
    }
}

/// Latents of one shape as one tensor.
pub(super) fn write(latents: Vec<Latents>) -> Result<Tensor, Error> {
    let sides = |one: &Latents| [one.channels, one.height, one.width];
    let shape = latents.first().map(sides).unwrap_or_default();
    let bytes = shape
        .iter()
        .try_fold(4u64, |bytes, side| bytes.checked_mul((*side).into()));
    let fits = |one: &Latents| sides(one) == shape && Some(one.data.len() as u64) == bytes;
    if latents.is_empty() || !latents.iter().all(fits) {
        return Err(Error::Answer("a worker's latents are not what they say"));
    }
    let whole = [latents.len() as i64]
        .into_iter()
        .chain(shape.map(i64::from))
        .collect();
    let data: Vec<u8> = latents.iter().flat_map(|one| one.data.iter().copied()).collect();
    Ok(Tensor::of("latents", Datatype::Fp32, whole, data.into()))
}

/// A tensor of latents as so many pictures'.
pub(super) fn latents(shape: &[u64], data: &bytes::Bytes) -> Vec<Latents> {
    let [count, channels, height, width] =
        [0, 1, 2, 3].map(|nth| shape.get(nth).copied().unwrap_or_default());
    let size = data.len() / (count.max(1) as usize);
    let side = |side: u64| u32::try_from(side).unwrap_or(u32::MAX);
    let one = |nth: usize| Latents {
        channels: side(channels),
        height: side(height),
        width: side(width),
        data: data.slice(nth * size..(nth + 1) * size),
    };
    (0..count as usize).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2::ask::Value;

    fn tensor(name: &str, datatype: Datatype, shape: &[i64], size: usize) -> Tensor {
        let count: i64 = shape.iter().product();
        Tensor::of(
            name,
            datatype,
            shape.to_vec(),
            vec![0; count as usize * size].into(),
        )
    }

    fn asked(change: impl FnOnce(&mut Vec<Tensor>)) -> (Draw, Vec<String>) {
        let mut tensors = vec![
            tensor("input_ids", Datatype::Int64, &[2, 4], 8),
            tensor("hidden_states", Datatype::Fp32, &[1, 2, 4, 8], 4),
            tensor("weights", Datatype::Fp32, &[2, 4], 4),
            Tensor::uint64("seed", &[5, 6]),
        ];
        change(&mut tensors);
        let parameters = [
            ("steps".to_owned(), Value::Integer(4)),
            ("clip_skip".to_owned(), Value::Integer(1)),
        ];
        let mut given = Given::new(tensors, parameters.into());
        let draw = read(&mut given);
        let told = given.problems.iter().map(|p| format!("{} {}", p.field, p.rule));
        (draw, told.collect())
    }

    #[test]
    fn windows_and_states_become_a_prompt() {
        let (draw, told) = asked(|_| ());
        assert!(told.is_empty(), "{told:?}");
        assert_eq!((draw.prompt.texts.len(), draw.request.steps), (2, Some(4)));
        assert_eq!(draw.request.seeds, [5, 6]);
        let windows = &draw.prompt.prompt.spans[0].variants[0].windows;
        assert_eq!((windows.len(), &windows[0].weights[..]), (2, &[0.0; 4][..]));
        let text = &draw.prompt.texts[1];
        assert_eq!(text.states.as_ref().unwrap().shape, [4, 8]);
        assert_eq!(text.window.as_ref().unwrap().clip_skip, 1);
        assert!(draw.negative.is_none() && draw.moments.is_none());
    }

    #[test]
    fn what_does_not_belong_together_is_told_by_name() {
        type Change = fn(&mut Vec<Tensor>);
        let changes: [(Change, &str); 8] = [
            (|t| drop(t.remove(1)), "hidden_states is required"),
            (
                |t| t[1] = tensor("hidden_states", Datatype::Fp32, &[2, 3, 8], 4),
                "hidden_states has the shape [2, 3, 8], and input_ids are 2",
            ),
            (
                |t| t[1] = tensor("hidden_states", Datatype::Fp32, &[8], 4),
                "hidden_states has the shape [8], and must have 3 sides",
            ),
            (
                |t| t[2] = tensor("weights", Datatype::Fp32, &[2, 3], 4),
                "weights has the shape [2, 3] and must have [2, 4]",
            ),
            (
                |t| t.push(tensor("pooled", Datatype::Fp32, &[1, 8], 4)),
                "pooled has 1 rows for 2 windows",
            ),
            (
                |t| t.push(tensor("mean", Datatype::Fp32, &[1, 4, 8, 8], 4)),
                "strength is required",
            ),
            (
                |t| t.push(tensor("negative_input_ids", Datatype::Int64, &[1, 4], 8)),
                "negative_hidden_states is required",
            ),
            (
                |t| t.push(tensor("mask", Datatype::Uint8, &[8, 8], 1)),
                "mask is of a picture to start from",
            ),
        ];
        for (change, start) in changes {
            let (_, told) = asked(change);
            assert!(
                told.iter().any(|said| said.starts_with(start)),
                "{told:?} / {start}"
            );
        }
    }

    #[test]
    fn latents_are_one_tensor_and_back() {
        let one = |value: u8| Latents {
            channels: 1,
            height: 1,
            width: 2,
            data: vec![value; 8].into(),
        };
        let tensor = write(vec![one(1), one(2)]).unwrap();
        assert_eq!(tensor.shape, [2, 1, 1, 2]);
        let data = tensor.into_raw();
        assert_eq!(latents(&[2, 1, 1, 2], &data), [one(1), one(2)]);
        let odd = Latents { width: 3, ..one(1) };
        assert!(write(vec![one(1), odd]).is_err() && write(Vec::new()).is_err());
    }
}
