//! A text as it was meant: what holds for which steps, mixed of which texts, with which weights.
//!
//! Knows no tokenizer. Refuses what [`Limits`] do not allow. Invariant: a script has a span, every span a version, and the
//! last span holds to the end.

use super::{Limits, Refused, Syntax, attention, compel, schedule};

/// What a text asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The last step of a span, 0 for the end, and what it mixes.
    pub spans: Vec<(u32, Vec<Version>)>,
}

/// One text of a mixture.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Its share before normalizing.
    pub share: f32,
    /// Its parts, in order.
    pub parts: Vec<Part>,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text with its weight.
    Text(String, f64),
    /// A new window begins here.
    Break,
}

impl Script {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// [`Refused`] says what is not served, or which limit is broken.
    pub fn read(text: &str, syntax: Syntax, steps: u32, limits: &Limits) -> Result<Self, Refused> {
        match syntax {
            Syntax::Plain => Ok(Self::lone(vec![Version::new(vec![Part::Text(text.into(), 1.0)])])),
            Syntax::A1111 => Self::a1111(text, steps.max(1), limits),
            Syntax::Compel => Self::compel(text, limits),
        }
    }

    /// One span.
    fn lone(versions: Vec<Version>) -> Self {
        Self {
            spans: vec![(0, versions)],
        }
    }

    fn a1111(text: &str, steps: u32, limits: &Limits) -> Result<Self, Refused> {
        let mut spans: Vec<(u32, Vec<Version>)> = Vec::new();
        let mut before: Option<String> = None;
        for (until, text) in schedule::read(text, steps, limits)? {
            // The same text for the next steps is the same span.
            if before.as_ref() == Some(&text)
                && let Some(span) = spans.last_mut()
            {
                span.0 = until;
                continue;
            }
            spans.push((until, vec![Version::new(attention::read(&text, limits)?)]));
            before = Some(text);
        }
        if let Some(last) = spans.last_mut() {
            last.0 = 0;
        }
        Ok(Self { spans })
    }

    /// compel's `get_embeddings_for_weighted_prompt_fragments` with `DownweightMode.REMOVE`: the whole text, and one
    /// without each part that weighs less than 1, with the share tan((1 - weight) * pi / 2).
    ///
    /// The package's default, `DownweightMode.MASK`, hides the part with an attention mask instead. Exported text encoders
    /// take no such mask, so it is not served; what stands behind a removed part moves forward.
    fn compel(text: &str, limits: &Limits) -> Result<Self, Refused> {
        /// compel's `epsilon`: a weight of 0 would have an infinite share.
        const LEAST: f64 = 1e-5;
        let parts = compel::read(text, limits)?;
        let weak: Vec<(usize, f64)> = parts
            .iter()
            .enumerate()
            .filter(|(_, (_, weight))| *weight < 1.0)
            .map(|(at, (_, weight))| (at, *weight))
            .collect();
        if weak.len() >= limits.variants {
            return Err(Refused(format!(
                "has {} parts with a weight below 1, more than {}",
                weak.len(),
                limits.variants.saturating_sub(1)
            )));
        }
        let without = |left_out: Option<usize>| -> Vec<Part> {
            let kept = parts.iter().enumerate().filter(|(at, _)| Some(*at) != left_out);
            kept.map(|(_, (text, weight))| Part::Text(text.clone(), *weight))
                .collect()
        };
        let mut versions = vec![Version::new(without(None))];
        for (at, weight) in weak {
            let share = ((1.0 - weight.max(LEAST)) * std::f64::consts::FRAC_PI_2).tan();
            versions.push(Version {
                share: share as f32,
                parts: without(Some(at)),
            });
        }
        Ok(Self::lone(versions))
    }
}

impl Version {
    fn new(parts: Vec<Part>) -> Self {
        Self { share: 1.0, parts }
    }
}
