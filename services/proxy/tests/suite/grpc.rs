//! The gRPC door over real sockets: streams, names, cancels, deadlines, queues.

use std::time::Duration;

use crate::support::{Act, Mesh, Worker, encoded, images, names, picture, prompt, soon};
use mobula_kit::status;
use mobula_proto::{
    image::v1::{
        self as image, CancelRequest, GenerateResponse, GetModelRequest, ImageFormat, ListModelsRequest,
        generate_response::Event,
    },
    inference::v1::Image as LookAlike,
};
use mobula_proxy::{Config, Provenance};
use tonic::{Code, IntoRequest, Request};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

#[tokio::test]
async fn a_request_is_streamed_from_accepted_to_done() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let events = mesh
        .all(prompt(|r| {
            r.seeds = vec![42];
            r.negative_prompt = "blue".into();
            r.preview_interval = 5;
            r.scheduler = "euler_a".into();
        }))
        .await
        .unwrap();
    assert_eq!(
        names(&events),
        ["accepted", "started", "step", "preview", "image", "done"]
    );
    let Some(Event::Accepted(accepted)) = events.first() else {
        panic!("{events:?}")
    };
    assert_eq!(accepted.request_id.len(), 36, "a UUID");
    let image = &images(&events)[0];
    assert_eq!((image.seed, image.data.to_vec()), (42, picture(42)));
    let Some(Event::Done(done)) = events.last() else {
        panic!("{events:?}")
    };
    let parameters = done.parameters.as_ref().unwrap();
    assert_eq!(
        (parameters.model.as_str(), parameters.scheduler.as_str()),
        ("demo", "euler_a")
    );
    assert_eq!(
        (parameters.width, parameters.steps, parameters.seeds.clone()),
        (128, 20, vec![42])
    );
    let timings = done.timings.unwrap();
    assert!(
        timings.denoise_us == 7 && timings.preprocess_us > 0 && timings.total_us > 0,
        "{timings:?}"
    );
    let asked = &worker.requests()[0];
    assert_eq!(asked.replica_id, "demo#a");
    assert_eq!(asked.prompt, Some(encoded("a red circle")));
    assert_eq!(asked.negative_prompt, Some(encoded("blue")));
    assert!(
        asked
            .text_chunks
            .iter()
            .any(|c| c.keyword == "mobula-seed" && c.text == "42")
    );
}

#[tokio::test]
async fn files_are_encoded_and_say_of_themselves_what_was_asked_for() {
    let worker = Worker::start("a").await;
    let config = Config {
        provenance: Provenance::Marker,
        ..config()
    };
    let mesh = Mesh::start(config, &[&worker], 1).await;
    let ask = |format: ImageFormat, provenance: image::Provenance| {
        prompt(|r| {
            r.format = format.into();
            r.provenance = provenance.into();
        })
    };
    let told = |at: usize| {
        let request = &worker.requests()[at];
        let keywords: Vec<String> = request.text_chunks.iter().map(|c| c.keyword.clone()).collect();
        (request.format(), keywords)
    };
    let events = mesh
        .all(ask(ImageFormat::Webp, image::Provenance::Unspecified))
        .await
        .unwrap();
    assert_eq!(images(&events)[0].format(), ImageFormat::Webp);
    let marker = ["AI-Generated", "XML:com.adobe.xmp"].map(str::to_owned).to_vec();
    assert_eq!(told(0), (ImageFormat::Webp, marker));
    mesh.all(ask(ImageFormat::Jpeg, image::Provenance::None))
        .await
        .unwrap();
    assert_eq!(told(1), (ImageFormat::Jpeg, Vec::new()));
    mesh.all(ask(ImageFormat::Png, image::Provenance::Full))
        .await
        .unwrap();
    let (format, keywords) = told(2);
    assert_eq!(format, ImageFormat::Png);
    for keyword in ["parameters", "mobula-seed", "AI-Generated", "XML:com.adobe.xmp"] {
        assert!(keywords.iter().any(|found| found == keyword), "{keywords:?}");
    }
    let wrong = mesh.all(prompt(|r| r.quality = 80)).await.unwrap_err();
    assert_eq!(status::violations(&wrong)[0].0, "quality");
}

#[tokio::test]
async fn cancel_ends_a_request_and_frees_its_replica() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    worker.will(Act::Hang);
    let mut events = mesh.generate(prompt(|r| r.request_id = "mine".into())).await;
    events.started().await;
    let cancel = CancelRequest {
        request_id: "mine".into(),
    };
    mesh.client.clone().cancel(cancel.clone()).await.unwrap();
    soon("the stream's drop", worker.dropped.recv()).await;
    assert_eq!(events.failed().await.code(), Code::Cancelled);
    let status = mesh.client.clone().cancel(cancel).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    // The one slot is free again, and so is the id.
    mesh.all(prompt(|r| r.request_id = "mine".into())).await.unwrap();
}

#[tokio::test]
async fn an_id_in_use_is_refused_and_free_again_at_the_end() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::Hang);
    let mut first = mesh.generate(prompt(|r| r.request_id = "twice".into())).await;
    first.started().await;
    let status = mesh
        .all(prompt(|r| r.request_id = "twice".into()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    drop(first);
    for _ in 0..20 {
        let events = mesh.all(prompt(|r| r.request_id = "again".into())).await.unwrap();
        assert_eq!(names(&events).last(), Some(&"done"));
    }
}

#[tokio::test]
async fn a_caller_who_leaves_frees_the_replica() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    worker.will(Act::Hang);
    let mut events = mesh.generate(prompt(|_| ())).await;
    events.started().await;
    drop(events);
    soon("the stream's drop", worker.dropped.recv()).await;
    mesh.all(prompt(|_| ())).await.unwrap();
}

#[tokio::test]
async fn a_deadline_is_kept_and_passed_on() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    worker.will(Act::Hang);
    let mut request = prompt(|_| ()).into_request();
    request.set_timeout(Duration::from_millis(300));
    let begun = tokio::time::Instant::now();
    let events = mesh.generate(request).await;
    let status = status::received(events.failed().await);
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    soon("the stream's drop", worker.dropped.recv()).await;
}

#[tokio::test]
async fn the_servers_own_limit_ends_requests_without_a_deadline() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(
        Config {
            request_timeout_s: Some(0.2),
            ..config()
        },
        &[&worker],
        1,
    )
    .await;
    worker.will(Act::Hang);
    let status = mesh.generate(prompt(|_| ())).await.failed().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn requests_beyond_the_slots_wait_in_line_and_beyond_the_line_are_refused() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::bare(config()).await;
    mesh.route(&[&worker], 1, 1).await;
    worker.will(Act::Hang);
    let mut first = mesh.generate(prompt(|_| ())).await;
    first.started().await;
    soon("a call", worker.called.recv()).await;
    let mut second = mesh.generate(prompt(|_| ())).await;
    let Some(Event::Accepted(accepted)) = second.next().await.unwrap() else {
        panic!("not accepted")
    };
    assert_eq!(accepted.queue_position, 0);
    let status = mesh.generate(prompt(|_| ())).await.failed().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status::retry_after(&status).is_some());
    drop(first);
    second.started().await;
}

#[tokio::test]
async fn bad_fields_are_named_before_any_worker_hears_of_them() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let status = mesh
        .all(prompt(|r| {
            r.prompt.clear();
            r.width = Some(100);
            r.steps = Some(10_000);
            r.guidance_scale = Some(f32::NAN);
            r.scheduler = "turbo".into();
        }))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields: Vec<_> = status::violations(&status)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    assert_eq!(
        fields,
        ["prompt", "width", "steps", "guidance_scale", "scheduler"]
    );
    let status = mesh
        .all(prompt(|r| r.request_id = "a\nb".into()))
        .await
        .unwrap_err();
    assert_eq!(status::violations(&status)[0].0, "request_id");
    let status = mesh
        .all(prompt(|r| r.prompt = "x".repeat(1 << 20)))
        .await
        .unwrap_err();
    assert_eq!(status::violations(&status)[0].0, "prompt");
    assert!(worker.requests().is_empty());
}

#[tokio::test]
async fn bytes_that_are_no_text_are_the_callers_fault() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    // Its field 2 is bytes where the request's prompt is a string.
    let lookalike = LookAlike {
        index: 0,
        data: vec![0xff, 0xfe].into(),
        ..Default::default()
    };
    let channel = mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = "/mobula.image.v1.ImageService/Generate".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<LookAlike, GenerateResponse>::default();
    let status = client
        .server_streaming(Request::new(lookalike), path, codec)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status::violations(&status)[0].0, "prompt");
    let status = mesh
        .all(prompt(|r| r.prompt = "x".repeat(5 << 20)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    mesh.all(prompt(|_| ())).await.unwrap();
}

#[tokio::test]
async fn ray_serves_own_clients_are_told_of_health_and_applications() {
    use mobula_proto::ray::serve::{
        HealthzRequest, ListApplicationsRequest, ray_serve_api_service_client::RayServeApiServiceClient,
    };
    let ray = |mesh: &Mesh| {
        let channel = mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap();
        RayServeApiServiceClient::new(channel)
    };
    let bare = Mesh::bare(config()).await;
    let status = ray(&bare).healthz(HealthzRequest {}).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "Route table is not populated yet.")
    );
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let healthy = ray(&mesh).healthz(HealthzRequest {}).await.unwrap();
    assert_eq!(healthy.into_inner().message, "success");
    let listed = ray(&mesh)
        .list_applications(ListApplicationsRequest {})
        .await
        .unwrap();
    assert_eq!(listed.into_inner().application_names, ["demo"]);
}

#[tokio::test]
async fn models_are_listed_described_and_asked_for_by_name() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let mut client = mesh.client.clone();
    let models = client
        .list_models(ListModelsRequest {})
        .await
        .unwrap()
        .into_inner()
        .models;
    assert_eq!(models.len(), 1);
    assert_eq!((models[0].name.as_str(), models[0].ready_replicas), ("demo", 1));
    let named = GetModelRequest {
        model: "demo".into(),
        ..Default::default()
    };
    assert_eq!(
        client.get_model(named).await.unwrap().into_inner().model,
        Some(models[0].clone())
    );
    let unknown = GetModelRequest {
        model: "nope".into(),
        ..Default::default()
    };
    let status = client.get_model(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("demo"), "{}", status.message());
    let status = mesh.all(prompt(|r| r.model = "nope".into())).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    mesh.all(prompt(|r| r.model = "demo".into())).await.unwrap();
}

#[tokio::test]
async fn rays_metadata_are_understood() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let mut request = Request::new(prompt(|_| ()));
    request
        .metadata_mut()
        .insert("application", "demo".parse().unwrap());
    request
        .metadata_mut()
        .insert("request_id", "from-ray".parse().unwrap());
    let response = mesh.client.clone().generate(request).await.unwrap();
    assert_eq!(response.metadata().get("x-request-id").unwrap(), "from-ray");
    let first = response.into_inner().message().await.unwrap().unwrap().event;
    assert!(matches!(first, Some(Event::Accepted(accepted)) if accepted.request_id == "from-ray"));
}

#[tokio::test]
async fn a_draining_proxy_finishes_what_it_has() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 1).await;
    worker.will(Act::Hang);
    let mut first = mesh.generate(prompt(|_| ())).await;
    first.started().await;
    let mut second = mesh.generate(prompt(|r| r.seeds = vec![5])).await;
    assert!(matches!(second.next().await.unwrap(), Some(Event::Accepted(_))));
    mesh.stop.trigger();
    drop(first);
    let mut seen = Vec::new();
    while let Some(event) = second.next().await.unwrap() {
        seen.push(event);
    }
    assert_eq!(images(&seen)[0].data.to_vec(), picture(5));
    soon("the end", mesh.proxy).await.unwrap().unwrap();
}
