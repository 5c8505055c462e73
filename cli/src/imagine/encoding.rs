//! What the files are: their format, by name or by the file's ending, and what they say of themselves.

use std::path::Path;

use clap::ValueEnum;
use mobula_proto::image::v1::{self as image, GenerateRequest, ImageFormat};

/// Flags about the files.
#[derive(Debug, clap::Args)]
pub(super) struct Encoding {
    /// How pictures are encoded; without it the file's ending says so, and PNG is the rest
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Of a JPEG, 1 to 100; without it 95
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    quality: Option<u32>,
    /// What files say of how they were made; without it what the mesh is set to
    #[arg(long, value_name = "WHAT")]
    provenance: Option<Provenance>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Png,
    Jpeg,
    /// Lossless
    Webp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Provenance {
    /// All that draws the picture again, and that a machine made it
    Full,
    /// Only that a machine made it
    Marker,
    /// Nothing
    None,
}

impl Encoding {
    /// Fills in the request for a picture that goes to `output`.
    pub(super) fn fill(&self, request: &mut GenerateRequest, output: &Path) {
        let format = match self.format.unwrap_or_else(|| Format::of(output)) {
            Format::Png => ImageFormat::Png,
            Format::Jpeg => ImageFormat::Jpeg,
            Format::Webp => ImageFormat::Webp,
        };
        request.format = format.into();
        request.quality = self.quality.unwrap_or_default();
        let provenance = self
            .provenance
            .map_or(image::Provenance::Unspecified, |what| match what {
                Provenance::Full => image::Provenance::Full,
                Provenance::Marker => image::Provenance::Marker,
                Provenance::None => image::Provenance::None,
            });
        request.provenance = provenance.into();
    }
}

impl Format {
    /// What a file's ending says.
    fn of(output: &Path) -> Self {
        let ending = output.extension().and_then(|ending| ending.to_str());
        match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("jpg" | "jpeg" | "jpe") => Self::Jpeg,
            Some("webp") => Self::Webp,
            Some(_) | None => Self::Png,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        encoding: Encoding,
    }

    fn request(line: &[&str], output: &str) -> GenerateRequest {
        let line = std::iter::once("imagine").chain(line.iter().copied());
        let mut request = GenerateRequest::default();
        Line::parse_from(line)
            .encoding
            .fill(&mut request, Path::new(output));
        request
    }

    #[test]
    fn the_ending_says_the_format_unless_a_flag_does() {
        for (line, output, format) in [
            (&[][..], "out.png", ImageFormat::Png),
            (&[], "-", ImageFormat::Png),
            (&[], "a.b/OUT.JPG", ImageFormat::Jpeg),
            (&[], "out.webp", ImageFormat::Webp),
            (&["--format", "jpeg"], "out.webp", ImageFormat::Jpeg),
        ] {
            assert_eq!(request(line, output).format(), format, "{output}");
        }
        let request = request(&["--quality", "80", "--provenance", "marker"], "out.jpg");
        assert_eq!(
            (request.quality, request.provenance()),
            (80, image::Provenance::Marker)
        );
    }
}
