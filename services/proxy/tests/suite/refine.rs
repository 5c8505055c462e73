//! A refiner: the base model's latents are handed over, and a replica that is lost costs its half only.

use std::sync::Arc;

use crate::support::{Act, Mesh, Worker, encoded, images, latents, names, picture, prompt};
use mobula_kit::status;
use mobula_proto::control::v1::ReportDemandRequest;
use mobula_proto::image::v1::{GenerateRequest, GuidanceInterval, Refiner, generate_response::Event};
use mobula_proxy::Config;
use tokio::sync::Notify;
use tonic::{Code, Status};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

fn refined(change: impl FnOnce(&mut GenerateRequest)) -> GenerateRequest {
    let mut request = prompt(|r| {
        r.seeds = vec![5, 6];
        r.steps = Some(20);
        r.refiner = Some(Refiner {
            model: "refiner".into(),
            switch_at: 0.75,
            ..Refiner::default()
        });
        r.model = "demo".into();
    });
    change(&mut request);
    request
}

async fn mesh() -> (Mesh, Worker, Worker) {
    let (base, refiner) = (Worker::start("base").await, Worker::start("second").await);
    let mesh = Mesh::start(config(), &[&base], 4).await;
    mesh.add_refiner(&[&refiner]).await;
    (mesh, base, refiner)
}

#[tokio::test]
async fn latents_go_from_the_base_model_to_the_refiner_and_pictures_to_the_caller() {
    let (mesh, base, refiner) = mesh().await;
    let events = mesh
        .all(refined(|r| {
            r.negative_prompt = "blue".into();
            r.preview_interval = 5;
        }))
        .await
        .unwrap();
    let expected = [
        "accepted", "started", "step", "preview", "started", "step", "preview", "image", "image", "done",
    ];
    assert_eq!(names(&events), expected);
    let steps: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Step(step) => Some((step.index, step.of)),
            Event::Preview(preview) => Some((preview.step, 0)),
            Event::Accepted(_)
            | Event::Waiting(_)
            | Event::Started(_)
            | Event::Image(_)
            | Event::Restarted(_)
            | Event::Done(_) => None,
        })
        .collect();
    assert_eq!(steps, [(1, 20), (1, 0), (16, 20), (16, 0)], "the count goes on");
    let images = images(&events);
    assert_eq!(images[1].data.to_vec(), picture(6));
    assert_eq!(images[0].timings.unwrap().denoise_us, 14, "of both halves");
    assert_eq!(images[0].notes, ["note on 5"], "as the replica says it");
    let (first, last) = (&base.requests()[0], &refiner.requests()[0]);
    assert_eq!((first.denoising_end, first.denoising_start), (Some(0.75), None));
    assert_eq!((last.denoising_end, last.denoising_start), (None, Some(0.75)));
    assert!(first.init_latents.is_empty());
    assert_eq!(last.init_latents, [latents(5), latents(6)]);
    assert_eq!((first.steps, last.steps), (20, 20));
    assert_eq!(last.replica_id, "refiner#second");
    assert_eq!(last.prompt, Some(encoded("a red circle")));
    assert_eq!(last.negative_prompt, Some(encoded("blue")));
    let tokenized: Vec<_> = mesh
        .prepared
        .texts
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.replica_id.clone())
        .collect();
    assert!(
        tokenized.contains(&"demo#preprocess".to_owned())
            && tokenized.contains(&"refiner#preprocess".to_owned()),
        "each model has its own tokens: {tokenized:?}"
    );
    let chunk = |keyword: &str| {
        let found = last.text_chunks.iter().find(|chunk| chunk.keyword == keyword);
        found.map(|chunk| chunk.text.clone()).unwrap_or_default()
    };
    assert!(chunk("parameters").contains("Refiner: refiner, Refiner switch at: 0.75"));
    assert_eq!(chunk("mobula-refiner-digest"), "cd".repeat(32));
    assert_eq!(chunk("mobula-model-digest"), "ab".repeat(32));
}

#[tokio::test]
async fn a_replica_lost_in_the_first_half_draws_only_the_latents_that_are_missing() {
    let (mesh, base, refiner) = mesh().await;
    base.will(Act::Break(1, Status::unavailable("engine failed")));
    let events = mesh.all(refined(|_| ())).await.unwrap();
    let expected = [
        "accepted",
        "started",
        "step",
        "restarted",
        "started",
        "step",
        "started",
        "step",
        "image",
        "image",
        "done",
    ];
    assert_eq!(names(&events), expected);
    let asked = base.requests();
    assert_eq!(
        (asked[0].skip_images.clone(), asked[1].skip_images.clone()),
        (vec![], vec![0])
    );
    assert_eq!(refiner.requests().len(), 1);
    assert_eq!(refiner.requests()[0].init_latents, [latents(5), latents(6)]);
}

#[tokio::test]
async fn a_replica_lost_in_the_last_half_costs_that_half_only() {
    let (mesh, base, refiner) = mesh().await;
    refiner.will(Act::Break(1, Status::unavailable("engine failed")));
    let events = mesh.all(refined(|_| ())).await.unwrap();
    assert_eq!(base.requests().len(), 1, "its latents are kept");
    let asked = refiner.requests();
    assert_eq!(
        (asked[0].skip_images.clone(), asked[1].skip_images.clone()),
        (vec![], vec![0])
    );
    assert_eq!(asked[0].init_latents, asked[1].init_latents);
    let images = images(&events);
    assert_eq!(images.iter().map(|image| image.index).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        names(&events).iter().filter(|name| **name == "restarted").count(),
        1
    );
}

#[tokio::test]
async fn losses_of_both_halves_are_counted_together() {
    let (mesh, base, refiner) = mesh().await;
    let lost = || Status::unavailable("engine failed");
    base.will(Act::Break(0, lost()));
    refiner.will(Act::Break(0, lost()));
    refiner.will(Act::Break(0, lost()));
    let status = mesh.all(refined(|_| ())).await.unwrap_err();
    assert_eq!(status::reason(&status).as_deref(), Some("REPLICAS_LOST"));
    assert_eq!((base.requests().len(), refiner.requests().len()), (2, 2));
}

#[tokio::test]
async fn without_latents_there_is_no_second_half() {
    let (mesh, base, refiner) = mesh().await;
    for _ in 0..3 {
        base.will(Act::EndEarly(1));
    }
    let events = mesh.all(refined(|_| ())).await.unwrap();
    assert_eq!(images(&events).len(), 2);
    assert_eq!(base.requests()[1].skip_images, [0]);
    assert_eq!(refiner.requests().len(), 1);
}

#[tokio::test]
async fn what_a_replica_refuses_is_told_by_the_fields_that_the_caller_knows() {
    let (mesh, base, refiner) = mesh().await;
    base.will(Act::Refuse(status::invalid("denoising_end", "leaves no step")));
    let status = mesh.all(refined(|_| ())).await.unwrap_err();
    assert_eq!(status::violations(&status)[0].0, "refiner.switch_at");
    refiner.will(Act::Refuse(status::invalid("init_latents", "have 16 channels")));
    let status = mesh.all(refined(|_| ())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status::violations(&status),
        [(
            "refiner.model".to_owned(),
            "init_latents: have 16 channels".to_owned()
        )]
    );
}

#[tokio::test]
async fn each_half_is_guided_in_its_part_of_the_interval() {
    let (mesh, base, refiner) = mesh().await;
    let interval = GuidanceInterval {
        start: 0.0,
        end: 0.375,
    };
    mesh.all(refined(|r| r.guidance_interval = Some(interval)))
        .await
        .unwrap();
    let (first, last) = (&base.requests()[0], &refiner.requests()[0]);
    assert_eq!(
        first.guidance_interval,
        Some(GuidanceInterval { start: 0.0, end: 0.5 })
    );
    assert_eq!(first.guidance_scale, 7.5);
    assert_eq!((last.guidance_interval, last.guidance_scale), (None, 1.0));
}

#[tokio::test]
async fn prompts_that_change_on_the_way_go_on_with_the_refiner() {
    let (mesh, base, refiner) = mesh().await;
    let changing = |scheduler: &str| {
        refined(|r| {
            r.prompt = "a@5|b@18|c@20".into();
            r.negative_prompt = "d@3|e@15".into();
            r.scheduler = scheduler.into();
        })
    };
    refiner.will(Act::Break(0, Status::unavailable("engine failed")));
    mesh.all(changing("euler")).await.unwrap();
    mesh.all(changing("heun")).await.unwrap();
    for first in base.requests() {
        assert_eq!(first.prompt, Some(encoded("a@5|b@18|c@20")));
        assert_eq!(first.negative_prompt, Some(encoded("d@3|e@15")));
    }
    let asked = refiner.requests();
    assert_eq!(asked.len(), 3, "one of them was lost");
    for last in &asked[..2] {
        assert_eq!(last.prompt, Some(encoded("b@3|c@5")), "15 of 20 steps are over");
        assert_eq!(last.negative_prompt, Some(encoded("e")), "the last one is kept");
    }
    // Its 15th step is half done, and begun again.
    assert_eq!(asked[2].prompt, Some(encoded("b@4|c@6")));
    assert_eq!(asked[2].negative_prompt, Some(encoded("e@1")));
}

#[tokio::test]
async fn a_refiner_that_is_not_there_or_cannot_refine_is_refused() {
    let (mesh, base, _refiner) = mesh().await;
    let asked = |model: &str| {
        let model = model.to_owned();
        refined(|r| {
            r.refiner = Some(Refiner {
                model,
                switch_at: 0.5,
                ..Refiner::default()
            })
        })
    };
    let status = mesh.all(asked("nobody")).await.unwrap_err();
    assert_eq!(
        status::violations(&status),
        [(
            "refiner.model".to_owned(),
            "must be one of demo, refiner".to_owned()
        )]
    );
    let status = mesh.all(asked("demo")).await.unwrap_err();
    assert_eq!(status::violations(&status)[0].0, "refiner.model");
    let status = mesh
        .all(refined(|r| r.refiner.as_mut().unwrap().switch_at = 1.0))
        .await
        .unwrap_err();
    assert_eq!(status::violations(&status)[0].0, "refiner.switch_at");
    assert!(base.requests().is_empty());
}

#[tokio::test]
async fn a_first_half_is_not_drawn_for_a_refiner_that_others_have_taken_the_place_of() {
    let (base, refiner) = (Worker::start("base").await, Worker::start("second").await);
    let mesh = Mesh::start(config(), &[&base], 1).await;
    mesh.add_refiner(&[&refiner]).await;
    let opens = Arc::<Notify>::default();
    base.will(Act::Gate(Arc::clone(&opens)));
    let mut busy = mesh.generate(prompt(|r| r.model = "demo".into())).await;
    busy.started().await;
    let mut waiting = mesh.generate(refined(|_| ())).await;
    waiting.next().await.unwrap();
    let is_asked = |reports: &Vec<ReportDemandRequest>| {
        let mut told = reports.last().into_iter().flat_map(|report| &report.demands);
        told.any(|demand| (&*demand.application, &*demand.deployment) == ("refiner", "pipeline"))
    };
    mesh.reported("the second place", is_asked).await;
    mesh.change(|table| table.applications[1].deployments[1].name = "other".into());
    mesh.reported("its end", |reports| !is_asked(reports)).await;
    for _ in 0..4 {
        opens.notify_one();
    }
    while busy.next().await.unwrap().is_some() {}
    let mut seen = Vec::new();
    while let Some(event) = waiting.next().await.unwrap() {
        seen.push(event);
    }
    assert_eq!(images(&seen).len(), 2);
    assert!(!names(&seen).contains(&"restarted"), "{:?}", names(&seen));
    assert_eq!(base.requests().len(), 2, "one half for two pictures");
}
