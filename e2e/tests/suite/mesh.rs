//! What a mesh promises its callers, with the fake engine: pictures, company, cancellation, clear refusals.

use futures::future::try_join_all;
use mobula_e2e::{Mesh, decode, draw, get, prompt, until};
use mobula_kit::status::violations;
use mobula_proto::image::v1::generate_response::Event;
use mobula_proto::image::v1::{CancelRequest, GenerateRequest};
use tonic::Code;

/// A step that takes so long that a request is surely caught in the middle: 20 steps make 2 s.
const SLOW_STEP_US: u64 = 100_000;

#[tokio::test]
async fn a_prompt_gives_a_picture_over_grpc_and_over_http() -> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    let drawn = draw(&mesh.client(), prompt("a red circle", 7)).await?;
    let picture = drawn.picture()?;
    assert_eq!(picture.seed, 7);
    assert!(!drawn.request_id.is_empty() && drawn.replicas.len() == 1);
    assert_eq!(drawn.step.0, drawn.step.1, "every step was told");

    let answer = get(mesh.http(), "/imagine?prompt=a%20red%20circle&seed=7").await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "image/png");
    assert_eq!(
        decode(&answer.body)?.rgb,
        decode(&picture.png)?.rgb,
        "one seed, one picture, whatever the door"
    );
    mesh.stop().await
}

#[tokio::test]
async fn strangers_in_one_batch_get_the_bytes_that_they_get_alone() -> anyhow::Result<()> {
    const STRANGERS: u64 = 32;
    let mesh = Mesh::builder().inference(2).step_us(500).start().await?;
    let client = mesh.client();
    // Different lengths and sizes, so that they join and leave one another's batches.
    let request = |seed: u64| GenerateRequest {
        steps: Some(5 + (seed % 4) as u32 * 5),
        width: Some(if seed.is_multiple_of(3) { 64 } else { 128 }),
        guidance_scale: Some(if seed.is_multiple_of(5) { 1.0 } else { 7.5 }),
        ..prompt(&format!("picture number {seed}"), seed)
    };
    let mut alone = Vec::new();
    for seed in 0..STRANGERS {
        alone.push(draw(&client, request(seed)).await?.picture()?.clone());
    }
    let together = try_join_all((0..STRANGERS).map(|seed| draw(&client, request(seed)))).await?;
    for (alone, drawn) in alone.iter().zip(&together) {
        assert_eq!(drawn.picture()?.png, alone.png, "seed {}", alone.seed);
    }
    mesh.stop().await
}

#[tokio::test]
async fn a_cancelled_request_ends_and_frees_its_replica() -> anyhow::Result<()> {
    let mesh = Mesh::builder()
        .step_us(SLOW_STEP_US)
        .max_ongoing_requests(1)
        .start()
        .await?;
    let mut client = mesh.client();
    let request = GenerateRequest {
        request_id: "mine".into(),
        steps: Some(500),
        ..prompt("a red circle", 1)
    };
    let mut events = client.generate(request).await?.into_inner();
    while let Some(message) = events.message().await? {
        if matches!(message.event, Some(Event::Step(_))) {
            break;
        }
    }
    client
        .cancel(CancelRequest {
            request_id: "mine".into(),
        })
        .await?;
    let status = loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("a cancelled request ended as if it was done"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Cancelled, "{status:?}");
    // The replica takes one request at a time: this one runs only if the cancelled one has left.
    draw(
        &client,
        GenerateRequest {
            steps: Some(1),
            ..prompt("a red circle", 2)
        },
    )
    .await?
    .picture()?;
    let status = client
        .cancel(CancelRequest {
            request_id: "mine".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    mesh.stop().await
}

#[tokio::test]
async fn a_caller_who_leaves_frees_the_replica() -> anyhow::Result<()> {
    let mesh = Mesh::builder()
        .step_us(SLOW_STEP_US)
        .max_ongoing_requests(1)
        .start()
        .await?;
    let mut client = mesh.client();
    let mut events = client
        .generate(GenerateRequest {
            steps: Some(500),
            ..prompt("a red circle", 1)
        })
        .await?
        .into_inner();
    while let Some(message) = events.message().await? {
        if matches!(message.event, Some(Event::Started(_))) {
            break;
        }
    }
    drop(events);
    draw(
        &client,
        GenerateRequest {
            steps: Some(1),
            ..prompt("a red circle", 2)
        },
    )
    .await?
    .picture()?;
    mesh.stop().await
}

#[tokio::test]
async fn previews_come_when_they_are_asked_for() -> anyhow::Result<()> {
    // Previews are made beside the engine and may fall behind it: steps that take no time have none.
    let mesh = Mesh::builder().step_us(5_000).start().await?;
    let request = GenerateRequest {
        steps: Some(20),
        preview_interval: 5,
        ..prompt("a red circle", 1)
    };
    let drawn = draw(&mesh.client(), request).await?;
    assert!(
        (1..=3).contains(&drawn.previews),
        "{} previews of 20 steps, the last of which is the picture",
        drawn.previews
    );
    let drawn = draw(&mesh.client(), prompt("a red circle", 1)).await?;
    assert_eq!(drawn.previews, 0, "nobody asked");
    mesh.stop().await
}

#[tokio::test]
async fn several_pictures_continue_the_seeds_and_match_pictures_drawn_alone() -> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    let drawn = draw(
        &mesh.client(),
        GenerateRequest {
            image_count: 3,
            ..prompt("a red circle", 40)
        },
    )
    .await?;
    let mut pictures = drawn.pictures.clone();
    pictures.sort_by_key(|picture| picture.index);
    assert_eq!(
        pictures.iter().map(|picture| picture.seed).collect::<Vec<_>>(),
        [40, 41, 42]
    );
    let alone = draw(&mesh.client(), prompt("a red circle", 42)).await?;
    assert_eq!(decode(&pictures[2].png)?.rgb, decode(&alone.picture()?.png)?.rgb);
    mesh.stop().await
}

#[tokio::test]
async fn bad_input_is_refused_by_field_and_disturbs_nobody() -> anyhow::Result<()> {
    let mesh = Mesh::builder().step_us(5_000).start().await?;
    let client = mesh.client();
    let beside = tokio::spawn({
        let client = client.clone();
        async move { draw(&client, prompt("a picture beside them", 5)).await }
    });
    let good = || prompt("a red circle", 1);
    let cases: [(&str, GenerateRequest); 9] = [
        (
            "prompt",
            GenerateRequest {
                prompt: String::new(),
                ..good()
            },
        ),
        (
            "prompt",
            GenerateRequest {
                prompt: "x".repeat(1 << 20),
                ..good()
            },
        ),
        (
            "width",
            GenerateRequest {
                width: Some(129),
                ..good()
            },
        ),
        (
            "height",
            GenerateRequest {
                height: Some(0),
                ..good()
            },
        ),
        (
            "steps",
            GenerateRequest {
                steps: Some(0),
                ..good()
            },
        ),
        (
            "steps",
            GenerateRequest {
                steps: Some(10_000),
                ..good()
            },
        ),
        (
            "guidance_scale",
            GenerateRequest {
                guidance_scale: Some(f32::NAN),
                ..good()
            },
        ),
        (
            "scheduler",
            GenerateRequest {
                scheduler: "magic".into(),
                ..good()
            },
        ),
        (
            "request_id",
            GenerateRequest {
                request_id: "\n".into(),
                ..good()
            },
        ),
    ];
    for (field, request) in cases {
        let status = draw(&client, request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        let named: Vec<_> = violations(&status).into_iter().map(|(field, _)| field).collect();
        assert_eq!(named, [field], "{status:?}");
    }
    let status = draw(
        &client,
        GenerateRequest {
            model: "nobody".into(),
            ..good()
        },
    )
    .await
    .unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(
        status.message().contains("e2e"),
        "it lists what there is: {status:?}"
    );
    beside.await??.picture()?;
    mesh.stop().await
}

#[tokio::test]
async fn bad_input_over_http_is_answered_with_422_and_the_field() -> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    for (query, field) in [
        ("", "prompt"),
        ("?prompt=", "prompt"),
        ("?prompt=x&img_size=129", "img_size"),
        ("?prompt=x&img_size=big", "img_size"),
        ("?prompt=x&steps=0", "steps"),
        ("?prompt=x&scheduler=magic", "scheduler"),
        ("?prompt=x&guidance_scale=nan", "guidance_scale"),
    ] {
        let answer = get(mesh.http(), &format!("/imagine{query}")).await?;
        assert_eq!(answer.status, 422, "{query}: {}", answer.text());
        let body: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let places = body["detail"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(
            places.iter().any(|place| place["loc"][1] == field),
            "{query}: {body}"
        );
    }
    assert_eq!(get(mesh.http(), "/nowhere/at/all").await?.status, 404);
    mesh.stop().await
}

#[tokio::test]
async fn probes_and_routes_say_that_the_mesh_is_there() -> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    let healthy = until("a healthy proxy", || async {
        let answer = get(mesh.http(), "/-/healthz").await.ok()?;
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(healthy.await?.text(), "success", "as Ray Serve answers");
    let routes: serde_json::Value = serde_json::from_slice(&get(mesh.http(), "/-/routes").await?.body)?;
    assert_eq!(routes, serde_json::json!({"/": "e2e"}));
    mesh.stop().await
}
