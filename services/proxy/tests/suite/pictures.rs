//! Requests that start from a picture: what the preprocess worker and the replica get, and what the caller is told.

use crate::support::{Act, Mesh, Worker, broken_png, images, names, pixels, png, prompt, soon};
use mobula_kit::status;
use mobula_proto::{
    common::v1::{Determinism, Priority, RandomSource, SamplerOptions, SizeConditions},
    image::v1::{GuidanceInterval, PromptSyntax, generate_response::Event},
    preprocess::v1::ImageKind,
};
use mobula_proxy::Config;
use tonic::{Code, Status};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

#[tokio::test]
async fn a_picture_is_prepared_at_its_own_size_and_goes_to_the_replica() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let events = mesh
        .all(prompt(|r| {
            r.init_image = png(203, 97);
            r.strength = Some(0.5);
        }))
        .await
        .unwrap();
    let asked = &worker.requests()[0];
    assert_eq!((asked.width, asked.height, asked.strength), (200, 96, 0.5));
    assert_eq!(asked.init_image, Some(pixels(200, 96, ImageKind::Picture)));
    assert_eq!(asked.mask_image, None);
    let files = mesh.prepared.files.lock().unwrap().clone();
    assert_eq!(
        (files.len(), files[0].replica_id.as_str()),
        (1, "demo#preprocess")
    );
    assert_eq!(files[0].data, png(203, 97));
    let Some(Event::Done(done)) = events.last() else {
        panic!("{events:?}")
    };
    let parameters = done.parameters.as_ref().unwrap();
    assert_eq!(
        (parameters.width, parameters.height, parameters.strength),
        (200, 96, 0.5)
    );
    let chunk = asked
        .text_chunks
        .iter()
        .find(|chunk| chunk.keyword == "parameters");
    let infotext = &chunk.unwrap().text;
    assert!(infotext.contains("Denoising strength: 0.5"), "{infotext}");
    assert_eq!(images(&events)[0].width, 200);
}

#[tokio::test]
async fn a_mask_is_prepared_as_one_and_the_size_is_the_models() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    mesh.all(prompt(|r| {
        (r.init_image, r.mask_image) = (png(200, 96), png(50, 50))
    }))
    .await
    .unwrap();
    let asked = &worker.requests()[0];
    assert_eq!((asked.width, asked.height, asked.strength), (128, 128, 1.0));
    assert_eq!(asked.init_image, Some(pixels(128, 128, ImageKind::Picture)));
    assert_eq!(asked.mask_image, Some(pixels(128, 128, ImageKind::Mask)));
}

#[tokio::test]
async fn a_lost_replica_is_asked_again_with_the_same_picture_prepared_once() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::Break(0, Status::unavailable("engine failed")));
    let events = mesh.all(prompt(|r| r.init_image = png(64, 64))).await.unwrap();
    assert!(names(&events).contains(&"restarted"));
    let asked = worker.requests();
    assert_eq!((asked.len(), &asked[0]), (2, &asked[1]));
    assert_eq!(mesh.prepared.files.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_that_turns_out_broken_is_told_by_its_field_before_any_device_works() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    for (init, mask, field) in [
        (broken_png(64, 64), png(64, 64), "init_image"),
        (png(64, 64), broken_png(64, 64), "mask_image"),
    ] {
        let status = mesh
            .all(prompt(|r| (r.init_image, r.mask_image) = (init, mask)))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status::violations(&status),
            [(field.to_owned(), "ends too early".to_owned())]
        );
    }
    assert!(worker.requests().is_empty());
}

#[tokio::test]
async fn a_file_as_large_as_is_allowed_comes_through_and_a_larger_one_is_named() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let file = |bytes: usize| {
        let mut file = png(64, 64).to_vec();
        file.resize(bytes, 0);
        bytes::Bytes::from(file)
    };
    mesh.all(prompt(|r| {
        (r.init_image, r.mask_image) = (file(16 << 20), file(16 << 20))
    }))
    .await
    .unwrap();
    let status = mesh
        .all(prompt(|r| r.init_image = file((16 << 20) + 1)))
        .await
        .unwrap_err();
    assert_eq!(status::violations(&status)[0].0, "init_image");
    assert!(
        status.message().contains("at most 16777216"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn what_requests_hold_is_bounded_and_given_back() {
    let worker = Worker::start("a").await;
    let limit = Config {
        max_held_image_bytes: 4 * 64 * 64 + 1000,
        ..config()
    };
    let mesh = Mesh::start(limit, &[&worker], 4).await;
    worker.will(Act::Hang);
    let mut first = mesh.generate(prompt(|r| r.init_image = png(64, 64))).await;
    first.started().await;
    let status = mesh
        .all(prompt(|r| r.init_image = png(64, 64)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status::reason(&status).as_deref(), Some("PICTURES_FULL"));
    assert!(status::retry_after(&status).is_some());
    mesh.all(prompt(|_| ())).await.unwrap();
    drop(first);
    soon("room", async {
        while mesh.all(prompt(|r| r.init_image = png(64, 64))).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_field_goes_to_the_workers_as_it_came() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let options = SamplerOptions {
        eta: Some(0.5),
        ..SamplerOptions::default()
    };
    let told = SizeConditions {
        original_width: 1024,
        ..SizeConditions::default()
    };
    let interval = GuidanceInterval {
        start: 0.25,
        end: 0.75,
    };
    mesh.all(prompt(|r| {
        r.prompt_syntax = PromptSyntax::A1111.into();
        r.scheduler = "Euler a".into();
        r.sampler_options = Some(options);
        r.clip_skip = 2;
        r.guidance_rescale = 0.5;
        r.guidance_interval = Some(interval);
        r.random_source = RandomSource::Cuda.into();
        r.priority = Priority::High.into();
        r.determinism = Determinism::Fast.into();
        r.size_conditions = Some(told);
    }))
    .await
    .unwrap();
    let asked = &worker.requests()[0];
    assert_eq!(asked.scheduler, "euler_a");
    assert_eq!(
        (asked.sampler_options, asked.size_conditions),
        (Some(options), Some(told))
    );
    assert_eq!((asked.clip_skip, asked.guidance_rescale), (2, 0.5));
    assert_eq!(asked.guidance_interval, Some(interval));
    assert_eq!(asked.random_source(), RandomSource::Cuda);
    assert_eq!(asked.priority(), Priority::High);
    assert_eq!(asked.determinism(), Determinism::Fast);
    let texts = mesh.prepared.texts.lock().unwrap()[0].clone();
    assert_eq!((texts.syntax(), texts.steps), (PromptSyntax::A1111, 20));
    mesh.all(prompt(|_| ())).await.unwrap();
    assert_eq!(worker.requests()[1].scheduler, "", "the model's own");
}

#[tokio::test]
async fn new_fields_that_are_wrong_are_refused_before_any_worker_hears_of_them() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let status = mesh
        .all(prompt(|r| {
            r.mask_image = "no file".into();
            r.strength = Some(2.0);
            r.guidance_rescale = -1.0;
            r.sigma_schedule = "steep".into();
            r.clip_skip = 3;
            r.priority = 77;
        }))
        .await
        .unwrap_err();
    let fields: Vec<_> = status::violations(&status)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    let expected = [
        "strength",
        "mask_image",
        "guidance_rescale",
        "sigma_schedule",
        "clip_skip",
        "priority",
    ];
    assert_eq!(fields, expected);
    assert!(worker.requests().is_empty() && mesh.prepared.texts.lock().unwrap().is_empty());
}
