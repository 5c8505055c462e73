//! Normal noise as torch's CUDA generator draws it (`torch.Generator("cuda").manual_seed(seed)`), computed without a GPU.
//!
//! The words are Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the key is the seed, the
//! counter is (draws before this one, index of the value), both of 64 bits. That is what torch's kernel
//! (`distribution_elementwise_grid_stride_kernel` with `curand_normal4`) comes to as long as every value has a GPU thread of its
//! own, which then uses the first of its four normals and takes one step of the counter a draw. GPUs have 40,000 (small) to
//! 270,000 (large) such threads, and the latents of a 512x512 picture are 16,384 values, those of 1024x1024 are 65,536. Above its
//! number of threads a GPU begins to use the other three normals; here every size is drawn by the one rule, as AUTOMATIC1111's
//! web UI does (`modules/rng_philox.py`).
//!
//! Verified: the words against Random123's known answers; the normals against values that others published from GPUs, four
//! digits each, also over successive draws, and against AUTOMATIC1111's implementation within 1e-6. Not verified: the last bits.
//! The GPU's sine has an absolute error of 2^-21, so its values differ from these by some 1e-6.
//!
//! Invariant: value `i` of draw `n` depends on the seed, `n` and `i` alone; platforms agree to the last bit.

use super::cephes;

/// What the two products of a round are by.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by each round.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
/// Rounds of Philox4x32-10.
const ROUNDS: usize = 10;
/// curand's `CURAND_2POW32_INV`, 2^-32.
const TO_UNIT: f64 = 1.0 / 4_294_967_296.0;
/// curand's `CURAND_2POW32_INV_2PI`, a float constant: 2^-32 times 6.2831855.
const TO_ANGLE: f32 = 2.328_306_4e-10 * 6.283_185_5;

/// torch's CUDA generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Philox {
    seed: u64,
    /// Draws so far; torch's offset is four times this.
    draws: u64,
}

impl Philox {
    /// Seeds the generator; all 64 bits count.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, draws: 0 }
    }

    /// Draws `n` standard normals: `torch.randn(n, generator=..., device="cuda")` in float32.
    #[must_use]
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        self.fill_normal(&mut out);
        out
    }

    /// Fills `out` with standard normals, as one `torch.randn` call of that many values does; an empty draw counts for nothing.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        if out.is_empty() {
            return;
        }
        let key = halves(self.seed);
        let [low, high] = halves(self.draws);
        for (index, value) in (0_u64..).zip(&mut *out) {
            let [thread, thread_high] = halves(index);
            let [first, second, ..] = words([low, high, thread, thread_high], key);
            *value = normal(first, second);
        }
        self.draws = self.draws.wrapping_add(1);
    }
}

/// The low and the high half.
fn halves(value: u64) -> [u32; 2] {
    [(value & 0xFFFF_FFFF) as u32, (value >> 32) as u32]
}

/// Philox4x32-10.
fn words(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [low_a, high_a] = halves(u64::from(MULTIPLIERS[0]) * u64::from(counter[0]));
        let [low_b, high_b] = halves(u64::from(MULTIPLIERS[1]) * u64::from(counter[2]));
        counter = [
            high_b ^ counter[1] ^ key[0],
            low_b,
            high_a ^ counter[3] ^ key[1],
            low_a,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// The first normal of curand's Box-Muller pair. The words are rounded to float32 and scaled with one rounding, as on the GPU,
/// whose compiler makes one fused instruction of it; so a radius can be 0 and is at most 6.66.
fn normal(first: u32, second: u32) -> f32 {
    let unit = (f64::from(first as f32) * TO_UNIT + TO_UNIT / 2.0) as f32;
    let step = f64::from(TO_ANGLE);
    let angle = (f64::from(second as f32) * step + step / 2.0) as f32;
    let radius = (-2.0 * cephes::ln(unit)).sqrt();
    let (sin, _) = cephes::sin_cos(angle);
    radius * sin
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest difference from values printed with four digits.
    const PRINTED: f32 = 0.5e-4 + 1e-6;

    fn near(got: &[f32], expected: &[f32], tolerance: f32) -> bool {
        got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance)
    }

    /// The three `philox4x32 10` lines of Random123's `tests/kat_vectors`.
    #[test]
    fn the_words_are_the_known_answers_of_random123() {
        assert_eq!(
            words([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            words([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            words(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// Printed with `device='cuda:0'`: seed 0 in kapilsh's "CUDA Mode - Fusing Kernels Talk" (an 8x8 tensor, first and last row
    /// here), seed 42 in flashinfer's documentation of `logits_processor.Sample`.
    #[test]
    fn the_first_draw_is_what_gpus_printed() {
        let first = Philox::new(0).randn(64);
        let top = [
            -0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284,
        ];
        let bottom = [-0.5499, -0.3231, -0.5469, 0.9049, 0.2837, 0.1210, 0.4730, -1.0823];
        assert!(near(&first[..8], &top, PRINTED), "{first:?}");
        assert!(near(&first[56..], &bottom, PRINTED), "{first:?}");
        let expected = [
            0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530, -0.6494, -0.8175, 0.5280, -1.2753,
        ];
        assert!(near(&Philox::new(42).randn(10), &expected, PRINTED));
    }

    /// Six successive `torch.randn(4, device="cuda")` after seed 42, printed with `device='cuda:0'` in a reproduction script for
    /// `torch._foreach_sub`.
    #[test]
    fn each_draw_takes_one_step_of_the_counter_as_on_gpus() {
        let mut generator = Philox::new(42);
        for expected in [
            [0.1940, 2.1614, -0.1721, 0.8491],
            [0.1391, -0.1082, -0.7174, 0.7566],
            [-0.5187, 1.2268, 0.6255, -0.9117],
            [-0.6974, -1.8688, -0.8832, -1.6627],
            [-1.2682, -0.0383, -0.1029, 1.4400],
            [1.4640, -0.3238, 0.7740, 1.5892],
        ] {
            assert!(near(&generator.randn(4), &expected, PRINTED));
        }
    }

    #[test]
    fn all_bits_of_a_seed_count_and_no_noise_is_infinite() {
        assert_ne!(Philox::new(5).randn(4), Philox::new((1 << 32) + 5).randn(4));
        // The extreme words: a unit of 2^-33 and one that rounds to 1.
        for first in [0, 1, u32::MAX] {
            for second in [0, 1, u32::MAX] {
                assert!(normal(first, second).abs() < 6.8);
            }
        }
        let many = Philox::new(3).randn(100_000);
        let mean = many.iter().sum::<f32>() / 100_000.0;
        assert!(mean.abs() < 0.02 && many.iter().all(|v| v.abs() < 6.8));
    }
}
