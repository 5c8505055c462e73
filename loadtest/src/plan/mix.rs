//! What is asked for: a pure mix of classes (size, steps, priority), prompts and seeds.
//!
//! Invariant: a request's number alone decides what it asks for, and there are finitely many different requests ("cards"), so
//! that every one of them comes again, its bytes can be compared, and it can be encoded before the load begins.

use std::time::Duration;

use crate::Error;
use crate::units::parse_duration;

/// Different requests of one run at most; each is kept encoded, a few hundred bytes.
const MAX_CARDS: u64 = 1 << 16;

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// After everybody.
    Low,
    /// As usual.
    Normal,
    /// Before everybody.
    High,
}

/// Requests of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// What reports call it.
    pub name: String,
    /// Its part of all requests, against the other classes' weights.
    pub weight: f64,
    /// Width and height in pixels; the model's own without it.
    pub size: Option<u32>,
    /// Denoising steps; the model's own without it.
    pub steps: Option<u32>,
    /// Classifier-free guidance; the model's own without it.
    pub guidance_scale: Option<f32>,
    /// Who goes first; nothing is said without it.
    pub priority: Option<Priority>,
    /// An answer that takes longer is not good.
    pub slo: Option<Duration>,
}

impl Default for Class {
    fn default() -> Self {
        Self {
            name: "all".into(),
            weight: 1.0,
            size: None,
            steps: None,
            guidance_scale: None,
            priority: None,
            slo: None,
        }
    }
}

impl Class {
    /// Reads `name=big,weight=15,size=512,steps=20,priority=high,slo=20s` over what `base` says; all are optional.
    ///
    /// # Errors
    /// [`Error::Class`] naming what cannot be read.
    pub fn parse(text: &str, base: &Self) -> Result<Self, Error> {
        let mut class = Self {
            name: text.to_owned(),
            ..base.clone()
        };
        for pair in text.split(',') {
            let refused = || Error::Class {
                text: pair.to_owned(),
            };
            let (key, value) = pair.trim().split_once('=').ok_or_else(refused)?;
            match key {
                "name" => value.clone_into(&mut class.name),
                "weight" => class.weight = value.parse().map_err(|_| refused())?,
                "size" => class.size = Some(value.parse().map_err(|_| refused())?),
                "steps" => class.steps = Some(value.parse().map_err(|_| refused())?),
                "guidance" => class.guidance_scale = Some(value.parse().map_err(|_| refused())?),
                "slo" => class.slo = Some(parse_duration(value).map_err(|_| refused())?),
                "priority" => {
                    class.priority = Some(match value {
                        "low" => Priority::Low,
                        "normal" => Priority::Normal,
                        "high" => Priority::High,
                        _ => return Err(refused()),
                    });
                }
                _ => return Err(refused()),
            }
        }
        if class.weight.is_finite() && class.weight > 0.0 {
            Ok(class)
        } else {
            Err(Error::Class {
                text: text.to_owned(),
            })
        }
    }
}

/// One of the different requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card<'a> {
    /// Its class.
    pub class: &'a Class,
    /// What to draw.
    pub prompt: &'a str,
    /// By which seed.
    pub seed: u64,
}

/// Classes at random by their weights; within each, prompts in turn with seeds in turn.
#[derive(Debug, Clone)]
pub struct Mix {
    classes: Vec<Class>,
    /// Weights added up, the last one 1.
    shares: Vec<f64>,
    prompts: Vec<String>,
    seeds: u64,
    variants: u64,
}

const COLOURS: [&str; 8] = [
    "red", "green", "blue", "yellow", "purple", "orange", "white", "black",
];
const SHAPES: [&str; 4] = ["circle", "square", "triangle", "star"];

impl Mix {
    /// A mix of these classes (without any: one with nothing said), prompts (without any: colours and shapes, which every demo
    /// model knows) and as many seeds.
    ///
    /// # Errors
    /// [`Error::Mix`] when that makes more different requests than can be kept.
    pub fn new(mut classes: Vec<Class>, prompts: Vec<String>, seeds: u64) -> Result<Self, Error> {
        if classes.is_empty() {
            classes.push(Class::default());
        }
        let prompts = if prompts.is_empty() {
            colours_and_shapes()
        } else {
            prompts
        };
        let seeds = seeds.max(1);
        // As many as there are before a pair of prompt and seed comes again: the least common multiple.
        let count = prompts.len() as u64;
        let variants = (count / gcd(count, seeds)).saturating_mul(seeds);
        let cards = variants.saturating_mul(classes.len() as u64);
        if cards > MAX_CARDS {
            return Err(Error::Mix {
                cards,
                most: MAX_CARDS,
            });
        }
        let sum: f64 = classes.iter().map(|class| class.weight).sum();
        let shares = classes
            .iter()
            .scan(0.0, |so_far, class| {
                *so_far += class.weight / sum;
                Some(*so_far)
            })
            .collect();
        Ok(Self {
            classes,
            shares,
            prompts,
            seeds,
            variants,
        })
    }

    /// The classes, in order.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// How many different requests there are.
    #[must_use]
    pub fn cards(&self) -> usize {
        self.variants as usize * self.classes.len()
    }

    /// Which card the request with this number is, and its class; `class` is the one that the schedule asks for.
    #[must_use]
    pub fn pick(&self, number: u64, class: Option<usize>) -> (usize, usize) {
        let class = class.unwrap_or_else(|| {
            let at = unit(number);
            let found = self.shares.iter().position(|share| at < *share);
            found.unwrap_or(self.classes.len() - 1)
        });
        (
            class * self.variants as usize + (number % self.variants) as usize,
            class,
        )
    }

    /// What this card asks for.
    #[must_use]
    pub fn card(&self, index: usize) -> Card<'_> {
        let variant = index as u64 % self.variants;
        Card {
            class: &self.classes[index / self.variants as usize],
            prompt: &self.prompts[(variant % self.prompts.len() as u64) as usize],
            seed: variant % self.seeds,
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Spreads consecutive numbers evenly over 0 to 1 (the finaliser of SplitMix64).
fn unit(number: u64) -> f64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

fn colours_and_shapes() -> Vec<String> {
    let backgrounds = COLOURS.iter().rev();
    COLOURS
        .iter()
        .zip(backgrounds)
        .flat_map(|(colour, background)| {
            SHAPES
                .iter()
                .map(move |shape| format!("a {colour} {shape} on a {background} background"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prompts(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("p{i}")).collect()
    }

    #[test]
    fn prompts_and_seeds_come_again() {
        let mix = Mix::new(Vec::new(), prompts(2), 4).unwrap();
        let ask = |number| {
            let card = mix.card(mix.pick(number, None).0);
            (card.prompt, card.seed)
        };
        assert_eq!(ask(1), ("p1", 1));
        assert_eq!(ask(1), ask(5));
        assert_eq!(mix.cards(), 4);
    }

    #[test]
    fn without_prompts_it_asks_for_colours_and_shapes() {
        let mix = Mix::new(Vec::new(), Vec::new(), 1).unwrap();
        assert_eq!(mix.card(0).prompt, "a red circle on a black background");
        assert_eq!(mix.cards(), COLOURS.len() * SHAPES.len());
    }

    #[test]
    fn classes_are_read_and_come_by_their_weights() {
        let base = Class {
            steps: Some(4),
            ..Class::default()
        };
        let class = |text| Class::parse(text, &base).unwrap();
        let big = class("name=big,weight=1,size=512,priority=high,slo=2s");
        assert_eq!(
            (big.steps, big.size, big.priority),
            (Some(4), Some(512), Some(Priority::High))
        );
        assert_eq!(big.slo, Some(Duration::from_secs(2)));
        let mix = Mix::new(vec![big, class("weight=3,steps=9")], Vec::new(), 8).unwrap();
        let second = (0..100_000)
            .filter(|number| mix.pick(*number, None).1 == 1)
            .count();
        // Five standard deviations of 100,000 draws with p = 0.75 are 690.
        assert!(second.abs_diff(75_000) < 690, "{second}");
        assert_eq!(mix.card(mix.pick(3, Some(1)).0).class.steps, Some(9));
    }

    #[test]
    fn a_class_that_cannot_be_read_is_refused_with_its_text() {
        for text in [
            "size",
            "size=big",
            "colour=red",
            "weight=0",
            "weight=nan",
            "priority=urgent",
        ] {
            let error = Class::parse(text, &Class::default()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn more_different_requests_than_can_be_kept_are_refused() {
        assert!(Mix::new(Vec::new(), prompts(3), 1 << 15).is_err());
        assert!(Mix::new(Vec::new(), prompts(3), u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn every_request_is_a_card_of_its_class(
            count in 1usize..40, seeds in 1u64..40, classes in 1usize..4, number: u64,
        ) {
            let mix = Mix::new(vec![Class::default(); classes], prompts(count), seeds).unwrap();
            let (card, class) = mix.pick(number, None);
            prop_assert!(card < mix.cards());
            let found = mix.card(card);
            prop_assert_eq!(card / mix.variants as usize, class);
            prop_assert_eq!(found.seed, number % mix.variants % seeds);
            prop_assert_eq!(found.prompt, format!("p{}", number % mix.variants % count as u64));
        }
    }
}
