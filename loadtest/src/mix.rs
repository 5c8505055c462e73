//! What is asked for: a pure, endless mix of prompts and seeds.

/// One request's own part; sizes and steps are the run's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shot {
    /// What to draw.
    pub prompt: String,
    /// By which seed.
    pub seed: u64,
}

/// Prompts in turn, each with seeds in turn, so that every pair comes again and its bytes can be compared.
#[derive(Debug, Clone)]
pub struct Mix {
    prompts: Vec<String>,
    seeds: u64,
}

const COLOURS: [&str; 8] = [
    "red", "green", "blue", "yellow", "purple", "orange", "white", "black",
];
const SHAPES: [&str; 4] = ["circle", "square", "triangle", "star"];

impl Mix {
    /// A mix of these prompts (without any: colours and shapes, which every demo model knows) and as many seeds.
    #[must_use]
    pub fn new(prompts: Vec<String>, seeds: u64) -> Self {
        let prompts = if prompts.is_empty() {
            colours_and_shapes()
        } else {
            prompts
        };
        Self {
            prompts,
            seeds: seeds.max(1),
        }
    }

    /// The request with this number.
    #[must_use]
    pub fn shot(&self, number: u64) -> Shot {
        let count = self.prompts.len() as u64;
        let prompt = self.prompts[(number % count) as usize].clone();
        Shot {
            prompt,
            seed: number % self.seeds,
        }
    }
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
    use super::*;

    #[test]
    fn prompts_and_seeds_come_again() {
        let mix = Mix::new(vec!["a".into(), "b".into()], 4);
        assert_eq!(
            mix.shot(1),
            Shot {
                prompt: "b".into(),
                seed: 1
            }
        );
        assert_eq!(mix.shot(1), mix.shot(5));
    }

    #[test]
    fn without_prompts_it_asks_for_colours_and_shapes() {
        let mix = Mix::new(Vec::new(), 1);
        assert_eq!(mix.shot(0).prompt, "a red circle on a black background");
        assert_eq!(mix.prompts.len(), COLOURS.len() * SHAPES.len());
    }
}
