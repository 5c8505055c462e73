//! Where pictures go: names are planned before the request, so that a folder that is not there costs no drawing.

use std::io;
use std::path::{Path, PathBuf};

use mobula_proto::image::v1::{Image, Preview};
use tokio::io::AsyncWriteExt;

use crate::Error;

/// The planned files of one request.
#[derive(Debug)]
pub(crate) struct Files {
    target: Target,
    previews: Option<PathBuf>,
}

#[derive(Debug)]
enum Target {
    Stdout,
    One(PathBuf),
    Numbered(PathBuf),
}

impl Files {
    /// Plans the files for `count` pictures and makes the folder for previews.
    pub(crate) fn plan(output: &Path, count: usize, previews: Option<&Path>) -> Result<Self, Error> {
        let target = match (output.as_os_str() == "-", count) {
            (true, 0 | 1) => Target::Stdout,
            (true, _) => {
                return Err(Error::Usage(
                    "standard output takes one picture; name a file with -o".into(),
                ));
            }
            (false, 0 | 1) => Target::One(output.to_owned()),
            (false, _) => Target::Numbered(output.to_owned()),
        };
        if let Target::One(path) | Target::Numbered(path) = &target {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                let source =
                    io::Error::new(io::ErrorKind::NotFound, format!("no folder {}", folder.display()));
                return Err(Error::Write {
                    path: path.clone(),
                    source,
                });
            }
            if path.is_dir() || path.file_name().is_none() {
                let source = io::Error::new(io::ErrorKind::IsADirectory, "it is a folder");
                return Err(Error::Write {
                    path: path.clone(),
                    source,
                });
            }
        }
        if let Some(folder) = previews {
            std::fs::create_dir_all(folder).map_err(|source| Error::Write {
                path: folder.to_owned(),
                source,
            })?;
        }
        Ok(Self {
            target,
            previews: previews.map(Path::to_owned),
        })
    }

    /// Writes a picture and tells its name.
    pub(crate) async fn picture(&self, image: &Image) -> Result<String, Error> {
        let path = match &self.target {
            Target::Stdout => {
                let mut out = tokio::io::stdout();
                out.write_all(&image.data).await.map_err(Error::Output)?;
                out.flush().await.map_err(Error::Output)?;
                return Ok("standard output".into());
            }
            Target::One(path) => path.clone(),
            Target::Numbered(path) => numbered(path, image.index),
        };
        write(&path, &image.data).await?;
        Ok(path.display().to_string())
    }

    /// Writes a preview, if previews were asked for.
    pub(crate) async fn preview(&self, preview: &Preview) -> Result<(), Error> {
        let Some(folder) = &self.previews else {
            return Ok(());
        };
        write(
            &folder.join(preview_name(preview.image_index, preview.step)),
            &preview.png,
        )
        .await
    }
}

async fn write(path: &Path, data: &[u8]) -> Result<(), Error> {
    tokio::fs::write(path, data).await.map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// `out.png` and 3 make `out-3.png`.
fn numbered(path: &Path, index: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{index}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Steps have four digits, so that names sort as the picture grows.
fn preview_name(image: u32, step: u32) -> String {
    format!("preview-{image}-{step:04}.png")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered_before_the_extension() {
        assert_eq!(numbered(Path::new("a/out.png"), 0), Path::new("a/out-0.png"));
        assert_eq!(numbered(Path::new("out"), 12), Path::new("out-12"));
        assert_eq!(
            numbered(Path::new("v1.2/out.tar.png"), 1),
            Path::new("v1.2/out.tar-1.png")
        );
    }

    #[test]
    fn preview_names_sort_by_step() {
        assert!(preview_name(0, 5) < preview_name(0, 10));
    }

    #[test]
    fn standard_output_takes_one_picture_only() {
        assert!(matches!(
            Files::plan(Path::new("-"), 1, None),
            Ok(Files {
                target: Target::Stdout,
                ..
            })
        ));
        assert!(matches!(
            Files::plan(Path::new("-"), 2, None),
            Err(Error::Usage(_))
        ));
    }

    #[test]
    fn a_missing_folder_is_named_before_anything_is_drawn() {
        let error = Files::plan(Path::new("/nowhere/at/all/out.png"), 1, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write /nowhere/at/all/out.png: no folder /nowhere/at/all"
        );
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Files::plan(folder.path(), 1, None),
            Err(Error::Write { .. })
        ));
    }

    #[tokio::test]
    async fn pictures_and_previews_land_where_planned() {
        let folder = tempfile::tempdir().unwrap();
        let previews = folder.path().join("steps");
        let files = Files::plan(&folder.path().join("out.png"), 2, Some(&previews)).unwrap();
        let image = Image {
            index: 1,
            data: "png".into(),
            ..Image::default()
        };
        let name = files.picture(&image).await.unwrap();
        assert_eq!(name, folder.path().join("out-1.png").display().to_string());
        assert_eq!(std::fs::read(name).unwrap(), b"png");
        files
            .preview(&Preview {
                image_index: 1,
                step: 7,
                png: "small".into(),
            })
            .await
            .unwrap();
        assert_eq!(
            std::fs::read(previews.join("preview-1-0007.png")).unwrap(),
            b"small"
        );
    }
}
