//! What an engine does of a picture's way: all of it, or the stages of one part of a split application.
//!
//! It decides nothing about where stages run. Invariant: there is at least one.

use std::fmt;

use mobula_proto::control::v1::Stage;

use super::Error;

/// Stages that an engine has the networks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// Windows of tokens to states: the text encoders.
    pub encode_text: bool,
    /// Noise or latents to latents: the UNet.
    pub denoise: bool,
    /// Latents to pictures: the VAE's decoder.
    pub decode: bool,
    /// Pictures to latents: the VAE's encoder, where the model has one.
    pub encode: bool,
}

impl Default for Stages {
    fn default() -> Self {
        Self::ALL
    }
}

impl Stages {
    /// All of a picture's way.
    pub const ALL: Self = Self {
        encode_text: true,
        denoise: true,
        decode: true,
        encode: true,
    };

    const NONE: Self = Self {
        encode_text: false,
        denoise: false,
        decode: false,
        encode: false,
    };

    /// The text encoders.
    pub const ENCODE_TEXT: Self = Self {
        encode_text: true,
        ..Self::NONE
    };

    /// The UNet.
    pub const DENOISE: Self = Self {
        denoise: true,
        ..Self::NONE
    };

    /// The VAE's decoder.
    pub const DECODE: Self = Self {
        decode: true,
        ..Self::NONE
    };

    /// The VAE's encoder.
    pub const ENCODE: Self = Self {
        encode: true,
        ..Self::NONE
    };

    /// Those of a replica's specification; none named is all.
    ///
    /// # Errors
    /// [`Error::Option`] for a number that is no stage.
    pub fn of(named: &[i32]) -> Result<Self, Error> {
        if named.is_empty() {
            return Ok(Self::ALL);
        }
        let mut stages = Self::NONE;
        for number in named {
            match Stage::try_from(*number) {
                Ok(Stage::EncodeText) => stages.encode_text = true,
                Ok(Stage::Denoise) => stages.denoise = true,
                Ok(Stage::Decode) => stages.decode = true,
                Ok(Stage::Encode) => stages.encode = true,
                Ok(Stage::Unspecified) | Err(_) => {
                    return Err(Error::Option {
                        name: "stages".to_owned(),
                        why: format!("{number} is no stage that this worker knows"),
                    });
                }
            }
        }
        Ok(stages)
    }

    /// Whether these are all.
    #[must_use]
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub fn have(self, other: Self) -> bool {
        let each = |stages: Self| [stages.encode_text, stages.denoise, stages.decode, stages.encode];
        each(self)
            .into_iter()
            .zip(each(other))
            .all(|(has, asked)| has || !asked)
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (self.encode_text, "encode_text"),
            (self.denoise, "denoise"),
            (self.decode, "decode"),
            (self.encode, "encode"),
        ];
        let names: Vec<_> = named
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_named_is_all_and_what_is_none_is_refused() {
        assert!(Stages::of(&[]).unwrap().is_all());
        let vae = Stages::of(&[Stage::Decode.into(), Stage::Encode.into()]).unwrap();
        assert_eq!(vae.to_string(), "decode, encode");
        assert!(Stages::ALL.have(vae) && vae.have(vae) && !vae.have(Stages::ALL));
        for wrong in [0, 77] {
            let why = Stages::of(&[wrong]).unwrap_err().to_string();
            assert!(why.contains(&wrong.to_string()), "{why}");
        }
    }
}
