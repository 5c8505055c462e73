use super::{super::datatype::Datatype, *};

fn told(given: &Given) -> Vec<String> {
    given
        .problems
        .iter()
        .map(|p| format!("{} {}", p.field, p.rule))
        .collect()
}

fn text(name: &str, texts: &[&'static str]) -> Tensor {
    Tensor::bytes(
        name,
        texts
            .iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect(),
    )
}

#[test]
fn values_are_tensors_or_parameters() {
    let inputs = vec![text("a", &["x", "y"]), Tensor::uint64("s", &[3])];
    let parameters = [
        ("b".to_owned(), Value::Text("z".into())),
        ("n".to_owned(), Value::Number(4.0)),
        ("f".to_owned(), Value::Integer(2)),
        ("t".to_owned(), Value::Bool(true)),
        ("w".to_owned(), Value::Text("HIGH".into())),
    ];
    let mut given = Given::new(inputs, parameters.into());
    assert_eq!(given.texts("a"), ["x", "y"]);
    assert_eq!(given.text("b").as_deref(), Some("z"));
    assert_eq!(
        (given.small("s"), given.small("n"), given.small("absent")),
        (Some(3), Some(4), None)
    );
    assert_eq!(given.number("f"), Some(2.0));
    assert!(given.flag("t") && !given.flag("absent"));
    assert_eq!(given.word("w", &[("low", 1), ("high", 2)]), 2);
    assert!(given.problems.is_empty(), "{:?}", given.problems);
}

#[test]
fn what_has_another_type_or_shape_is_told_by_its_name() {
    let floats = Tensor::of("i", Datatype::Fp32, vec![1], Bytes::from_static(&[0; 4]));
    let mut square = text("shape", &["a", "b", "c", "d"]);
    square.shape = vec![2, 2];
    let inputs = vec![
        text("n", &["4"]),
        floats,
        square,
        text("two", &["a", "b"]),
        text("both", &["a"]),
        text("twice", &["a"]),
        text("twice", &["a"]),
        Tensor::bytes("u", vec![Bytes::from_static(&[0xff])]),
        Tensor::of("minus", Datatype::Int8, vec![1], Bytes::from_static(&[0xff])),
        text("odd", &["a"]),
    ];
    let parameters = [
        ("both".to_owned(), Value::Bool(true)),
        ("flag".to_owned(), Value::Integer(1)),
        ("strange".to_owned(), Value::Integer(1)),
        ("timeout".to_owned(), Value::Integer(1)),
    ];
    let mut given = Given::new(inputs, parameters.into());
    given.only(
        &["n", "i", "shape", "two", "both", "twice", "u", "minus", "flag"],
        &[&["timeout"]],
    );
    given.number("n");
    given.small("i");
    given.texts("shape");
    given.text("two");
    given.texts("u");
    given.small("minus");
    given.flag("flag");
    let told = told(&given);
    let starts = [
        "both is given as a tensor and as a parameter",
        "twice is given twice",
        "odd is not known; known are n, i",
        "strange is not known",
        "n is BYTES, and must be FP32",
        "i is FP32, and must be UINT64",
        "shape has the shape [2, 2]; its values go in a row",
        "two has 2 values and must have one",
        "u must be valid UTF-8",
        "minus is -1 and must be at least 0",
        "flag must be one value, true or false",
    ];
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (said, start) in told.iter().zip(starts) {
        assert!(said.starts_with(start), "{said} / {start}");
    }
}

#[test]
fn files_are_bytes_and_base64_where_they_came_as_text() {
    let mut given = Given::new(
        vec![text("a", &["raw"])],
        [
            ("b".to_owned(), Value::Text("cmF3".into())),
            ("c".to_owned(), Value::Text("?".into())),
        ]
        .into(),
    );
    assert_eq!(
        (given.files("a"), given.files("b")),
        (vec!["raw".into()], vec!["raw".into()])
    );
    assert!(given.files("c").is_empty());
    assert_eq!(told(&given), ["c is no base64, which a file is as text"]);
}
