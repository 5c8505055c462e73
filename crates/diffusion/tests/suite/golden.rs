//! Noise against torch: golden/noise.json is made by tools/reference/noise.py.

use mobula_diffusion::random::Generator;
use serde_json::Value;

/// Largest difference of a value drawn in torch's scalar path, which uses the platform's f64 functions. Draws of 16 values and more
/// must be equal.
const SCALAR_NOISE_TOLERANCE: f64 = 1e-7;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn size(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn noise_is_that_of_torch_for_every_seed_and_size() {
    let golden: Value = serde_json::from_str(include_str!("../golden/noise.json")).unwrap();
    let mut largest = 0.0_f64;
    for case in list(&golden["cases"]) {
        let mut generator = Generator::new(case["seed"].as_u64().unwrap());
        for draw in list(&case["draws"]) {
            let values = generator.randn(size(&draw["size"]));
            let tolerance = if values.len() < 16 {
                SCALAR_NOISE_TOLERANCE
            } else {
                0.0
            };
            for pair in list(&draw["values"]) {
                // The file has nine digits, which is enough to name one f32.
                let difference = f64::from((values[size(&pair[0])] - number(&pair[1]) as f32).abs());
                assert!(
                    difference <= tolerance,
                    "seed {} at {}: {difference}",
                    case["seed"],
                    pair[0]
                );
                largest = largest.max(difference);
            }
        }
    }
    let long = &golden["long"];
    let values = Generator::new(long["seed"].as_u64().unwrap()).randn(size(&long["size"]));
    let sum: u64 = values.iter().map(|value| u64::from(value.to_bits())).sum();
    assert_eq!(
        Some(sum),
        long["sum_of_bits"].as_u64(),
        "a value of a long draw differs in its last bit"
    );
    println!("largest difference of noise: {largest:.2e}");
}
