//! Finds what `mobula up` starts: the services' binaries and the model folder. Looks in a few documented places, in one
//! order, and says which when nothing is there. Never guesses between two models.

use std::path::{Path, PathBuf};

use super::command::DEFAULT_MODEL;
use crate::Error;

/// Where a package installs the demo model.
const SHARED_MODELS: &str = "/usr/share/mobula/models/demo";
/// The demo model inside a checkout.
const CHECKOUT_MODEL: &str = "models/demo";
/// Every diffusers folder has this file; a folder without it is no model.
const MODEL_INDEX: &str = "model_index.json";
/// Names the model folder when no flag does.
const VARIABLE: &str = "MOBULA_MODEL";
/// Where workers look for models; one that is alone there is their own.
const MODELS_DIR: &str = "MOBULA_MODELS_DIR";

/// The services that make a mesh. The controller starts the two workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    pub(crate) folder: PathBuf,
    pub(crate) controller: PathBuf,
    pub(crate) proxy: PathBuf,
}

impl Binaries {
    /// Looks in `bin_dir` alone if it is given, else beside this executable, else along PATH. All four have to lie in one
    /// folder: services of two versions in one mesh would be found out only much later.
    pub(crate) fn find(bin_dir: Option<&Path>) -> Result<Self, Error> {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = match bin_dir {
            Some(folder) => vec![folder.to_owned()],
            None => beside.into_iter().chain(std::env::split_paths(&path)).collect(),
        };
        Self::among(&folders, |path| path.is_file())
    }

    fn among(folders: &[PathBuf], is_file: impl Fn(&Path) -> bool) -> Result<Self, Error> {
        const ALL: [&str; 4] = [
            "mobula-controller",
            "mobula-proxy",
            "mobula-preprocess",
            "mobula-inference",
        ];
        let missing = |folder: &PathBuf| ALL.into_iter().find(|name| !is_file(&folder.join(name)));
        let Some(folder) = folders.iter().find(|folder| missing(folder).is_none()) else {
            // The folder beside the command is where they belong; what it lacks is what to tell.
            let name = folders.first().and_then(missing).unwrap_or(ALL[0]);
            let searched = match folders {
                [] => "any folder".to_owned(),
                [only] => only.display().to_string(),
                [first, ..] => format!("{} or along PATH", first.display()),
            };
            return Err(Error::Binary { name, searched });
        };
        // Absolute, because the services may be started with another working directory.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        Ok(Self {
            controller: folder.join(ALL[0]),
            proxy: folder.join(ALL[1]),
            folder,
        })
    }
}

/// The model folder to serve: the one that was named by flag or variable, or the demo model from the first place that has it.
pub(crate) fn model(flag: Option<&Path>) -> Result<PathBuf, Error> {
    let is_model = |folder: &Path| folder.join(MODEL_INDEX).is_file();
    let variable = std::env::var_os(VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let named = flag
        .map(|folder| ("--model", folder))
        .or_else(|| variable.as_deref().map(|folder| (VARIABLE, folder)));
    let found = match named {
        Some((how, folder)) => {
            check(how, folder, Path::is_dir, is_model)?;
            folder.to_owned()
        }
        None => demo(&places(std::env::current_exe().ok().as_deref()), is_model)?,
    };
    Ok(std::path::absolute(&found).unwrap_or(found))
}

/// The model of configs that name none: as [`model`], but workers that were told theirs by a variable keep it, and none is
/// no fault: most configs name one.
pub(crate) fn default_model(flag: Option<&Path>) -> Result<Option<PathBuf>, Error> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match flag {
        None if is_set(DEFAULT_MODEL) || is_set(MODELS_DIR) => Ok(None),
        None if !is_set(VARIABLE) => Ok(model(None).ok()),
        Some(_) | None => model(flag).map(Some),
    }
}

fn check(
    how: &str,
    folder: &Path,
    is_dir: impl Fn(&Path) -> bool,
    is_model: impl Fn(&Path) -> bool,
) -> Result<(), Error> {
    let shown = folder.display();
    if is_model(folder) {
        Ok(())
    } else if is_dir(folder) {
        Err(Error::Model(format!(
            "{how} {shown}: no {MODEL_INDEX} there; name a folder that Optimum exported as ONNX"
        )))
    } else {
        Err(Error::Model(format!("{how} {shown}: no such folder")))
    }
}

fn demo(places: &[PathBuf], is_model: impl Fn(&Path) -> bool) -> Result<PathBuf, Error> {
    places
        .iter()
        .find(|folder| is_model(folder))
        .cloned()
        .ok_or_else(|| {
            let places: Vec<_> = places
                .iter()
                .map(|folder| format!("\n  {}", folder.display()))
                .collect();
            Error::Model(format!(
                "the demo model is in none of these folders; name a model with --model:{}",
                places.concat()
            ))
        })
}

/// Where the demo model may be: here, in a checkout around the executable, installed.
fn places(exe: Option<&Path>) -> Vec<PathBuf> {
    let around = exe
        .into_iter()
        .flat_map(|exe| exe.ancestors().skip(1))
        .map(|folder| folder.join(CHECKOUT_MODEL));
    let mut places = vec![PathBuf::from(CHECKOUT_MODEL)];
    places.extend(around);
    places.push(SHARED_MODELS.into());
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_taken_from_the_first_folder_that_has_all_of_them() {
        let folders = ["/build".into(), "/usr/bin".into()];
        let in_usr = |path: &Path| path.starts_with("/usr/bin") || path == Path::new("/build/mobula-proxy");
        let found = Binaries::among(&folders, in_usr).unwrap();
        assert_eq!(found.proxy, Path::new("/usr/bin/mobula-proxy"));
    }

    #[test]
    fn a_missing_binary_is_named_with_where_it_should_be() {
        let folders = ["/build".into(), "/usr/bin".into()];
        let error =
            Binaries::among(&folders, |path| path == Path::new("/build/mobula-controller")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot find mobula-proxy in /build or along PATH"),
            "{error}"
        );
    }

    #[test]
    fn the_demo_model_is_found_from_a_build_inside_the_checkout() {
        let places = places(Some(Path::new("/src/mobula/target/release/mobula")));
        let found = demo(&places, |folder| folder == Path::new("/src/mobula/models/demo")).unwrap();
        assert_eq!(found, Path::new("/src/mobula/models/demo"));
        assert_eq!(places.first().unwrap(), Path::new("models/demo"));
        assert_eq!(places.last().unwrap(), Path::new(SHARED_MODELS));
    }

    #[test]
    fn no_demo_model_anywhere_lists_where_it_was_looked_for() {
        let error = demo(&["a".into(), "b".into()], |_| false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--model") && error.ends_with("\n  a\n  b"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_without_an_index_is_told_apart_from_no_folder() {
        let folder = Path::new("sd15");
        let error = |is_dir: bool| {
            check("--model", folder, |_| is_dir, |_| false)
                .unwrap_err()
                .to_string()
        };
        assert!(error(true).contains("no model_index.json there"));
        assert!(error(false).contains("no such folder"));
    }
}
