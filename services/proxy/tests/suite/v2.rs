//! The Open Inference Protocol over real sockets: both doors, streams, counts, and what is refused how. `tritonclient` itself
//! is run against a whole mesh, in `e2e`.

mod http;
mod stream;

use crate::support::{Act, Mesh, Worker, encoded, picture, png, soon};
use bytes::Bytes;
use mobula_proto::oip::{
    InferParameter, InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelReadyRequest, ModelStatistics, ModelStatisticsRequest, RepositoryIndexRequest,
    RepositoryModelLoadRequest, RepositoryModelUnloadRequest, ServerReadyRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use mobula_proxy::Config;
use tonic::{Code, Request, transport::Channel};

fn config() -> Config {
    Config {
        no_replica_timeout_s: 10.0,
        ..Config::default()
    }
}

fn client(mesh: &Mesh) -> GrpcInferenceServiceClient<Channel> {
    let channel = mobula_kit::channel::lazy(&mesh.grpc.to_string()).unwrap();
    GrpcInferenceServiceClient::new(channel).max_decoding_message_size(64 << 20)
}

fn tensor(name: &str, datatype: &str, shape: &[i64], contents: InferTensorContents) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.into(),
        contents: Some(contents),
        ..Default::default()
    }
}

fn texts(name: &str, texts: &[&str]) -> InferInputTensor {
    let contents = InferTensorContents {
        bytes_contents: texts
            .iter()
            .map(|text| Bytes::copy_from_slice(text.as_bytes()))
            .collect(),
        ..Default::default()
    };
    tensor(name, "BYTES", &[texts.len() as i64], contents)
}

fn int64(name: &str, values: &[i64]) -> InferInputTensor {
    let contents = InferTensorContents {
        int64_contents: values.to_vec(),
        ..Default::default()
    };
    tensor(name, "INT64", &[values.len() as i64], contents)
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter {
        parameter_choice: Some(choice),
    }
}

/// A request of the model `demo` for a prompt with a seed.
pub(crate) fn ask(id: &str, prompt: &str, seed: i64) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "demo".into(),
        id: id.into(),
        inputs: vec![texts("prompt", &[prompt]), int64("seed", &[seed])],
        ..Default::default()
    }
}

fn says(answer: &ModelInferResponse, name: &str) -> Option<ParameterChoice> {
    answer.parameters.get(name)?.parameter_choice.clone()
}

/// An output's shape and its raw bytes.
fn output(answer: &ModelInferResponse, name: &str) -> (Vec<i64>, Vec<u8>) {
    let nth = answer
        .outputs
        .iter()
        .position(|output| output.name == name)
        .unwrap();
    (
        answer.outputs[nth].shape.clone(),
        answer.raw_output_contents[nth].to_vec(),
    )
}

/// Elements of a raw BYTES tensor.
fn elements(mut raw: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((length, rest)) = raw.split_first_chunk::<4>() {
        let (one, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        all.push(one.to_vec());
        raw = rest;
    }
    all
}

async fn statistics(mesh: &Mesh) -> ModelStatistics {
    let asked = ModelStatisticsRequest {
        name: "demo".into(),
        ..Default::default()
    };
    let told = client(mesh).model_statistics(asked).await.unwrap().into_inner();
    told.model_stats.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_pipeline_answers_prompts_with_pictures_and_their_seeds() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let mut request = ask("my id", "a red circle", 42);
    request.inputs.push(texts("init_image", &[""]));
    request
        .inputs
        .last_mut()
        .unwrap()
        .contents
        .as_mut()
        .unwrap()
        .bytes_contents = vec![png(128, 128)];
    let parameters = [
        ("steps", ParameterChoice::Int64Param(4)),
        ("guidance_scale", ParameterChoice::DoubleParam(2.5)),
        ("scheduler", ParameterChoice::StringParam("euler_a".into())),
        ("strength", ParameterChoice::DoubleParam(0.5)),
        ("priority", ParameterChoice::Uint64Param(1)),
    ];
    request.parameters = parameters
        .map(|(name, choice)| (name.into(), parameter(choice)))
        .into();
    let mut request = Request::new(request);
    request
        .metadata_mut()
        .insert("x-request-id", "mine".parse().unwrap());
    let answer = client(&mesh).model_infer(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine");
    let answer = answer.into_inner();
    assert_eq!(
        (&*answer.model_name, &*answer.model_version, &*answer.id),
        ("demo", "1", "my id")
    );
    let (shape, image) = output(&answer, "image");
    assert_eq!((shape, elements(&image)), (vec![1], vec![picture(42)]));
    assert_eq!(output(&answer, "seed"), (vec![1], 42u64.to_le_bytes().to_vec()));
    assert_eq!(says(&answer, "steps"), Some(ParameterChoice::Int64Param(4)));
    assert_eq!(says(&answer, "denoise_us"), Some(ParameterChoice::Int64Param(7)));
    let asked = &worker.requests()[0];
    assert_eq!(
        (asked.steps, asked.guidance_scale, &*asked.scheduler),
        (4, 2.5, "euler_a")
    );
    assert_eq!(
        (asked.strength, asked.priority, &*asked.request_id),
        (0.5, 3, "mine")
    );
    assert_eq!(asked.prompt, Some(encoded("a red circle")));
}

#[tokio::test]
async fn several_prompts_are_one_row_of_pictures_or_of_pixels() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let mut request = ask("", "", 0);
    request.inputs = vec![
        texts("prompt", &["one", "two"]),
        int64("seed", &[1, 2, 3, 4]),
        int64("width", &[64]),
        int64("height", &[32]),
    ];
    let answer = client(&mesh)
        .model_infer(request.clone())
        .await
        .unwrap()
        .into_inner();
    let (shape, image) = output(&answer, "image");
    assert_eq!(
        (shape, elements(&image)),
        (vec![4], [1, 2, 3, 4].map(picture).to_vec())
    );
    let wanted = |name: &str| InferRequestedOutputTensor {
        name: name.into(),
        ..Default::default()
    };
    request.outputs = vec![wanted("pixels"), wanted("seed")];
    let answer = client(&mesh).model_infer(request).await.unwrap().into_inner();
    let names: Vec<_> = answer
        .outputs
        .iter()
        .map(|output| (&*output.name, &*output.datatype))
        .collect();
    assert_eq!(names, [("pixels", "UINT8"), ("seed", "UINT64")]);
    let (shape, pixels) = output(&answer, "pixels");
    assert_eq!(
        (shape, pixels),
        (vec![4, 32, 64, 3], vec![7; 4 * 32 * 64 * 3]),
        "what the fake makes of a file"
    );
    let files = mesh.prepared.files.lock().unwrap().clone();
    let mut decoded: Vec<_> = files.iter().map(|file| file.data.to_vec()).collect();
    decoded.sort();
    assert_eq!(decoded, [1, 2, 3, 4].map(picture));
}

#[tokio::test]
async fn what_is_wrong_is_told_by_its_name_before_anything_is_drawn() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let with = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = ask("", "a", 1);
        change(&mut request);
        request
    };
    for (request, code, words) in [
        (
            with(&|r| r.model_name = "other".into()),
            Code::NotFound,
            "there is no model \"other\"; there are: demo",
        ),
        (
            with(&|r| r.model_version = "2".into()),
            Code::NotFound,
            "demo has version 1 and no other",
        ),
        (
            with(&|r| r.model_name.clear()),
            Code::InvalidArgument,
            "model: name one of demo",
        ),
        (
            with(&|r| r.inputs.push(texts("promt", &["a"]))),
            Code::InvalidArgument,
            "promt: is not known",
        ),
        (
            with(&|r| r.inputs[1].datatype = "INT33".into()),
            Code::InvalidArgument,
            "seed: has datatype \"INT33\"",
        ),
        (
            with(&|r| r.inputs[1].shape = vec![2]),
            Code::InvalidArgument,
            "seed: has 1 values in int64_contents",
        ),
        (
            with(&|r| r.inputs.push(int64("width", &[100]))),
            Code::InvalidArgument,
            "width: is 100 and must be a multiple of 8",
        ),
        (
            with(&|r| r.inputs.push(int64("seed", &[1]))),
            Code::InvalidArgument,
            "seed: is given twice",
        ),
        (
            with(&|r| {
                let refiner = parameter(ParameterChoice::StringParam("none".into()));
                r.parameters.insert("refiner".into(), refiner);
            }),
            Code::InvalidArgument,
            "refiner: must be one of",
        ),
        (
            with(&|r| {
                r.parameters
                    .insert("progress".into(), parameter(ParameterChoice::BoolParam(true)));
            }),
            Code::InvalidArgument,
            "progress: needs ModelStreamInfer",
        ),
    ] {
        let status = client(&mesh).model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(
            status.message().starts_with(words),
            "{} / {words}",
            status.message()
        );
    }
    assert!(worker.requests().is_empty());
    let mut late = ask("", "a", 1);
    late.parameters
        .insert("timeout".into(), parameter(ParameterChoice::Int64Param(1)));
    let status = client(&mesh).model_infer(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn models_are_described_listed_and_ready() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let mut client = client(&mesh);
    let name = || "demo".to_owned();
    assert!(
        client
            .server_ready(ServerReadyRequest {})
            .await
            .unwrap()
            .into_inner()
            .ready
    );
    for (model, is_ready) in [("demo", true), ("other", false)] {
        let asked = ModelReadyRequest {
            name: model.into(),
            ..Default::default()
        };
        assert_eq!(
            client.model_ready(asked).await.unwrap().into_inner().ready,
            is_ready
        );
    }
    let asked = ModelMetadataRequest {
        name: name(),
        version: "1".into(),
    };
    let metadata = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!(
        (&*metadata.platform, metadata.versions),
        ("StableDiffusionPipeline", vec!["1".to_owned()])
    );
    let prompt = &metadata.inputs[0];
    assert_eq!(
        (&*prompt.name, &*prompt.datatype, &prompt.shape[..]),
        ("prompt", "BYTES", &[-1][..])
    );
    assert_eq!(metadata.outputs.len(), 3);
    let asked = ModelConfigRequest {
        name: name(),
        ..Default::default()
    };
    let config = client
        .model_config(asked)
        .await
        .unwrap()
        .into_inner()
        .config
        .unwrap();
    assert_eq!(config.parameters["default_steps"].string_value, "20");
    let batching = config.dynamic_batching.unwrap();
    assert_eq!(batching.priority_levels, 3);
    let policy = batching.default_queue_policy.unwrap();
    assert_eq!(
        policy.default_timeout_microseconds, 3_600_000_000,
        "the proxy's own bound"
    );
    assert_eq!(config.max_batch_size, 0);
    let index = client
        .repository_index(RepositoryIndexRequest::default())
        .await
        .unwrap()
        .into_inner();
    let listed: Vec<_> = index.models.iter().map(|m| (&*m.name, &*m.state)).collect();
    assert_eq!(listed[0], ("demo", "READY"));
    let load = RepositoryModelLoadRequest {
        model_name: name(),
        ..Default::default()
    };
    client.repository_model_load(load).await.unwrap();
    let unload = RepositoryModelUnloadRequest::default();
    let status = client.repository_model_unload(unload).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("mobula delete"), "{status:?}");
}

#[tokio::test]
async fn requests_of_every_door_are_counted() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    assert_eq!(statistics(&mesh).await.execution_count, 0);
    client(&mesh).model_infer(ask("", "a", 1)).await.unwrap();
    let two = crate::support::prompt(|r| r.seeds = vec![1, 2]);
    mesh.all(two).await.unwrap();
    worker.will(Act::Refuse(tonic::Status::internal("broken")));
    assert!(client(&mesh).model_infer(ask("", "a", 1)).await.is_err());
    let told = statistics(&mesh).await;
    assert_eq!((told.inference_count, told.execution_count), (3, 2));
    assert!(told.last_inference > 1_700_000_000_000);
    let parts = told.inference_stats.unwrap();
    assert_eq!(parts.success.unwrap().count, 2);
    assert_eq!(parts.fail.unwrap().count, 1);
    assert_eq!(
        parts.compute_infer.unwrap().ns,
        14_000,
        "what the fake says of two requests"
    );
    assert!(parts.queue.unwrap().ns + parts.compute_input.unwrap().ns <= parts.success.unwrap().ns);
    let sizes: Vec<_> = told.batch_stats.iter().map(|size| size.batch_size).collect();
    assert_eq!(sizes, [1, 2]);
}

#[tokio::test]
async fn a_caller_who_leaves_ends_its_request() {
    let mut worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    worker.will(Act::Hang);
    let mut client = client(&mesh);
    let call = tokio::spawn(async move { client.model_infer(ask("", "a", 1)).await.map(|_| ()) });
    soon("the call", worker.called.recv()).await.unwrap();
    call.abort();
    soon("the end", worker.dropped.recv()).await.unwrap();
}

#[tokio::test]
async fn a_stage_is_a_model_of_its_own() {
    let worker = Worker::start("a").await;
    let mesh = Mesh::start(config(), &[&worker], 4).await;
    let mut request = ask("7", "abc", 1);
    request.model_name = "demo.tokenize".into();
    request.inputs.pop();
    let answer = client(&mesh)
        .model_infer(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((&*answer.model_name, &*answer.id), ("demo.tokenize", "7"));
    let (shape, ids) = output(&answer, "input_ids");
    let told: Vec<u8> = b"abc"
        .iter()
        .flat_map(|byte| i64::from(*byte).to_le_bytes())
        .collect();
    assert_eq!(
        (shape, ids),
        (vec![1, 1, 3], told),
        "the fake makes tokens of bytes"
    );
    let (shape, weights) = output(&answer, "weights");
    assert_eq!((shape, weights), (vec![1, 1, 3], 1f32.to_le_bytes().repeat(3)));
    request.inputs[0] = texts("prompt", &["a@5|b"]);
    let status = client(&mesh).model_infer(request.clone()).await.unwrap_err();
    assert!(
        status.message().starts_with("prompt: changes with the steps"),
        "{status:?}"
    );
    request.model_name = "demo.unet".into();
    let status = client(&mesh).model_infer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let asked = ModelStatisticsRequest {
        name: "demo.tokenize".into(),
        ..Default::default()
    };
    let told = client(&mesh).model_statistics(asked).await.unwrap().into_inner();
    let told = &told.model_stats[0];
    assert_eq!(
        (&*told.name, told.execution_count, told.inference_count),
        ("demo.tokenize", 1, 1)
    );
    assert_eq!(told.inference_stats.unwrap().fail.unwrap().count, 1);
    assert_eq!(
        statistics(&mesh).await.execution_count,
        0,
        "the pipeline has drawn nothing"
    );
    assert!(worker.requests().is_empty());
}
