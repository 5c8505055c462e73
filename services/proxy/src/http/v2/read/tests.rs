use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::v2::Tensor;

fn parts(json: &Json, binary: &'static [u8]) -> Parts {
    Parts {
        json: json.to_string().into(),
        binary: Bytes::from_static(binary),
    }
}

fn told(failure: Failure) -> String {
    match failure {
        Failure::Asked(error) => error.to_string(),
        other @ (Failure::Body(_) | Failure::Packed | Failure::Method(_) | Failure::Unknown) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn json_and_binary_tensors_are_the_same_request() {
    let written = json!({
        "id": "7",
        "parameters": { "steps": 4, "binary_data_output": true },
        "inputs": [
            { "name": "prompt", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], ["bc"]] },
            { "name": "seed", "shape": [1], "datatype": "UINT64", "data": 9 },
        ],
        "outputs": [{ "name": "image" }, { "name": "seed", "parameters": { "binary_data": false } }],
    });
    let (from_json, binary) = read(parts(&written, b"")).unwrap();
    assert!(binary.has("image") && !binary.has("seed"));
    let mut written = written;
    for (nth, size) in [(0, 11), (1, 8)] {
        let input = &mut written["inputs"][nth];
        input.as_object_mut().unwrap().remove("data");
        input["parameters"] = json!({ "binary_data_size": size });
    }
    let (mut from_binary, _) = read(parts(&written, b"\x01\0\0\0a\x02\0\0\0bc\x09\0\0\0\0\0\0\0")).unwrap();
    // Where they came from is known of bytes, which are base64 in JSON where they are files.
    from_binary.inputs[0].is_text = true;
    assert_eq!(from_json, from_binary);
    assert_eq!(from_json.inputs[1], Tensor::uint64("seed", &[9]));
    assert_eq!((from_json.id.as_str(), from_json.outputs.len()), ("7", 2));
}

#[test]
fn what_is_wrong_is_told_by_the_tensors_name() {
    let input = |input: Json| parts(&json!({ "inputs": [input] }), b"1234");
    for (parts, start) in [
        (parts(&json!([]), b""), "request: is no JSON of a request"),
        (
            parts(&json!({ "inptus": [] }), b""),
            "request: is no JSON of a request: unknown field `inptus`",
        ),
        (
            parts(&json!({ "parameters": { "x": [1] } }), b""),
            "x: must be a text, a number",
        ),
        (
            parts(&json!({}), b"x"),
            "request: has 1 bytes that belong to no tensor",
        ),
        (
            input(json!({ "name": "x", "datatype": "INT32", "shape": [1], "data": [1, 2] })),
            "x: has 2 elements of data, and its shape has 1",
        ),
        (
            input(json!({ "name": "x", "datatype": "INT8", "shape": [1], "data": [200] })),
            "x: has the element 200, which is none of INT8",
        ),
        (
            input(json!({ "name": "x", "datatype": "INT8", "shape": [1], "data": ["a"] })),
            "x: has the element \"a\", which is none of INT8",
        ),
        (
            input(json!({ "name": "x", "datatype": "BYTES", "shape": [1], "data": [1] })),
            "x: is BYTES, and has data that is no text",
        ),
        (
            input(json!({ "name": "x", "datatype": "INT8", "shape": [1] })),
            "x: has no data",
        ),
        (
            input(
                json!({ "name": "x", "datatype": "INT8", "shape": [5], "parameters": { "binary_data_size": 5 } }),
            ),
            "x: has a binary_data_size that is no number of the 4 bytes left",
        ),
        (
            input(
                json!({ "name": "x", "datatype": "INT8", "shape": [4], "data": [1], "parameters": { "binary_data_size": 4 } }),
            ),
            "x: has data and binary_data_size; one of the two",
        ),
        (
            input(
                json!({ "name": "x", "datatype": "INT8", "shape": [1], "parameters": { "shared_memory_region": "r" } }),
            ),
            "x: asks for shared_memory_region",
        ),
    ] {
        let said = told(read(parts).unwrap_err());
        assert!(said.starts_with(start), "{said} / {start}");
    }
}

#[test]
fn numbers_without_end_and_arrays_without_bottom_are_refused() {
    let many = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"INT8","shape":[1],"data":[{}0]}}]}}"#,
        "0,".repeat(ELEMENTS_MAX)
    );
    let deep = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"INT8","shape":[1],"data":{}"#,
        "[".repeat(100_000)
    );
    for json in [many, deep] {
        let parts = Parts {
            json: json.into(),
            binary: Bytes::new(),
        };
        assert!(told(read(parts).unwrap_err()).starts_with("request: is no JSON of a request"));
    }
}

proptest! {
    #[test]
    fn no_body_panics(json in any::<Vec<u8>>(), binary in any::<Vec<u8>>(), size in any::<u32>(), shape in any::<i64>()) {
        let _ = read(Parts { json: json.into(), binary: binary.clone().into() });
        let input = json!({ "name": "x", "datatype": "BYTES", "shape": [shape], "parameters": { "binary_data_size": size } });
        let json = json!({ "inputs": [input] });
        let _ = read(Parts { json: json.to_string().into(), binary: binary.into() });
    }
}
