//! The stages of the Open Inference Protocol, one after the other: what they give is the whole pipeline's picture, to the byte,
//! whether one deployment has all of them or the application is split.

use std::collections::BTreeMap;

use anyhow::Context;
use bytes::Bytes;
use mobula_e2e::{Mesh, demo_model};
use mobula_kit::channel;
use mobula_proto::oip::grpc_inference_service_client::GrpcInferenceServiceClient;
use mobula_proto::oip::infer_parameter::ParameterChoice;
use mobula_proto::oip::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use mobula_proto::oip::{InferParameter, ModelInferRequest, ModelStatisticsRequest, RepositoryIndexRequest};
use tonic::transport::Channel;

use super::split::right_half;

/// Fewer than the default, because debug builds of the numerics are slow; the contracts do not depend on it.
const STEPS: i64 = 3;
const SEED: i64 = 7;
/// Of the demo model's pictures.
const SIDE: u32 = 128;
/// The application of every mesh here.
const MODEL: &str = "e2e";
const STAGES: [&str; 5] = [
    "tokenize",
    "text_encoder",
    "denoiser",
    "vae_decoder",
    "vae_encoder",
];

/// A tensor as it travels.
#[derive(Clone, Debug, PartialEq)]
struct Tensor {
    datatype: String,
    shape: Vec<i64>,
    data: Bytes,
}

impl Tensor {
    fn texts(texts: &[&str]) -> Self {
        let each = texts.iter().flat_map(|text| {
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            length.to_le_bytes().into_iter().chain(text.bytes())
        });
        Self {
            datatype: "BYTES".into(),
            shape: vec![texts.len() as i64],
            data: each.collect(),
        }
    }

    fn file(file: &Bytes) -> Self {
        let length = u32::try_from(file.len()).unwrap_or(u32::MAX).to_le_bytes();
        Self {
            datatype: "BYTES".into(),
            shape: vec![1],
            data: [&length[..], file].concat().into(),
        }
    }

    /// The n-th of what stands in it side by side.
    fn nth(&self, n: usize) -> Self {
        let size = self.data.len() / self.shape[0] as usize;
        Self {
            shape: match &self.shape[1..] {
                [] => vec![1],
                rest => rest.to_vec(),
            },
            data: self.data.slice(n * size..(n + 1) * size),
            ..self.clone()
        }
    }

    /// The only file in it.
    fn only_file(&self) -> Bytes {
        self.data.slice(4..)
    }
}

type Tensors = BTreeMap<String, Tensor>;

fn number(value: i64) -> ParameterChoice {
    ParameterChoice::Int64Param(value)
}

fn text(value: &str) -> ParameterChoice {
    ParameterChoice::StringParam(value.into())
}

/// What is asked of a model: its tensors and its parameters.
#[derive(Default)]
struct Ask<'a> {
    inputs: Vec<(String, Tensor)>,
    parameters: Vec<(&'a str, ParameterChoice)>,
    outputs: &'a [&'a str],
}

struct Client(GrpcInferenceServiceClient<Channel>);

impl Client {
    fn of(mesh: &Mesh) -> anyhow::Result<Self> {
        let client = GrpcInferenceServiceClient::new(channel::lazy(&mesh.grpc().to_string())?);
        Ok(Self(client.max_decoding_message_size(64 << 20)))
    }

    /// The outputs of a model, and the parameter `emphasis` of its answer.
    async fn infer(&self, model: &str, ask: Ask<'_>) -> anyhow::Result<(Tensors, Option<ParameterChoice>)> {
        let input = |(name, tensor): &(String, Tensor)| InferInputTensor {
            name: name.clone(),
            datatype: tensor.datatype.clone(),
            shape: tensor.shape.clone(),
            ..Default::default()
        };
        let output = |name: &&str| InferRequestedOutputTensor {
            name: (*name).into(),
            ..Default::default()
        };
        let parameter = |(name, choice): (&str, ParameterChoice)| {
            let parameter_choice = Some(choice);
            (name.to_owned(), InferParameter { parameter_choice })
        };
        let request = ModelInferRequest {
            model_name: model.into(),
            inputs: ask.inputs.iter().map(input).collect(),
            outputs: ask.outputs.iter().map(output).collect(),
            parameters: ask.parameters.into_iter().map(parameter).collect(),
            raw_input_contents: ask.inputs.into_iter().map(|(_, tensor)| tensor.data).collect(),
            ..Default::default()
        };
        let mut answer = self
            .0
            .clone()
            .model_infer(request)
            .await
            .context(model.to_owned())?
            .into_inner();
        let emphasis = answer
            .parameters
            .remove("emphasis")
            .and_then(|told| told.parameter_choice);
        let outputs = answer.outputs.into_iter().zip(answer.raw_output_contents);
        let tensors = outputs.map(|(output, data)| {
            let tensor = Tensor {
                datatype: output.datatype,
                shape: output.shape,
                data,
            };
            (output.name, tensor)
        });
        Ok((tensors.collect(), emphasis))
    }

    async fn stage(&self, stage: &str, ask: Ask<'_>) -> anyhow::Result<(Tensors, Option<ParameterChoice>)> {
        self.infer(&format!("{MODEL}.{stage}"), ask).await
    }

    /// What the text encoder makes of windows.
    async fn states(&self, ids: &Tensor) -> anyhow::Result<Tensor> {
        let ask = Ask {
            inputs: vec![("input_ids".into(), ids.clone())],
            ..Ask::default()
        };
        let (mut encoded, _) = self.stage("text_encoder", ask).await?;
        encoded.remove("hidden_states").context("states")
    }

    /// Everything that the denoiser takes of a prompt and what is not to be drawn.
    async fn texts<'a>(&self, of: &Kind<'_>) -> anyhow::Result<Ask<'a>> {
        let ask = Ask {
            inputs: vec![("prompt".into(), Tensor::texts(&[of.prompt, of.negative]))],
            parameters: vec![("prompt_syntax", text(of.syntax))],
            ..Ask::default()
        };
        let (tokens, emphasis) = self.stage("tokenize", ask).await?;
        anyhow::ensure!(
            emphasis == of.emphasis.map(text),
            "{emphasis:?} of {}, expected {:?}",
            of.prompt,
            of.emphasis
        );
        let mut inputs = Vec::new();
        for (nth, start) in ["", "negative_"].into_iter().enumerate() {
            let ids = tokens["input_ids"].nth(nth);
            inputs.push((format!("{start}hidden_states"), self.states(&ids).await?));
            inputs.push((format!("{start}input_ids"), ids));
            inputs.push((format!("{start}weights"), tokens["weights"].nth(nth)));
            inputs.push((format!("{start}is_empty"), tokens["is_empty"].nth(nth)));
            if let Some(ids) = tokens.get("empty_input_ids") {
                inputs.push((format!("{start}empty_hidden_states"), self.states(ids).await?));
                inputs.push((format!("{start}empty_input_ids"), ids.clone()));
            }
        }
        let parameters = emphasis.map(|emphasis| ("emphasis", emphasis));
        Ok(Ask {
            inputs,
            parameters: parameters.into_iter().collect(),
            ..Ask::default()
        })
    }

    /// A picture's latents as a file that says nothing, or as pixels.
    async fn decoded(&self, latents: Tensor, output: &'static str) -> anyhow::Result<Tensor> {
        let outputs = [output];
        let ask = Ask {
            inputs: vec![("latents".into(), latents)],
            parameters: vec![("provenance", text("none"))],
            outputs: &outputs,
        };
        let (mut drawn, _) = self.stage("vae_decoder", ask).await?;
        drawn.remove(output).context(output)
    }

    /// The file that the stages draw one after the other, and its pixels.
    async fn staged(&self, of: &Kind<'_>, from: Option<&From>) -> anyhow::Result<(Bytes, Tensor)> {
        let mut ask = self.texts(of).await?;
        ask.parameters
            .extend([("steps", number(STEPS)), ("seed", number(SEED))]);
        if let Some(from) = from {
            let mask = from
                .mask
                .iter()
                .map(|(_, mask)| ("mask".to_owned(), mask.clone()));
            let mut picture = Ask {
                inputs: vec![("pixels".into(), from.pixels.clone())],
                ..Ask::default()
            };
            picture.inputs.extend(mask.clone());
            let (moments, _) = self.stage("vae_encoder", picture).await?;
            ask.inputs.extend(moments);
            ask.inputs.extend(mask);
            ask.parameters
                .push(("strength", ParameterChoice::DoubleParam(0.5)));
        }
        let (mut denoised, _) = self.stage("denoiser", ask).await?;
        let latents = denoised.remove("latents").context("latents")?;
        let file = self.decoded(latents.clone(), "image").await?.only_file();
        Ok((file, self.decoded(latents, "pixels").await?.nth(0)))
    }

    /// The file that the pipeline draws.
    async fn piped(&self, of: &Kind<'_>, from: Option<&From>) -> anyhow::Result<Bytes> {
        let mut ask = Ask {
            inputs: vec![
                ("prompt".into(), Tensor::texts(&[of.prompt])),
                ("negative_prompt".into(), Tensor::texts(&[of.negative])),
            ],
            parameters: vec![
                ("prompt_syntax", text(of.syntax)),
                ("steps", number(STEPS)),
                ("seed", number(SEED)),
                ("provenance", text("none")),
            ],
            ..Ask::default()
        };
        if let Some(from) = from {
            ask.inputs.push(("init_image".into(), Tensor::file(&from.file)));
            let mask = from
                .mask
                .iter()
                .map(|(file, _)| ("mask_image".to_owned(), Tensor::file(file)));
            ask.inputs.extend(mask);
            ask.parameters
                .push(("strength", ParameterChoice::DoubleParam(0.5)));
        }
        let (drawn, _) = self.infer(MODEL, ask).await?;
        Ok(drawn["image"].only_file())
    }

    /// Every stage is listed, ready and counted.
    async fn lists_stages(&self) -> anyhow::Result<()> {
        let mut client = self.0.clone();
        let index = client
            .repository_index(RepositoryIndexRequest::default())
            .await?
            .into_inner();
        for stage in STAGES {
            let name = format!("{MODEL}.{stage}");
            let listed = index.models.iter().find(|model| model.name == name);
            anyhow::ensure!(
                listed.is_some_and(|model| model.state == "READY"),
                "{name}: {listed:?}"
            );
            let asked = ModelStatisticsRequest {
                name: name.clone(),
                ..Default::default()
            };
            let counted = client.model_statistics(asked).await?.into_inner().model_stats;
            anyhow::ensure!(counted[0].execution_count > 0, "{name}: {counted:?}");
        }
        Ok(())
    }
}

/// A picture to start from, and what of it is drawn anew: each as a file and as pixels.
struct From {
    file: Bytes,
    pixels: Tensor,
    mask: Option<(Bytes, Tensor)>,
}

/// A mask of a square of which the right half is drawn anew.
fn mask() -> anyhow::Result<(Bytes, Tensor)> {
    let row: Vec<u8> = (0..SIDE)
        .map(|column| if column < SIDE / 2 { 0 } else { 255 })
        .collect();
    let pixels = Tensor {
        datatype: "UINT8".into(),
        shape: vec![SIDE.into(), SIDE.into()],
        data: row.repeat(SIDE as usize).into(),
    };
    Ok((right_half(SIDE)?, pixels))
}

/// A prompt, and what it means.
struct Kind<'a> {
    prompt: &'a str,
    negative: &'a str,
    syntax: &'a str,
    /// What its weights do.
    emphasis: Option<&'a str>,
}

const fn kind<'a>(texts: [&'a str; 2], syntax: &'a str, emphasis: Option<&'a str>) -> Kind<'a> {
    Kind {
        prompt: texts[0],
        negative: texts[1],
        syntax,
        emphasis,
    }
}

const RED: &str = "a red circle on a blue background";
const KINDS: [Kind<'_>; 5] = [
    kind([RED, ""], "plain", None),
    kind(
        ["a (red:1.4) circle on a [blue] background", "green"],
        "a1111",
        Some("mean"),
    ),
    kind(
        ["a red++ circle on a blue background", "green"],
        "compel",
        Some("empty"),
    ),
    kind([RED, "(green square)1.5"], "compel", Some("empty")),
    kind([RED, "green"], "compel", None),
];

#[tokio::test]
async fn stages_one_after_the_other_draw_what_the_pipeline_and_a_split_application_draw() -> anyhow::Result<()>
{
    let model = demo_model()?;
    let whole = Mesh::builder().model(&model).start().await?;
    let split = Mesh::builder().model(&model).split().start().await?;
    let clients = [Client::of(&whole)?, Client::of(&split)?];
    let mut files = Vec::new();
    for kind in &KINDS {
        let expected = clients[0].piped(kind, None).await?;
        for (client, which) in clients.iter().zip(["whole", "split"]) {
            let (file, _) = client.staged(kind, None).await?;
            assert_eq!(file, expected, "the stages of the {which} one: {}", kind.prompt);
        }
        let piped = clients[1].piped(kind, None).await?;
        assert_eq!(piped, expected, "the split one: {}", kind.prompt);
        files.push(expected);
    }
    assert_ne!(files[0], files[2], "weights change what is drawn");
    assert_ne!(files[3], files[4]);

    // From a picture, and into one, too.
    let (file, pixels) = clients[0].staged(&KINDS[0], None).await?;
    let mut from = From {
        file,
        pixels,
        mask: None,
    };
    let mut drawn = Vec::new();
    for mask in [None, Some(mask()?)] {
        from.mask = mask;
        let expected = clients[0].piped(&KINDS[2], Some(&from)).await?;
        for client in &clients {
            let (file, _) = client.staged(&KINDS[2], Some(&from)).await?;
            assert_eq!(file, expected, "masked: {}", from.mask.is_some());
        }
        drawn.push(expected);
    }
    assert_ne!(drawn[0], drawn[1], "the mask keeps a half");
    for client in &clients {
        client.lists_stages().await?;
    }
    drop(clients);
    whole.stop().await?;
    split.stop().await
}
