use proptest::prelude::*;

use super::*;

fn head(datatype: &str, shape: &[i64]) -> Head {
    Head::new("x".into(), datatype, shape.to_vec()).unwrap()
}

fn told(problem: Problem) -> String {
    format!("{} {}", problem.field, problem.rule)
}

#[test]
fn raw_elements_are_read_by_their_type() {
    let data = Bytes::from_static(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let tensor = head("INT32", &[2, 1]).raw(data.clone()).unwrap();
    assert_eq!((tensor.integers(), tensor.count()), (Some(vec![1, -1]), 2));
    assert_eq!(
        head("UINT64", &[1]).raw(data).unwrap().integers(),
        Some(vec![0xffff_ffff_0000_0001])
    );
    let floats: Bytes = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(
        head("FP32", &[2]).raw(floats).unwrap().numbers(),
        Some(vec![1.5, -2.0])
    );
    let half = head("BF16", &[1]).raw(Bytes::from_static(&[0xc0, 0x3f])).unwrap();
    assert_eq!(half.numbers(), Some(vec![1.5]));
    let yes = head("BOOL", &[2]).raw(Bytes::from_static(&[1, 0])).unwrap();
    assert_eq!((yes.flags(), yes.integers()), (Some(vec![true, false]), None));
}

#[test]
fn bytes_are_split_behind_their_lengths() {
    let data = Bytes::from_static(b"\x03\0\0\0abc\0\0\0\0");
    let tensor = head("BYTES", &[2]).raw(data.clone()).unwrap();
    assert_eq!(tensor.elements, Elements::Each(vec!["abc".into(), "".into()]));
    assert_eq!(tensor.into_raw(), data);
}

#[test]
fn a_tensor_that_is_not_what_it_says_is_told_by_its_name() {
    let few = Bytes::from_static(&[0; 7]);
    for (problem, words) in [
        (
            head("INT32", &[2]).raw(few.clone()).unwrap_err(),
            "x has 7 bytes, and [2] of INT32 are 2 x 4",
        ),
        (
            head("BYTES", &[1]).raw(few.slice(..3)).unwrap_err(),
            "x has an element 0 that ends too early",
        ),
        (
            head("BYTES", &[1])
                .raw(Bytes::from_static(b"\x09\0\0\0a"))
                .unwrap_err(),
            "x has an element 0 that ends too early",
        ),
        (
            head("BYTES", &[1]).raw(Bytes::from_static(&[0; 8])).unwrap_err(),
            "x has more elements than [1] are",
        ),
        (
            head("BYTES", &[2]).raw(Bytes::from_static(&[0; 4])).unwrap_err(),
            "x has 1 elements, and [2] are 2",
        ),
        (
            Head::new("x".into(), "FP8", vec![1]).unwrap_err(),
            "x has datatype \"FP8\", which is none of BOOL, UINT8",
        ),
        (
            Head::new("x".into(), "FP32", vec![-1]).unwrap_err(),
            "x has the shape [-1], whose sides",
        ),
        (
            Head::new("x".into(), "FP32", vec![i64::MAX, i64::MAX]).unwrap_err(),
            "x has the shape",
        ),
        (
            Head::new("x".into(), "FP32", vec![1; 9]).unwrap_err(),
            "x has 9 sides and may have at most 8",
        ),
        (
            Head::new(String::new(), "FP32", vec![1]).unwrap_err(),
            "inputs one has no name",
        ),
    ] {
        let said = told(problem);
        assert!(said.starts_with(words), "{said}");
    }
}

#[test]
fn typed_contents_are_packed_as_raw_ones() {
    let ints = |values: &[i32]| InferTensorContents {
        int_contents: values.to_vec(),
        ..Default::default()
    };
    let tensor = head("INT8", &[2]).typed(ints(&[-1, 2])).unwrap();
    assert_eq!(tensor.integers(), Some(vec![-1, 2]));
    let said = told(head("INT8", &[1]).typed(ints(&[200])).unwrap_err());
    assert_eq!(said, "x has a value in int_contents that is none of INT8");
    let said = told(head("INT64", &[1]).typed(ints(&[2])).unwrap_err());
    assert_eq!(said, "x has 0 values in int64_contents, and [1] are 1");
    let said = told(head("FP16", &[1]).typed(ints(&[2])).unwrap_err());
    assert!(said.ends_with("raw_input_contents only"), "{said}");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_read_has_as_many_elements_as_its_sides_say(
        data in proptest::collection::vec(any::<u8>(), 0..64),
        shape in proptest::collection::vec(-2i64..5, 0..4),
        datatype in 0usize..14,
    ) {
        let name = Datatype::ALL[datatype].name();
        if let Ok(head) = Head::new("x".into(), name, shape) {
            let count = head.count();
            if let Ok(tensor) = head.raw(data.clone().into()) {
                prop_assert_eq!(tensor.count(), count);
                let _ = (tensor.numbers(), tensor.integers(), tensor.flags());
                prop_assert_eq!(tensor.into_raw(), Bytes::from(data));
            }
        }
    }
}
