//! A replica of a preprocess deployment: one model's tokenizers and embeddings.
//!
//! Refuses what is meant for another kind of worker, and options: it knows none. Invariant: a replica that was loaded can
//! tokenize; nothing makes it fail later.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use mobula_kit::{
    async_trait, chain,
    worker::{self, Failure, Load, ModelInfo, Multiplexed, ReplicaSpec, WorkerKind},
};

use tokio::{sync::OnceCell, time::Instant};

use crate::{
    Error, Model,
    prompt::{self, Ask, Limits, Syntax},
    tokenizer::FAKE,
};

/// Loads tokenizers.
#[derive(Debug, Default)]
pub struct Loader {
    /// Where relative model folders are; the working folder otherwise.
    models_dir: Option<PathBuf>,
    /// What a specification without a model means.
    default: Option<String>,
}

impl Loader {
    /// Makes a loader that finds relative model folders in `models_dir`, and takes `default` where none is named.
    #[must_use]
    pub fn new(models_dir: Option<PathBuf>, default: Option<String>) -> Self {
        Self { models_dir, default }
    }

    /// A model's folder, as this service finds it.
    fn folder(&self, model: &str) -> Result<PathBuf, String> {
        match worker::model_name(self.default.as_deref(), model) {
            FAKE => Ok(FAKE.into()),
            model => worker::model_folder(self.models_dir.as_deref(), model),
        }
    }
}

/// A loaded model, as far as texts go, and those that it serves on demand.
#[derive(Debug)]
pub struct Replica {
    /// Shared with the jobs of the pool.
    model: Arc<Model>,
    /// By id, each loaded when it is first asked for and kept: a tokenizer takes some megabytes.
    on_demand: BTreeMap<String, (PathBuf, OnceCell<Arc<Model>>)>,
    /// Where there are any.
    metrics: Option<Multiplexed>,
}

impl Replica {
    /// One of its models by id; its own for none.
    pub(crate) async fn model(&self, id: &str) -> Result<Arc<Model>, Error> {
        if id.is_empty() {
            return Ok(Arc::clone(&self.model));
        }
        let (folder, cell) = self.on_demand.get(id).ok_or_else(|| self.unknown(id))?;
        if let Some(metrics) = &self.metrics {
            metrics.asked();
        }
        let model = cell
            .get_or_try_init(|| async {
                let (folder, begun) = (folder.clone(), Instant::now());
                let loading = tokio::task::spawn_blocking(move || load(&folder));
                let model = loading.await.map_err(|_| Error::Panicked).flatten()?;
                if let Some(metrics) = &self.metrics {
                    metrics.loaded(id, begun.elapsed());
                }
                Ok::<_, Error>(model)
            })
            .await?;
        Ok(Arc::clone(model))
    }

    fn unknown(&self, id: &str) -> Error {
        let known: Vec<&str> = self.on_demand.keys().map(String::as_str).collect();
        let why = match known.is_empty() {
            true => format!("is {id:?}, and this replica has one model only; leave it out"),
            false => format!(
                "is {id:?}, which this replica does not serve; it serves {}",
                known.join(", ")
            ),
        };
        Error::Invalid {
            field: "model_id".into(),
            why,
        }
    }
}

#[async_trait]
impl worker::Loader for Loader {
    type Replica = Replica;

    async fn load(&self, spec: &ReplicaSpec) -> Result<Replica, Failure> {
        check(spec).map_err(failure)?;
        let folder = self.folder(&spec.model).map_err(Failure::permanent)?;
        let loading = tokio::task::spawn_blocking(move || load(&folder));
        let model = loading.await.map_err(|_| Error::Panicked).flatten();
        let mut on_demand = BTreeMap::new();
        for (id, folder) in &spec.models {
            let folder = self.folder(folder).map_err(Failure::permanent)?;
            on_demand.insert(id.clone(), (folder, OnceCell::new()));
        }
        Ok(Replica {
            model: model.map_err(failure)?,
            metrics: (!on_demand.is_empty()).then(|| Multiplexed::new(spec)),
            on_demand,
        })
    }
}

/// What the controller is told.
fn failure(error: Error) -> Failure {
    Failure {
        permanent: error.is_permanent(),
        why: chain(&error),
    }
}

/// Refuses a specification that this service cannot serve.
fn check(spec: &ReplicaSpec) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Specification(why));
    if spec.kind() != WorkerKind::Preprocess {
        return refuse(format!(
            "a preprocess worker cannot run a replica of kind {}",
            spec.kind().as_str_name()
        ));
    }
    let mut options: Vec<&str> = spec.options.keys().map(String::as_str).collect();
    if !options.is_empty() {
        options.sort_unstable();
        return refuse(format!(
            "a tokenizer has no options, but these are given: {}",
            options.join(", ")
        ));
    }
    Ok(())
}

fn load(folder: &Path) -> Result<Arc<Model>, Error> {
    let model = Model::load(folder)?;
    // A first text touches every table, so that the first request does not wait for them.
    prompt::tokenize(
        &model,
        Ask {
            texts: &["a photo of an astronaut riding a horse on mars".into()],
            syntax: Syntax::Plain,
            steps: 1,
            limits: Limits::default(),
        },
    )?;
    Ok(Arc::new(model))
}

impl worker::Replica for Replica {
    fn load(&self) -> Load {
        // Tokenizing takes microseconds: the number of requests, which the table counts, says it all.
        Load::default()
    }

    fn model(&self) -> Option<ModelInfo> {
        None
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    /// The tables go with the last request that uses them.
    fn retire(&self) {}
}

#[cfg(test)]
mod tests {
    use mobula_kit::worker::Loader as _;

    use super::*;

    fn spec(model: &str) -> ReplicaSpec {
        ReplicaSpec {
            kind: WorkerKind::Preprocess.into(),
            model: model.into(),
            ..ReplicaSpec::default()
        }
    }

    #[tokio::test]
    async fn a_folder_without_a_tokenizer_says_what_is_missing() {
        let model = tempfile::tempdir().unwrap();
        let path = model.path().to_str().unwrap();
        let why = Loader::default().load(&spec(path)).await.unwrap_err().why;
        assert_eq!(
            why,
            format!(
                "no tokenizer in {path}/tokenizer: vocab.json with merges.txt, or tokenizer.json, is needed"
            )
        );
    }

    #[tokio::test]
    async fn a_broken_file_is_named() {
        let model = tempfile::tempdir().unwrap();
        let folder = model.path().join("tokenizer");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("vocab.json"), "{\"a\": ").unwrap();
        let load = || async {
            Loader::default()
                .load(&spec(model.path().to_str().unwrap()))
                .await
                .unwrap_err()
                .why
        };
        assert!(
            load().await.contains("vocab.json cannot be used: EOF"),
            "{}",
            load().await
        );
        std::fs::write(folder.join("vocab.json"), "{\"a\": 0}").unwrap();
        assert!(
            load().await.contains("merges.txt: No such file"),
            "{}",
            load().await
        );
        std::fs::write(folder.join("merges.txt"), "#version: 0.2\n").unwrap();
        std::fs::write(folder.join("tokenizer_config.json"), r#"{"pad_token": null}"#).unwrap();
        let why = load().await;
        assert!(
            why.ends_with("tokenizer_config.json cannot be used: pad_token is null"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_tokenizer_of_another_model_is_refused() {
        let model = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = model.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "tokenizer/vocab.json",
            r#"{"a</w>": 0, "<|startoftext|>": 49406, "<|endoftext|>": 49407}"#,
        );
        write("tokenizer/merges.txt", "#version: 0.2\n");
        let load = |text: &'static str| {
            write("text_encoder/config.json", text);
            let spec = spec(model.path().to_str().unwrap());
            async move { Loader::default().load(&spec).await }
        };
        assert!(
            load(r#"{"vocab_size": 49408, "max_position_embeddings": 77}"#)
                .await
                .is_ok()
        );
        let why = load(r#"{"vocab_size": 49407}"#).await.unwrap_err().why;
        assert!(
            why.contains("token id 49407") && why.contains("vocab_size 49407"),
            "{why}"
        );
        let why = load(r#"{"max_position_embeddings": 248}"#).await.unwrap_err().why;
        assert!(
            why.contains("is 77") && why.contains("max_position_embeddings 248"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_relative_folder_is_found_in_the_models_folder_and_fake_needs_none() {
        let loader = Loader::new(Some("/nowhere".into()), None);
        assert!(
            loader
                .load(&spec("demo"))
                .await
                .unwrap_err()
                .why
                .contains("/nowhere/demo/tokenizer")
        );
        assert!(loader.load(&spec(FAKE)).await.is_ok());
    }

    #[tokio::test]
    async fn a_specification_without_a_model_means_the_workers_default() {
        let why = Loader::default().load(&spec("")).await.unwrap_err();
        assert!(why.why.contains("--default-model"), "{why}");
        let loader = Loader::new(Some("/nowhere".into()), Some("demo".into()));
        let why = loader.load(&spec("")).await.unwrap_err();
        assert!(why.why.contains("/nowhere/demo/tokenizer"), "{why}");
        assert!(Loader::new(None, Some(FAKE.into())).load(&spec("")).await.is_ok());
    }

    #[tokio::test]
    async fn another_kind_of_tokenizer_is_refused_by_name() {
        let model = tempfile::tempdir().unwrap();
        let index = r#"{"tokenizer": ["transformers", "T5TokenizerFast"]}"#;
        std::fs::write(model.path().join("model_index.json"), index).unwrap();
        let why = Loader::default()
            .load(&spec(model.path().to_str().unwrap()))
            .await
            .unwrap_err()
            .why;
        assert!(why.contains("needs a T5TokenizerFast"), "{why}");
    }

    #[tokio::test]
    async fn what_is_not_for_a_preprocess_worker_is_refused() {
        let inference = ReplicaSpec {
            kind: WorkerKind::Inference.into(),
            ..spec("fake")
        };
        assert!(
            Loader::default()
                .load(&inference)
                .await
                .unwrap_err()
                .why
                .contains("WORKER_KIND_INFERENCE")
        );
        let options = [("row_us".to_owned(), "5".to_owned())].into();
        let options = ReplicaSpec {
            options,
            ..spec("fake")
        };
        assert!(
            Loader::default()
                .load(&options)
                .await
                .unwrap_err()
                .why
                .contains("row_us")
        );
        assert!(
            Loader::default()
                .load(&spec(""))
                .await
                .unwrap_err()
                .why
                .contains("no model folder")
        );
    }
}
