//! Every pipeline of the family against diffusers: golden/cases_<family>.json, made by tools/reference/pipelines.py.
//!
//! All cases of a model are drawn at the same time by one worker, so that they share UNet calls wherever they can.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use mobula_embeddings::{Embeddings, Encoder, Vocabulary};
use mobula_proto::common::v1::{self as common, SamplerOptions, SizeConditions};
use mobula_proto::inference::v1::GenerateRequest;
use mobula_proto::inference::v1::generate_response::Event;
use serde::Deserialize;
use serde_json::Value;

use crate::golden::{difference, golden};
use crate::support::{Drawn, Worker, pixels, tiny, windows};

/// Cases that are not drawn as diffusers draws them, on purpose.
const LEFT_OUT: [&str; 3] = [
    // Requests have no such field; the number in the model's configuration holds.
    "lcm-original-steps",
    // A scheduler with a preconditioning that the model was not trained with: refused, where diffusers draws noise.
    "edm_euler",
    // diffusers' inpainting forgets the VAE's latents_mean and latents_std, which the same model has in its other pipelines.
    "latents-mean-inpaint",
];

#[derive(Deserialize)]
struct Family {
    cases: Vec<Case>,
}

/// A case in the words of tools/reference/pipelines_base.py.
#[derive(Deserialize)]
struct Case {
    name: String,
    model: String,
    scheduler: String,
    sigma_schedule: String,
    #[serde(default)]
    overlay: BTreeMap<String, Value>,
    #[serde(default)]
    embeddings: Vec<Embedding>,
    #[serde(default)]
    prompt_ids: Vec<Vec<u32>>,
    #[serde(default)]
    prompt_ids_2: Vec<Vec<u32>>,
    #[serde(default)]
    negative_prompt_ids: Vec<Vec<u32>>,
    #[serde(default)]
    negative_prompt_ids_2: Vec<Vec<u32>>,
    negative_prompt: Option<String>,
    seeds: Vec<u64>,
    width: u32,
    height: u32,
    num_inference_steps: u32,
    guidance_scale: f32,
    #[serde(default)]
    guidance_rescale: f32,
    #[serde(default)]
    clip_skip: u32,
    eta: Option<f32>,
    image: Option<String>,
    mask_image: Option<String>,
    strength: Option<f32>,
    original_size: Option<[u32; 2]>,
    crops_coords_top_left: Option<[u32; 2]>,
    target_size: Option<[u32; 2]>,
    negative_original_size: Option<[u32; 2]>,
    negative_crops_coords_top_left: Option<[u32; 2]>,
    negative_target_size: Option<[u32; 2]>,
    aesthetic_score: Option<f32>,
    negative_aesthetic_score: Option<f32>,
    denoising_start: Option<f32>,
    denoising_end: Option<f32>,
    latents: Option<Vec<Vec<f32>>>,
    image_latents: Option<Vec<Vec<f32>>>,
    latents_shape: Option<[u32; 3]>,
    #[serde(default)]
    files: Vec<String>,
    /// Largest and mean difference in 8-bit levels that half precision may make.
    allowed: Option<(u8, f64)>,
}

#[derive(Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Embedding {
    file: String,
    ids: Vec<u32>,
}

/// What cases are drawn with: a model folder, files put in place of its own, embeddings.
type Setup = (String, String, Vec<Embedding>);

fn setup(case: &Case) -> Setup {
    let overlay = serde_json::to_string(&case.overlay).unwrap();
    (case.model.clone(), overlay, case.embeddings.clone())
}

/// A folder with the model's files, those of the overlay and the embeddings; the ids that the embeddings have here.
fn folder(setup: &Setup) -> (tempfile::TempDir, BTreeMap<u32, u32>) {
    let (model, overlay, embeddings) = setup;
    let folder = tempfile::tempdir().unwrap();
    copy(&tiny(model), folder.path());
    let overlay: BTreeMap<String, Value> = serde_json::from_str(overlay).unwrap();
    for (file, content) in overlay {
        std::fs::write(folder.path().join(file), content.to_string()).unwrap();
    }
    let mut ids = BTreeMap::new();
    if !embeddings.is_empty() {
        let target = folder.path().join("embeddings");
        std::fs::create_dir(&target).unwrap();
        for embedding in embeddings {
            let name = Path::new(&embedding.file).file_name().unwrap();
            std::fs::copy(tiny(&embedding.file), target.join(name)).unwrap();
        }
        let known = Embeddings::open(&target).unwrap();
        let vocabulary = Vocabulary::of_model(folder.path(), Encoder::First).unwrap();
        let rows = known.rows(Encoder::First, vocabulary).unwrap();
        for embedding in embeddings {
            let stem = Path::new(&embedding.file).file_stem().unwrap().to_str().unwrap();
            let row = rows
                .iter()
                .find(|row| row.entry.triggers().any(|word| word == stem))
                .unwrap();
            ids.extend(embedding.ids.iter().copied().zip(row.ids.clone()));
        }
    }
    (folder, ids)
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

fn prompt(ids: &[Vec<u32>], ids_2: &[Vec<u32>], known: &BTreeMap<u32, u32>) -> Option<common::Prompt> {
    let own = |ids: &[Vec<u32>]| -> Vec<Vec<u32>> {
        let own = |id: &u32| known.get(id).copied().unwrap_or(*id);
        ids.iter()
            .map(|window| window.iter().map(own).collect())
            .collect()
    };
    let (ids, ids_2) = (own(ids), own(ids_2));
    // A refiner has the second encoder only, which is its only one.
    let (first, second) = if ids.is_empty() {
        (ids_2, ids)
    } else {
        (ids, ids_2)
    };
    let pairs: Vec<(&[u32], &[u32])> = (0..first.len())
        .map(|n| (&first[n][..], second.get(n).map_or(&[][..], |window| &window[..])))
        .collect();
    windows(&pairs)
}

fn picture(file: &str) -> common::Pixels {
    let pixels = pixels(&std::fs::read(golden().join(file)).unwrap());
    common::Pixels {
        width: pixels.width,
        height: pixels.height,
        data: pixels.rgb.into(),
    }
}

/// A mask's luminance, as Pillow's `convert("L")` computes it.
fn mask(file: &str) -> common::Pixels {
    let bytes = std::fs::read(golden().join(file)).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut data).unwrap();
    if frame.color_type == png::ColorType::Rgb {
        let luminance = |rgb: &[u8]| {
            let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
            ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
        };
        data = data.chunks_exact(3).map(luminance).collect();
    }
    common::Pixels {
        width: frame.width,
        height: frame.height,
        data: data.into(),
    }
}

fn size_conditions(
    original: Option<[u32; 2]>,
    crop: Option<[u32; 2]>,
    target: Option<[u32; 2]>,
    scores: (Option<f32>, Option<f32>),
) -> Option<SizeConditions> {
    let given = original.is_some() || crop.is_some() || target.is_some();
    if !given && scores == (None, None) {
        return None;
    }
    let [original, crop, target] = [original, crop, target].map(Option::unwrap_or_default);
    Some(SizeConditions {
        original_height: original[0],
        original_width: original[1],
        crop_top: crop[0],
        crop_left: crop[1],
        target_height: target[0],
        target_width: target[1],
        aesthetic_score: scores.0,
        negative_aesthetic_score: scores.1,
    })
}

fn request(case: &Case, known: &BTreeMap<u32, u32>) -> GenerateRequest {
    let mut negative = prompt(&case.negative_prompt_ids, &case.negative_prompt_ids_2, known);
    if let Some(negative) = &mut negative {
        negative.is_empty = case.negative_prompt.is_none();
    }
    let init_latents = case.image_latents.iter().flatten().map(|values| {
        let [channels, height, width] = case.latents_shape.unwrap();
        common::Latents {
            channels,
            height,
            width,
            data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect::<Vec<_>>()
                .into(),
        }
    });
    GenerateRequest {
        replica_id: "r".into(),
        prompt: prompt(&case.prompt_ids, &case.prompt_ids_2, known),
        negative_prompt: negative,
        width: case.width,
        height: case.height,
        steps: case.num_inference_steps,
        guidance_scale: case.guidance_scale,
        guidance_rescale: case.guidance_rescale,
        scheduler: case.scheduler.clone(),
        sigma_schedule: case.sigma_schedule.clone(),
        sampler_options: Some(SamplerOptions {
            eta: case.eta,
            ..SamplerOptions::default()
        }),
        clip_skip: case.clip_skip,
        seeds: case.seeds.clone(),
        init_image: case.image.as_deref().map(picture),
        mask_image: case.mask_image.as_deref().map(mask),
        strength: case.strength.unwrap_or(1.0),
        init_latents: init_latents.collect(),
        denoising_start: case.denoising_start,
        denoising_end: case.denoising_end,
        size_conditions: size_conditions(
            case.original_size,
            case.crops_coords_top_left,
            case.target_size,
            (case.aesthetic_score, case.negative_aesthetic_score),
        ),
        negative_size_conditions: size_conditions(
            case.negative_original_size,
            // Stable Diffusion XL's image to image pipeline crops the negative as the prompt, whatever it was told.
            if case.image.is_some() && !case.model.contains("refiner") {
                case.crops_coords_top_left
            } else {
                case.negative_crops_coords_top_left
            },
            case.negative_target_size,
            (None, None),
        ),
        ..GenerateRequest::default()
    }
}

/// What differs of a case from what was drawn; empty when nothing does.
fn compare(case: &Case, drawn: &Drawn) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, expected) in case.latents.iter().flatten().enumerate() {
        let got = drawn.events.iter().find_map(|response| match &response.event {
            Some(Event::Latents(done)) if done.index as usize == n => done.latents.as_ref(),
            _ => None,
        });
        let Some(got) = got else {
            wrong.push(format!("no latents {n}"));
            continue;
        };
        let values = got
            .data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let worst = values
            .zip(expected)
            .map(|(got, want)| (got - want).abs() / want.abs().max(1.0))
            .fold(0.0, f32::max);
        if worst.is_nan() || worst > 1e-3 || got.data.len() != 4 * expected.len() {
            wrong.push(format!("latents {n} differ by {worst}"));
        }
    }
    let images = drawn.images();
    if images.len() != case.files.len() {
        wrong.push(format!(
            "{} pictures, expected {}",
            images.len(),
            case.files.len()
        ));
    }
    for ((_, image), file) in images.iter().zip(&case.files) {
        let reference = pixels(&std::fs::read(golden().join(file)).unwrap());
        let (worst, mean) = difference(&pixels(image), &reference);
        let allowed = case.allowed.unwrap_or((1, 0.1));
        if worst > allowed.0 || mean > allowed.1 {
            wrong.push(format!("worst {worst}, mean {mean:.3}"));
        }
    }
    wrong
}

/// The cases of a family by their setups.
fn cases(family: &str, expected: usize) -> BTreeMap<Setup, Vec<Case>> {
    let text = std::fs::read_to_string(golden().join(format!("cases_{family}.json"))).unwrap();
    let family: Family = serde_json::from_str(&text).unwrap();
    assert!(family.cases.len() >= expected, "{}", family.cases.len());
    let mut setups: BTreeMap<Setup, Vec<Case>> = BTreeMap::new();
    for case in family.cases {
        if !LEFT_OUT.contains(&&case.name[..]) {
            setups.entry(setup(&case)).or_default().push(case);
        }
    }
    setups
}

/// For every setup of a family: its folder, and the requests of its cases by their names.
pub(crate) fn requests(
    family: &str,
    expected: usize,
) -> impl Iterator<Item = (tempfile::TempDir, Vec<(String, GenerateRequest)>)> {
    cases(family, expected).into_iter().map(|(setup, cases)| {
        let (folder, ids) = folder(&setup);
        let requests = cases.iter().map(|case| {
            let name = format!("{} {}", case.model, case.name);
            (name, request(case, &ids))
        });
        let requests = requests.collect();
        (folder, requests)
    })
}

/// Draws every case of a family, those of one setup at the same time.
async fn check(family: &str, expected: usize) {
    let mut wrong = Vec::new();
    for (setup, cases) in cases(family, expected) {
        let (folder, ids) = folder(&setup);
        let worker = Worker::with_model(PathBuf::from(folder.path())).await;
        let drawn = join_all(cases.iter().map(|case| worker.draw(request(case, &ids)))).await;
        for (case, drawn) in cases.iter().zip(drawn) {
            match drawn {
                Ok(drawn) => {
                    for why in compare(case, &drawn) {
                        wrong.push(format!("{} {}: {why}", case.model, case.name));
                    }
                }
                Err(status) => wrong.push(format!("{} {}: {status:?}", case.model, case.name)),
            }
        }
        worker.stop().await;
    }
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
}

#[tokio::test]
async fn every_scheduler_draws_what_diffusers_draws() {
    check("schedulers", 60).await;
}

#[tokio::test]
async fn prompts_of_every_kind_draw_what_diffusers_draws() {
    check("text", 10).await;
}

#[tokio::test]
async fn pictures_from_pictures_are_those_of_diffusers() {
    check("image", 30).await;
}

#[tokio::test]
async fn stable_diffusion_xl_draws_what_diffusers_draws() {
    check("xl", 40).await;
}

#[tokio::test]
async fn models_of_few_steps_draw_what_diffusers_draws() {
    check("fast", 20).await;
}

#[tokio::test]
async fn half_precision_is_close_and_a_decoder_that_overflows_is_run_in_float32() {
    check("half", 4).await;
}
