//! What becomes of pictures that float16, or the model itself, makes no numbers of.

use super::reference::wave;
use super::*;

#[test]
fn a_decoder_that_overflows_in_float16_is_decoded_again_in_float32_and_only_then() {
    let (mut overflowing, mut real) = (
        load(&tiny("sd15-fp16-overflow")).unwrap(),
        load(&tiny("sd15")).unwrap(),
    );
    let shape = Shape {
        channels: 4,
        height: 4,
        width: 6,
    };
    let (mut planes, mut expected) = (Vec::new(), Vec::new());
    let latents = wave(5, 2 * shape.values());
    let decoded = overflowing.decode(&latents, shape, &mut planes).unwrap();
    assert_eq!(decoded.again, [0, 1]);
    assert!(planes.iter().all(|value| value.is_finite()));
    // The same latents through a decoder that does not overflow are not decoded again, and through float16 not far off.
    let mut half = load(&tiny("sd15-fp16")).unwrap();
    assert!(
        half.decode(&latents, shape, &mut expected)
            .unwrap()
            .again
            .is_empty()
    );
    real.decode(&latents, shape, &mut planes).unwrap();
    let off = planes
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(off < 0.05, "{off}");
}

#[test]
fn an_encoder_that_overflows_in_float16_encodes_again_in_float32() {
    // Above float16's 65504, and nothing to float32.
    let pixels: Vec<f32> = wave(6, 2 * 3 * 32 * 32).iter().map(|value| 1e5 * value).collect();
    let (mut half, mut real) = (load(&tiny("sd15-fp16")).unwrap(), load(&tiny("sd15")).unwrap());
    let (mut got, mut expected) = (Moments::default(), Moments::default());
    half.encode_images(&pixels, 32, 32, &mut got).unwrap();
    real.encode_images(&pixels, 32, 32, &mut expected).unwrap();
    for (got, expected) in [(&got.mean, &expected.mean), (&got.deviation, &expected.deviation)] {
        assert_eq!(got.len(), expected.len());
        // Weights have float16's eleven bits.
        assert!(
            got.iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 2e-2 * (1.0 + b.abs()))
        );
    }
    half.trim();
    half.encode_images(&wave(6, 3 * 32 * 32), 32, 32, &mut got)
        .unwrap();
    assert!(got.mean.iter().all(|value| value.is_finite()));
}

#[test]
fn a_picture_that_float32_does_not_mend_either_is_lost_and_no_other() {
    let shape = Shape {
        channels: 4,
        height: 4,
        width: 6,
    };
    let values = shape.values();
    for name in ["sd15", "sd15-fp16", "sd15-fp16-overflow"] {
        let mut engine = load(&tiny(name)).unwrap();
        let (mut alone, mut planes) = (Vec::new(), Vec::new());
        let good = wave(5, values);
        let expected = engine.decode(&good, shape, &mut alone).unwrap().again.len();
        assert!(alone.iter().all(|value| value.is_finite()), "{name}");
        // No numbers, and numbers of which float32 can make none.
        for bad in [f32::NAN, 3e37] {
            for (place, others) in [(0, 1), (1, 0)] {
                let mut latents = vec![bad; 2 * values];
                latents[others * values..][..values].copy_from_slice(&good);
                let decoded = engine.decode(&latents, shape, &mut planes).unwrap();
                assert_eq!(decoded.again, vec![others; expected], "{name} {bad}");
                let (first, second) = planes.split_at(alone.len());
                let pictures = [first, second];
                assert_eq!(pictures[others], alone, "{name} {bad}");
                assert!(
                    pictures[place].iter().any(|value| !value.is_finite()),
                    "{name} {bad}"
                );
            }
        }
    }
}

#[test]
fn a_picture_to_start_from_that_float32_does_not_mend_is_lost_and_no_other() {
    let values = 3 * 32 * 32;
    for name in ["sd15", "sd15-fp16"] {
        let mut engine = load(&tiny(name)).unwrap();
        let (mut alone, mut both) = (Moments::default(), Moments::default());
        let good = wave(6, values);
        engine.encode_images(&good, 32, 32, &mut alone).unwrap();
        for bad in [f32::NAN, 3e38] {
            let mut pixels = vec![bad; 2 * values];
            pixels[values..].copy_from_slice(&good);
            engine.encode_images(&pixels, 32, 32, &mut both).unwrap();
            let (lost, kept) = both.mean.split_at(alone.mean.len());
            assert_eq!(kept, alone.mean, "{name} {bad}");
            assert_eq!(both.deviation[alone.deviation.len()..], alone.deviation);
            assert!(lost.iter().any(|value| !value.is_finite()), "{name} {bad}");
        }
    }
}

#[test]
fn stable_diffusion_xl_decodes_in_float32_from_the_start_where_its_configuration_says_so() {
    let folder = copy_of("sdxl");
    for part in ["vae_decoder", "vae_encoder"] {
        let model = format!("{part}/model.onnx");
        std::fs::copy(
            tiny("sd15-fp16-overflow").join(&model),
            folder.path().join(&model),
        )
        .unwrap();
    }
    let shape = Shape {
        channels: 4,
        height: 4,
        width: 6,
    };
    let (latents, pixels) = (wave(5, 2 * shape.values()), vec![1e5; 3 * 32 * 32]);
    let (mut planes, mut moments) = (Vec::new(), Moments::default());
    let mut decode = |engine: &mut Onnx| {
        let decoded = engine.decode(&latents, shape, &mut planes).unwrap();
        engine.encode_images(&pixels, 32, 32, &mut moments).unwrap();
        (decoded.again, planes.clone(), moments.clone())
    };
    let (again, upcast, moments) = decode(&mut load(folder.path()).unwrap());
    assert!(again.is_empty(), "{again:?}");
    let file = folder.path().join("vae_decoder/config.json");
    let config = std::fs::read_to_string(&file).unwrap();
    let told = config.replace("\"force_upcast\": true", "\"force_upcast\": false");
    assert_ne!(told, config);
    std::fs::write(file, told).unwrap();
    // The same pictures, after float16 was tried.
    assert_eq!(
        decode(&mut load(folder.path()).unwrap()),
        (vec![0, 1], upcast, moments)
    );
}
