//! Messages of the protocol to what is asked, and answers to messages. Pure.

use bytes::Bytes;
use mobula_proto::oip::{
    InferParameter, ModelInferRequest, ModelInferResponse, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor, model_infer_response::InferOutputTensor,
};

use super::super::{
    ask::{Answer, Ask, Parameters, To, VERSION, Value},
    tensor::{Head, Tensor, shown, wrong},
};
use crate::problem::Problem;

/// Names of parameters that put a tensor into memory that is shared; and Triton's classes.
const REFUSED: [&str; 2] = ["shared_memory_region", "classification"];

/// Reads a request; `None` of a problem's tensor is the request itself.
///
/// # Errors
/// Every tensor that is wrong.
pub(super) fn read(request: ModelInferRequest) -> Result<Ask, Vec<Problem>> {
    let mut problems = Vec::new();
    let is_raw = !request.raw_input_contents.is_empty();
    // What is elsewhere is not among the raw contents.
    let here = |input: &&InferInputTensor| refused(input.parameters.keys()).is_none();
    let inputs = request.inputs.iter().filter(here).count();
    if is_raw && request.raw_input_contents.len() != inputs {
        let has = request.raw_input_contents.len();
        let why = format!("has {has} entries for {inputs} inputs");
        return Err(vec![wrong("raw_input_contents", why)]);
    }
    let mut raw = request.raw_input_contents.into_iter();
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        if let Some(refused) = refused(input.parameters.keys()) {
            problems.push(wrong(shown(input.name), refused));
            continue;
        }
        let data = raw.next();
        let read = Head::new(input.name, &input.datatype, input.shape).and_then(|head| {
            match (data, input.contents) {
                (Some(_), Some(_)) => Err(wrong(
                    head.name().to_owned(),
                    "has contents, and the request has raw_input_contents; one of the two",
                )),
                (Some(data), None) => head.raw(data),
                (None, contents) => head.typed(contents.unwrap_or_default()),
            }
        });
        match read {
            Ok(tensor) => inputs.push(tensor),
            Err(problem) => problems.push(problem),
        }
    }
    for output in &request.outputs {
        if let Some(refused) = refused(output.parameters.keys()) {
            problems.push(wrong(shown(output.name.clone()), refused));
        }
    }
    let parameters = request.parameters.into_iter();
    let parameters = parameters.filter_map(|(name, value)| Some((name, value_of(value)?)));
    let ask = Ask {
        id: request.id,
        parameters: parameters.collect(),
        inputs,
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
    };
    if problems.is_empty() {
        Ok(ask)
    } else {
        Err(problems)
    }
}

/// What cannot be done, if it is among these parameters.
pub(crate) fn refused<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<String> {
    let name = names.find(|name| REFUSED.contains(&name.as_str()))?;
    Some(format!(
        "asks for {name}, which there is none of here; send and take tensors in the messages"
    ))
}

fn value_of(parameter: InferParameter) -> Option<Value> {
    Some(match parameter.parameter_choice? {
        ParameterChoice::BoolParam(value) => Value::Bool(value),
        ParameterChoice::Int64Param(value) => Value::Integer(value.into()),
        ParameterChoice::Uint64Param(value) => Value::Integer(value.into()),
        ParameterChoice::DoubleParam(value) => Value::Number(value),
        ParameterChoice::StringParam(value) => Value::Text(value),
    })
}

/// Writes an answer.
pub(super) fn write(to: &To, answer: Answer) -> ModelInferResponse {
    let (outputs, raw): (Vec<_>, Vec<Bytes>) = answer.outputs.into_iter().map(output).unzip();
    ModelInferResponse {
        model_name: to.model.clone(),
        model_version: VERSION.to_owned(),
        id: to.id.clone(),
        parameters: parameters(answer.parameters),
        outputs,
        raw_output_contents: raw,
    }
}

fn output(tensor: Tensor) -> (InferOutputTensor, Bytes) {
    let head = InferOutputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.clone(),
        ..Default::default()
    };
    (head, tensor.into_raw())
}

fn parameters(parameters: Parameters) -> std::collections::HashMap<String, InferParameter> {
    let write = |(name, value)| {
        let choice = match value {
            Value::Bool(value) => ParameterChoice::BoolParam(value),
            Value::Number(value) => ParameterChoice::DoubleParam(value),
            Value::Text(value) => ParameterChoice::StringParam(value),
            Value::Integer(value) => match (i64::try_from(value), u64::try_from(value)) {
                (Ok(value), _) => ParameterChoice::Int64Param(value),
                (Err(_), Ok(value)) => ParameterChoice::Uint64Param(value),
                (Err(_), Err(_)) => ParameterChoice::StringParam(value.to_string()),
            },
        };
        let parameter = InferParameter {
            parameter_choice: Some(choice),
        };
        (name, parameter)
    };
    parameters.into_iter().map(write).collect()
}

#[cfg(test)]
mod tests {
    use mobula_proto::oip::InferTensorContents;

    use super::*;

    fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
        InferInputTensor {
            name: name.into(),
            datatype: datatype.into(),
            shape: shape.into(),
            ..Default::default()
        }
    }

    #[test]
    fn raw_and_typed_contents_are_the_same_request() {
        let typed = ModelInferRequest {
            inputs: vec![InferInputTensor {
                contents: Some(InferTensorContents {
                    int_contents: vec![4],
                    ..Default::default()
                }),
                ..input("steps", "INT32", &[1])
            }],
            ..Default::default()
        };
        let raw = ModelInferRequest {
            inputs: vec![input("steps", "INT32", &[1])],
            raw_input_contents: vec![Bytes::from_static(&[4, 0, 0, 0])],
            ..Default::default()
        };
        assert_eq!(read(typed).unwrap(), read(raw).unwrap());
    }

    #[test]
    fn every_tensor_that_is_wrong_is_told() {
        let contents = Some(InferTensorContents::default());
        let region = [("shared_memory_region".to_owned(), InferParameter::default())];
        let request = ModelInferRequest {
            inputs: vec![
                input("a", "INT32", &[1]),
                InferInputTensor {
                    contents,
                    ..input("b", "INT32", &[1])
                },
                InferInputTensor {
                    parameters: region.into(),
                    ..input("c", "BYTES", &[1])
                },
            ],
            raw_input_contents: vec![Bytes::new(); 2],
            ..Default::default()
        };
        let told = read(request).unwrap_err();
        let told: Vec<_> = told.iter().map(|p| format!("{} {}", p.field, p.rule)).collect();
        assert_eq!(told[0], "a has 0 bytes, and [1] of INT32 are 1 x 4");
        assert_eq!(
            told[1],
            "b has contents, and the request has raw_input_contents; one of the two"
        );
        assert!(told[2].starts_with("c asks for shared_memory_region"), "{told:?}");
        let request = ModelInferRequest {
            inputs: vec![input("a", "INT32", &[0])],
            raw_input_contents: vec![Bytes::new(); 3],
            ..Default::default()
        };
        let told = read(request).unwrap_err().remove(0);
        assert_eq!(told.field, "raw_input_contents");
    }

    #[test]
    fn answers_are_raw_and_have_the_names_of_their_requests() {
        let to = To {
            model: "demo".into(),
            id: "7".into(),
        };
        let answer = Answer {
            parameters: [("seed".to_owned(), Value::Integer(u64::MAX.into()))].into(),
            outputs: vec![Tensor::bytes("image", vec!["ab".into()])],
        };
        let written = write(&to, answer);
        assert_eq!(
            (&*written.model_name, &*written.model_version, &*written.id),
            ("demo", "1", "7")
        );
        assert_eq!(written.raw_output_contents, [&b"\x02\0\0\0ab"[..]]);
        let head = &written.outputs[0];
        assert_eq!(
            (&*head.name, &*head.datatype, &head.shape[..]),
            ("image", "BYTES", &[1][..])
        );
        let seed = written.parameters["seed"].parameter_choice.clone();
        assert_eq!(seed, Some(ParameterChoice::Uint64Param(u64::MAX)));
    }
}
