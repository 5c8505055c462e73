//! Where a replica's model is: named, or the worker's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The file that makes a folder a model (diffusers).
const INDEX: &str = "model_index.json";

/// The model that a specification means: the one that it names, or else the worker's default.
#[must_use]
pub fn model_name<'a>(default: Option<&'a str>, name: &'a str) -> &'a str {
    if name.is_empty() {
        default.unwrap_or_default()
    } else {
        name
    }
}

/// Finds a model's folder. A name is a path, below `dir` when it is relative and there is a `dir`. No name is the worker's
/// own model, as for configs that were written for another cluster and name a model hub: `dir` itself if it is a model,
/// else the one model in it.
///
/// # Errors
/// Why no folder can be told, for people.
pub fn model_folder(dir: Option<&Path>, name: &str) -> Result<PathBuf, String> {
    let dir = match (dir, name) {
        (None, "") => {
            return Err(
                "the config names no model folder and this worker has none of its own; name one (args.model), or start \
                 the worker with --default-model or --models-dir"
                    .to_owned(),
            );
        }
        (None, name) => return Ok(name.into()),
        (Some(dir), "") => dir,
        (Some(dir), name) => return Ok(dir.join(name)),
    };
    if dir.join(INDEX).is_file() {
        return Ok(dir.to_owned());
    }
    let entries = fs::read_dir(dir).map_err(|error| format!("--models-dir {}: {error}", dir.display()))?;
    let mut models: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(INDEX).is_file())
        .collect();
    models.sort();
    match models.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(format!("there is no model in --models-dir {}", dir.display())),
        several => {
            let names: Vec<_> = several
                .iter()
                .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
                .collect();
            Err(format!(
                "the config names no model folder and --models-dir {} has several; name one (args.model): {}",
                dir.display(),
                names.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(models: &[&str]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mobula-folder-{}", uuid::Uuid::new_v4()));
        for model in models {
            fs::create_dir_all(dir.join(model)).unwrap();
            fs::write(dir.join(model).join(INDEX), "{}").unwrap();
        }
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_name_is_a_path_below_the_models_folder() {
        assert_eq!(model_folder(None, "a").unwrap(), Path::new("a"));
        assert_eq!(
            model_folder(Some(Path::new("/m")), "a").unwrap(),
            Path::new("/m/a")
        );
        assert_eq!(
            model_folder(Some(Path::new("/m")), "/b").unwrap(),
            Path::new("/b")
        );
    }

    #[test]
    fn a_name_comes_before_the_workers_default() {
        assert_eq!(model_name(Some("sd15"), ""), "sd15");
        assert_eq!(model_name(Some("sd15"), "xl"), "xl");
        assert_eq!(model_name(None, ""), "");
    }

    #[test]
    fn no_name_is_the_workers_own_model_if_there_is_one() {
        let one = folder(&["sd"]);
        assert_eq!(model_folder(Some(&one), "").unwrap(), one.join("sd"));
        assert_eq!(model_folder(Some(&one.join("sd")), "").unwrap(), one.join("sd"));
        let two = folder(&["b", "a"]);
        let why = model_folder(Some(&two), "").unwrap_err();
        assert!(why.ends_with("a, b"), "{why}");
        let none = folder(&[]);
        assert!(model_folder(Some(&none), "").unwrap_err().contains("no model"));
        assert!(model_folder(None, "").unwrap_err().contains("--models-dir"));
        for dir in [one, two, none] {
            fs::remove_dir_all(dir).unwrap();
        }
    }
}
