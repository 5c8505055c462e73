//! Normal noise as torch draws it, so that a seed means the same picture as in diffusers.
//!
//! [`Generator`] is torch's CPU generator: draws of 16 values and more are torch's bit for bit, on every platform. Smaller ones
//! take torch's scalar path in f64 and are rounded once; they are as exact as the platform's logarithm, sine and cosine.
//! [`Philox`] is torch's CUDA generator; its file says how near it comes. Uniform and integer draws are not offered.
//!
//! Invariant: the state after a draw depends on the seed and the sizes of all draws before it, as in torch.

mod cephes;
mod philox;

pub use philox::Philox;

/// Whose generator draws the noise of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Source {
    /// `torch.Generator("cpu")`: what diffusers' documentation advises, the same on every machine.
    #[default]
    Cpu,
    /// `torch.Generator("cuda")`: what AUTOMATIC1111's web UI and most scripts on a GPU use.
    Cuda,
}

/// The noise of one picture, from either generator.
#[derive(Debug, Clone)]
pub enum Random {
    /// torch's CPU generator.
    Cpu(Generator),
    /// torch's CUDA generator.
    Cuda(Philox),
}

impl Random {
    /// Seeds a generator of that source.
    #[must_use]
    pub fn new(source: Source, seed: u64) -> Self {
        match source {
            Source::Cpu => Self::Cpu(Generator::new(seed)),
            Source::Cuda => Self::Cuda(Philox::new(seed)),
        }
    }

    /// Fills `out` with standard normals, as one `torch.randn` call of that many values does.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        match self {
            Self::Cpu(generator) => generator.fill_normal(out),
            Self::Cuda(generator) => generator.fill_normal(out),
        }
    }

    /// Draws `n` standard normals: `torch.randn(n, generator=...)` in float32.
    #[must_use]
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        self.fill_normal(&mut out);
        out
    }
}

/// Words of state of a Mersenne twister.
const WORDS: usize = 624;
/// Distance of the word that is mixed in (MT19937's `m`).
const MIDDLE: usize = 397;
/// Values per block of torch's vectorised path; below this many values torch takes its scalar path.
const BLOCK: usize = 16;

/// torch's CPU generator (`torch.Generator("cpu").manual_seed(seed)`): MT19937 and its two ways to a normal.
#[derive(Clone)]
pub struct Generator {
    state: Box<[u32; WORDS]>,
    next: usize,
    /// The second normal of a scalar Box-Muller pair, kept for the next scalar draw.
    spare: Option<f64>,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator")
            .field("next", &self.next)
            .field("spare", &self.spare)
            .finish_non_exhaustive()
    }
}

impl Generator {
    /// Seeds the generator; as in torch, only the low 32 bits of `seed` count.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut generator = Self {
            state: Box::new([0; WORDS]),
            next: WORDS,
            spare: None,
        };
        generator.reseed(seed);
        generator
    }

    /// Begins anew with another seed, in the memory it has.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.state[0] = (seed & 0xFFFF_FFFF) as u32;
        for i in 1..WORDS {
            let before = self.state[i - 1];
            self.state[i] = 1_812_433_253_u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(i as u32);
        }
        self.next = WORDS;
        self.spare = None;
    }

    /// Draws `n` standard normals: `torch.randn(n, generator=...)` in float32.
    #[must_use]
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        self.fill_normal(&mut out);
        out
    }

    /// Fills `out` with standard normals, as one `torch.randn` call of that many values does.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        if out.len() < BLOCK {
            for value in out {
                *value = self.scalar_normal() as f32;
            }
            return;
        }
        for value in &mut *out {
            *value = self.uniform();
        }
        let whole = out.len() - out.len() % BLOCK;
        transform(&mut out[..whole]);
        if whole < out.len() {
            // torch redraws the whole last block, so that it never transforms a partial one.
            let tail = out.len() - BLOCK;
            for value in &mut out[tail..] {
                *value = self.uniform();
            }
            transform(&mut out[tail..]);
        }
    }

    /// One 24-bit uniform in [0, 1).
    fn uniform(&mut self) -> f32 {
        (self.word() & 0x00FF_FFFF) as f32 * (1.0 / 16_777_216.0)
    }

    /// One 53-bit uniform in [0, 1) from two words, the first being the high one.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.word());
        let low = u64::from(self.word());
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// torch's scalar path: Box-Muller in f64, two normals a pair, the second kept.
    fn scalar_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let u1 = self.uniform_f64();
        let u2 = self.uniform_f64();
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (2.0 * std::f64::consts::PI * u1).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// The next tempered word of MT19937.
    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        let mixed = |this: u32, next: u32| {
            let y = (this & 0x8000_0000) | (next & 0x7FFF_FFFF);
            // All ones where the lowest bit is set.
            (y >> 1) ^ ((y & 1).wrapping_neg() & 0x9908_B0DF)
        };
        // Each word is made of itself, the next one and the one `MIDDLE` further, around the end.
        let state = &mut *self.state;
        for i in 0..WORDS - MIDDLE {
            state[i] = state[i + MIDDLE] ^ mixed(state[i], state[i + 1]);
        }
        for i in WORDS - MIDDLE..WORDS - 1 {
            state[i] = state[i + MIDDLE - WORDS] ^ mixed(state[i], state[i + 1]);
        }
        state[WORDS - 1] = state[MIDDLE - 1] ^ mixed(state[WORDS - 1], state[0]);
        self.next = 0;
    }
}

/// Turns blocks of 16 uniforms into normals: the first eight of each are radii, the last eight are angles. Only exact
/// operations, so that all versions give the same bits.
#[multiversion::multiversion(targets("x86_64+avx2+fma"))]
fn transform(values: &mut [f32]) {
    for block in values.chunks_exact_mut(BLOCK) {
        let (radii, angles) = block.split_at_mut(BLOCK / 2);
        for (first, second) in radii.iter_mut().zip(angles) {
            let radius = (-2.0 * cephes::ln(1.0 - *first)).sqrt();
            let (sin, cos) = cephes::sin_cos(2.0 * std::f32::consts::PI * *second);
            *first = radius * cos;
            *second = radius * sin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 10,000th output of MT19937 seeded with 5489 is in the C++ standard ([rand.predef]).
    #[test]
    fn the_words_are_those_of_the_standard_mersenne_twister() {
        let mut generator = Generator::new(5489);
        let last = (0..10_000).map(|_| generator.word()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn only_the_low_32_bits_of_a_seed_count() {
        assert_eq!(
            Generator::new(5).randn(40),
            Generator::new((1 << 32) + 5).randn(40)
        );
    }

    #[test]
    fn no_noise_is_ever_infinite() {
        // A uniform of 0 gives ln(1) = 0, and 1 - u is at least 2^-24, so the largest radius is 5.77.
        assert!(Generator::new(3).randn(100_000).iter().all(|v| v.abs() < 5.8));
    }
}
