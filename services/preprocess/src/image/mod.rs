//! Files to pixels, as diffusers brings a picture to a pipeline: `load_image`, then `VaeImageProcessor.resize`.
//!
//! Steps: decode, turn as EXIF says, drop alpha (or all but alpha), resize with Lanczos (Pillow's numbers), and for a mask to
//! luminance.
//! Refuses other formats than PNG, JPEG and WebP, and everything beyond [`Limits`], before memory is taken for it.
//! Invariant: pixels come back in exactly the size that was asked for.

mod chunks;
mod decode;
mod jpeg;
mod resize;

pub use self::{
    decode::{decode, transparency},
    resize::resize,
};

/// What a file may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a file; two of them and the rest of a request go through one message of 32 MiB.
    pub bytes: usize,
    /// Pixels of an edge, of the file and of the result.
    pub side: u32,
    /// Pixels of a file: a camera's 32 megapixels.
    pub pixels: u64,
    /// Bytes of one buffer on the way.
    pub memory: u64,
    /// Pixels of the result: what fits a message of 32 MiB with three bytes each.
    pub result: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            side: 16_384,
            pixels: 1 << 25,
            memory: 192 << 20,
            result: 10 << 20,
        }
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RGB comes back.
    Picture,
    /// Luminance comes back.
    Mask,
    /// 255 comes back where it is fully transparent, and 0 elsewhere.
    Transparency,
}

/// Pixels without gaps, row by row, 8 bits a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raster {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 3 for RGB, 1 for luminance.
    pub channels: usize,
    /// `width * height * channels` bytes.
    pub data: Vec<u8>,
}

/// Why a file is refused: the field, and the reason in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Refused {
    /// `data`, `width` or `height`.
    pub field: &'static str,
    /// What is wrong, and with which value.
    pub why: String,
}

impl Refused {
    fn data(why: impl Into<String>) -> Self {
        Self {
            field: "data",
            why: why.into(),
        }
    }
}

/// What is to be done with a file.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The file.
    pub data: &'a [u8],
    /// Pixels that are wanted; 0 with height 0 keeps the file's own size.
    pub width: u32,
    /// Pixels that are wanted.
    pub height: u32,
    /// What it is for.
    pub kind: Kind,
    /// What it may be.
    pub limits: Limits,
}

/// Brings a file to its pixels.
///
/// # Errors
///
/// [`Refused`] names the field and the limit that is broken, or what is wrong with the file.
pub fn prepare(ask: Ask<'_>) -> Result<Raster, Refused> {
    let limits = &ask.limits;
    for (field, value, other) in [
        ("width", ask.width, ask.height),
        ("height", ask.height, ask.width),
    ] {
        if value == 0 && other != 0 {
            return Err(Refused {
                field,
                why: "is 0, but the other edge is not: give both, or none for the file's own size".into(),
            });
        }
        if value > limits.side {
            return Err(Refused {
                field,
                why: format!("is {value}, more than {}", limits.side),
            });
        }
    }
    let fits = |width: u32, height: u32, field, what: &str| {
        let pixels = u64::from(width) * u64::from(height);
        let why = || {
            format!(
                "{what} of {width} x {height} has more than {} pixels",
                limits.result
            )
        };
        (pixels <= limits.result)
            .then_some(())
            .ok_or_else(|| Refused { field, why: why() })
    };
    fits(ask.width, ask.height, "width", "a result")?;
    let decoded = match ask.kind {
        Kind::Picture | Kind::Mask => decode(ask.data, limits)?,
        Kind::Transparency => transparency(ask.data, limits)?,
    };
    let (width, height) = match (ask.width, ask.height) {
        (0, _) => (decoded.width, decoded.height),
        size => size,
    };
    fits(width, height, "data", "a picture in its own size")?;
    // Between the two passes one edge is the file's and the other the result's.
    let between = match resize::are_columns_first((decoded.width, decoded.height), (width, height)) {
        true => (decoded.width, height),
        false => (width, decoded.height),
    };
    let bytes = u64::from(between.0) * u64::from(between.1) * decoded.channels as u64;
    if bytes > limits.memory {
        return Err(Refused::data(format!(
            "is {} x {}; to {width} x {height} it takes {bytes} bytes on the way, more than {}",
            decoded.width, decoded.height, limits.memory
        )));
    }
    let resized = resize(decoded, width, height);
    Ok(match ask.kind {
        Kind::Picture | Kind::Transparency => resized,
        Kind::Mask => resized.luminance(),
    })
}

impl Raster {
    /// Pillow's `convert("L")` of RGB: ITU-R 601-2 in 16 bits, rounded.
    fn luminance(self) -> Self {
        let luminance = |pixel: &[u8; 3]| {
            let [red, green, blue] = pixel.map(u32::from);
            ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
        };
        Self {
            channels: 1,
            data: self.data.as_chunks::<3>().0.iter().map(luminance).collect(),
            ..self
        }
    }
}
