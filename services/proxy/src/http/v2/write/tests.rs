use futures::FutureExt as _;
use http_body_util::BodyExt as _;

use super::*;

fn read(response: Response) -> (Option<usize>, Vec<u8>) {
    let header = response.headers().get(JSON_LENGTH);
    let length = header.map(|length| length.to_str().unwrap().parse().unwrap());
    let announced = response.headers().get(header::CONTENT_LENGTH).cloned();
    let body = response
        .into_body()
        .collect()
        .now_or_never()
        .unwrap()
        .unwrap()
        .to_bytes()
        .to_vec();
    if let Some(announced) = announced {
        assert_eq!(announced.to_str().unwrap(), body.len().to_string());
    }
    (length, body)
}

fn binary(names: &[&str]) -> Binary {
    let outputs: Vec<_> = names
        .iter()
        .map(|name| json!({ "name": name, "parameters": { "binary_data": true } }))
        .collect();
    let parts = super::super::body::Parts {
        json: json!({ "outputs": outputs }).to_string().into(),
        binary: Bytes::new(),
    };
    super::super::read::read(parts).unwrap().1
}

fn answer() -> Answer {
    let floats: Vec<u8> = [0.1f32, -2.0, f32::NAN]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    Answer {
        parameters: [("width".to_owned(), 64u32.into())].into(),
        outputs: vec![
            Tensor::bytes("image", vec![vec![0xff; 100_000].into(), "ab".into()]),
            Tensor::uint64("seed", &[u64::MAX, 7]),
            Tensor::of("states", Datatype::Fp32, vec![3, 1], floats.into()),
            Tensor::of("mask", Datatype::Bool, vec![2], Bytes::from_static(&[1, 0])),
        ],
    }
}

#[test]
fn an_answer_is_json_with_bytes_as_base64() {
    let to = To {
        model: "demo".into(),
        id: "7".into(),
    };
    let (length, body) = read(response(&to, answer(), &Binary::default()));
    assert_eq!(length, None);
    let told: Json = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&told["model_name"], &told["model_version"], &told["id"]),
        (&json!("demo"), &json!("1"), &json!("7"))
    );
    assert_eq!(told["parameters"], json!({ "width": 64 }));
    let outputs = &told["outputs"];
    assert_eq!(outputs[0]["parameters"], json!({ "content_type": "base64" }));
    assert_eq!(
        STANDARD.decode(outputs[0]["data"][0].as_str().unwrap()).unwrap(),
        vec![0xff; 100_000]
    );
    assert_eq!(outputs[0]["data"][1], "YWI=");
    assert_eq!(
        outputs[1],
        json!({ "name": "seed", "datatype": "UINT64", "shape": [2], "data": [u64::MAX, 7] })
    );
    assert!(
        String::from_utf8_lossy(&body).contains("[0.1,-2,null]"),
        "as short as reads back the same"
    );
    assert_eq!(outputs[3]["data"], json!([true, false]));
}

#[test]
fn binary_outputs_are_behind_the_json_in_their_order() {
    let (length, body) = read(response(&To::default(), answer(), &binary(&["image", "seed"])));
    let (json, behind) = body.split_at(length.unwrap());
    let told: Json = serde_json::from_slice(json).unwrap();
    assert!(told.get("id").is_none());
    assert_eq!(
        told["outputs"][0]["parameters"],
        json!({ "binary_data_size": 100_010 })
    );
    assert_eq!(
        told["outputs"][1]["parameters"],
        json!({ "binary_data_size": 16 })
    );
    assert!(told["outputs"][0].get("data").is_none() && told["outputs"][2].get("data").is_some());
    assert_eq!(behind.len(), 100_026);
    assert_eq!(behind[..4], 100_000u32.to_le_bytes());
    assert_eq!(behind[100_018..], 7u64.to_le_bytes());
}

#[test]
fn numbers_are_written_in_pieces() {
    let values: Vec<u64> = (0..20_000).collect();
    let mut pieces = Pieces::default();
    let tensor = Tensor::uint64("x", &values);
    written(&mut pieces, json!({ "name": "x" }), tensor);
    let text: Vec<Bytes> = pieces.map(|Ok(piece)| piece).collect();
    assert!(text.iter().all(|piece| piece.len() < 128 << 10));
    let told: Json = serde_json::from_slice(&text.concat()).unwrap();
    assert_eq!(told["data"].as_array().unwrap().len(), values.len());
    assert_eq!(told["data"][19_999], 19_999);
}
