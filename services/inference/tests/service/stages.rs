//! The stages one by one, on replicas that have no other: what comes out is what a whole replica draws, to the bit.

use futures::future::join_all;
use mobula_kit::status;
use mobula_kit::worker::{ReplicaSpec, ReplicaState};
use mobula_proto::common::v1::{Pixels, Prompt, PromptWindow};
use mobula_proto::control::v1::Stage;
use mobula_proto::inference::v1::{
    DecodeRequest, DenoiseRequest, EncodeRequest, EncodeTextRequest, EncodedText, GenerateRequest,
    LatentsDone, Moments, TextWindow, decode_response, denoise_response, generate_response,
};
use tonic::{Code, Status};

use crate::families;
use crate::support::{Worker, fake_request, pixels, spec};

/// Replicas of one part each, by their ids.
const PARTS: [(&str, &[Stage]); 3] = [
    ("text_encoder", &[Stage::EncodeText]),
    ("denoiser", &[Stage::Denoise]),
    ("vae", &[Stage::Decode, Stage::Encode]),
];

fn part(id: &str, stages: &[Stage], (model, engine): (&str, &str)) -> ReplicaSpec {
    ReplicaSpec {
        stages: stages.iter().map(|stage| (*stage).into()).collect(),
        ..spec(id, model, engine, &[])
    }
}

/// Assigns a replica of the whole, `r`, and one of every part.
async fn assign(worker: &Worker, (model, engine): (&str, &str)) {
    let parts = PARTS.map(|(id, stages)| part(id, stages, (model, engine)));
    for spec in std::iter::once(part("r", &[], (model, engine))).chain(parts) {
        let report = worker.assign(spec).await;
        assert_eq!(report.state(), ReplicaState::Running, "{}", report.message);
    }
}

/// What comes of a request: files, and latents, by their indices.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    files: Vec<(u32, Vec<u8>)>,
    latents: Vec<LatentsDone>,
}

fn texts(request: &GenerateRequest) -> Vec<TextWindow> {
    let windows = |prompt: &Option<Prompt>, clip_skip: u32| {
        let prompt = prompt.clone().unwrap_or_default();
        let spans = prompt.spans.into_iter().flat_map(|span| span.variants);
        let windows = spans.flat_map(|variant| variant.windows).chain(prompt.empty);
        let window = move |window: PromptWindow| TextWindow {
            ids: window.ids,
            ids_2: window.ids_2,
            clip_skip,
        };
        windows.map(window).collect::<Vec<_>>()
    };
    let mut all = windows(&request.prompt, request.clip_skip);
    all.extend(windows(&request.negative_prompt, request.negative_clip_skip));
    all
}

async fn encode_text(
    worker: &Worker,
    id: &str,
    windows: Vec<TextWindow>,
) -> Result<Vec<EncodedText>, Status> {
    let request = EncodeTextRequest {
        replica_id: id.to_owned(),
        windows,
        ..EncodeTextRequest::default()
    };
    let answer = worker.client.clone().encode_text(request).await?.into_inner();
    assert!(answer.timings.is_some() && answer.load.is_some());
    Ok(answer.texts)
}

async fn encode(
    worker: &Worker,
    id: &str,
    (image, mask): (Pixels, Option<Pixels>),
) -> Result<Option<Moments>, Status> {
    let request = EncodeRequest {
        replica_id: id.to_owned(),
        image: Some(image),
        mask,
        ..EncodeRequest::default()
    };
    Ok(worker.client.clone().encode(request).await?.into_inner().moments)
}

async fn denoise(worker: &Worker, request: DenoiseRequest) -> Result<Vec<LatentsDone>, Status> {
    let mut stream = worker.client.clone().denoise(request).await?.into_inner();
    let (mut latents, mut last) = (Vec::new(), None);
    while let Some(message) = stream.message().await? {
        if let Some(denoise_response::Event::Latents(done)) = &message.event {
            latents.push(done.clone());
        }
        last = message.event;
    }
    assert!(matches!(last, Some(denoise_response::Event::Done(_))), "{last:?}");
    latents.sort_by_key(|latents| latents.index);
    Ok(latents)
}

async fn decode(worker: &Worker, request: DecodeRequest) -> Result<Vec<(u32, Vec<u8>)>, Status> {
    let mut stream = worker.client.clone().decode(request).await?.into_inner();
    let (mut files, mut last) = (Vec::new(), None);
    while let Some(message) = stream.message().await? {
        if let Some(decode_response::Event::Image(image)) = &message.event {
            files.push((image.index, image.data.to_vec()));
        }
        last = message.event;
    }
    assert!(matches!(last, Some(decode_response::Event::Done(_))), "{last:?}");
    files.sort_unstable();
    Ok(files)
}

/// Has the parts do what a whole replica does for a request; each part is given by its replica's id.
async fn conduct(
    worker: &Worker,
    [text, unet, vae]: [&str; 3],
    request: &GenerateRequest,
) -> Result<Outcome, Status> {
    let texts = encode_text(worker, text, texts(request)).await?;
    let init_moments = match &request.init_image {
        None => None,
        Some(image) => encode(worker, vae, (image.clone(), request.mask_image.clone())).await?,
    };
    let asked = GenerateRequest {
        replica_id: unet.to_owned(),
        init_image: None,
        ..request.clone()
    };
    let asked = DenoiseRequest {
        request: Some(asked),
        texts,
        init_moments,
    };
    let latents = denoise(worker, asked).await?;
    if request.denoising_end.is_some() {
        let files = Vec::new();
        return Ok(Outcome { files, latents });
    }
    let asked = DecodeRequest {
        replica_id: vae.to_owned(),
        width: request.width,
        height: request.height,
        latents,
        format: request.format,
        quality: request.quality,
        text_chunks: request.text_chunks.clone(),
        ..DecodeRequest::default()
    };
    let files = decode(worker, asked).await?;
    Ok(Outcome {
        files,
        latents: Vec::new(),
    })
}

/// What a whole replica makes of it.
async fn whole(worker: &Worker, request: &GenerateRequest) -> Result<Outcome, Status> {
    let drawn = worker.draw(request.clone()).await?;
    let images = drawn.images().into_iter();
    let mut latents: Vec<_> = drawn
        .events
        .iter()
        .filter_map(|response| match &response.event {
            Some(generate_response::Event::Latents(done)) => Some(done.clone()),
            _ => None,
        })
        .collect();
    latents.sort_by_key(|latents| latents.index);
    Ok(Outcome {
        files: images.map(|(index, file)| (index, file.to_vec())).collect(),
        latents,
    })
}

const SPLIT: [&str; 3] = ["text_encoder", "denoiser", "vae"];

/// Draws every case of a family whole and in parts, all at the same time.
async fn same(family: &str, expected: usize) {
    let mut compared = 0;
    for (folder, requests) in families::requests(family, expected) {
        let worker = Worker::start(mobula_inference::Config::default()).await;
        assign(&worker, (&folder.path().display().to_string(), "onnx")).await;
        let draws = requests.iter().map(|(name, request)| {
            let worker = &worker;
            async move {
                let (whole, parts) = tokio::join!(whole(worker, request), conduct(worker, SPLIT, request));
                (name, whole.unwrap(), parts.unwrap())
            }
        });
        for (name, whole, parts) in join_all(draws).await {
            assert!(!whole.files.is_empty() || !whole.latents.is_empty(), "{name}");
            assert!(whole == parts, "{name} differs");
            compared += 1;
        }
        worker.stop().await;
    }
    assert!(compared >= expected);
}

#[tokio::test]
async fn parts_draw_from_pictures_and_masks_what_the_whole_draws() {
    same("image", 30).await;
}

#[tokio::test]
async fn parts_draw_prompts_of_every_kind_as_the_whole_does() {
    same("text", 10).await;
}

#[tokio::test]
async fn parts_of_stable_diffusion_xl_draw_what_the_whole_draws() {
    same("xl", 40).await;
}

#[tokio::test]
async fn parts_of_models_of_few_steps_draw_what_the_whole_draws() {
    same("fast", 20).await;
}

#[tokio::test]
async fn a_whole_replica_does_single_stages_too_and_gives_pixels_where_they_are_asked_for() {
    let worker = Worker::with_fake(&[]).await;
    let request = fake_request(&[3, 4, 5], 4);
    let expected = whole(&worker, &request).await.unwrap();
    assert_eq!(conduct(&worker, ["r"; 3], &request).await.unwrap(), expected);
    let texts = encode_text(&worker, "r", texts(&request)).await.unwrap();
    let asked = DenoiseRequest {
        request: Some(request.clone()),
        texts,
        init_moments: None,
    };
    let asked = DecodeRequest {
        replica_id: "r".into(),
        width: 64,
        height: 64,
        latents: denoise(&worker, asked).await.unwrap(),
        as_pixels: true,
        ..DecodeRequest::default()
    };
    let got = decode(&worker, asked).await.unwrap();
    for ((_, got), (_, file)) in got.iter().zip(&expected.files) {
        assert!(*got == pixels(file).rgb);
    }
    assert_eq!(got.len(), 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_part_refuses_what_it_does_not_do_and_says_what_it_does() {
    let worker = Worker::start(mobula_inference::Config::default()).await;
    assign(&worker, ("fake", "fake")).await;
    let request = fake_request(&[1], 2);
    let refused = |status: Status, has: &str| {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert_eq!(status::reason(&status).as_deref(), Some("NO_STAGE"));
        let told = format!("this replica does {has} of a picture's way");
        assert!(status.message().starts_with(&told), "{status:?}");
    };
    for (id, has) in [
        ("text_encoder", "encode_text"),
        ("denoiser", "denoise"),
        ("vae", "decode, encode"),
    ] {
        let asked = GenerateRequest {
            replica_id: id.into(),
            ..request.clone()
        };
        refused(worker.draw(asked).await.err().unwrap(), has);
    }
    let texts = encode_text(&worker, "vae", texts(&request)).await;
    refused(texts.unwrap_err(), "decode, encode");
    let image = Pixels {
        width: 64,
        height: 64,
        data: vec![0; 64 * 64 * 3].into(),
    };
    refused(
        encode(&worker, "denoiser", (image, None)).await.unwrap_err(),
        "denoise",
    );
    worker.stop().await;
}

#[tokio::test]
async fn what_a_stage_is_given_is_checked_by_its_fields() {
    let worker = Worker::start(mobula_inference::Config::default()).await;
    assign(&worker, ("fake", "fake")).await;
    let request = GenerateRequest {
        replica_id: "denoiser".into(),
        ..fake_request(&[1], 2)
    };
    let given = encode_text(&worker, "text_encoder", texts(&request))
        .await
        .unwrap();
    let fields = |status: Status| -> Vec<String> {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        status::violations(&status)
            .into_iter()
            .map(|(field, _)| field)
            .collect()
    };
    let ask = async |texts: &[EncodedText], init_moments: Option<Moments>| {
        let asked = DenoiseRequest {
            request: Some(request.clone()),
            texts: texts.to_vec(),
            init_moments,
        };
        denoise(&worker, asked).await
    };
    assert_eq!(ask(&given, None).await.unwrap().len(), 1);
    assert_eq!(fields(ask(&given[..1], None).await.unwrap_err()), ["texts"]);
    let mut short = given.clone();
    short[0].states.as_mut().unwrap().data.truncate(8);
    assert_eq!(fields(ask(&short, None).await.unwrap_err()), ["texts.states"]);
    let mut none = given.clone();
    none[0].states = None;
    assert_eq!(fields(ask(&none, None).await.unwrap_err()), ["texts.states"]);
    let mut nan = given.clone();
    let mut data = nan[0].states.clone().unwrap().data.to_vec();
    data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    nan[0].states.as_mut().unwrap().data = data.into();
    assert_eq!(fields(ask(&nan, None).await.unwrap_err()), ["texts.states"]);
    let empty = Some(Moments::default());
    assert_eq!(
        fields(ask(&given, empty).await.unwrap_err()),
        ["strength", "init_moments.mean"]
    );
    let ids = |ids: Vec<u32>| TextWindow {
        ids,
        ..TextWindow::default()
    };
    for window in [ids(vec![1; 76]), ids(vec![u32::MAX; 77])] {
        let status = encode_text(&worker, "text_encoder", vec![window])
            .await
            .unwrap_err();
        assert_eq!(fields(status), ["windows"]);
    }
    let status = encode_text(&worker, "text_encoder", Vec::new())
        .await
        .unwrap_err();
    assert_eq!(fields(status), ["windows"]);
    let asked = DecodeRequest {
        replica_id: "vae".into(),
        width: 60,
        height: 64,
        quality: 101,
        format: 77,
        ..DecodeRequest::default()
    };
    let status = decode(&worker, asked.clone()).await.unwrap_err();
    assert_eq!(fields(status), ["width", "latents", "quality", "format"]);
    let asked = DecodeRequest {
        width: 64,
        latents: vec![LatentsDone::default()],
        quality: 0,
        format: 0,
        ..asked
    };
    let status = decode(&worker, asked).await.unwrap_err();
    assert_eq!(fields(status), ["latents"]);
    let image = Pixels {
        width: 64,
        height: 72,
        data: vec![0; 5].into(),
    };
    let status = encode(&worker, "vae", (image, None)).await.unwrap_err();
    assert_eq!(fields(status), ["image"]);
    worker.stop().await;
}
