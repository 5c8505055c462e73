//! A Brownian path that a seed alone fixes, at whatever times it is asked: `torchsde.BrownianInterval` with its dyadic tree, as
//! diffusers' `BrownianTreeNoiseSampler` makes it (`halfway_tree`, `tol` 1e-6, `pool_size` 24, no Levy area).
//!
//! The interval is halved until a midpoint is the time asked for; each halving has its own noise, whose seed numpy's `SeedSequence`
//! derives from the seed of the path and the place of the interval in the tree. Nothing is kept between two questions but what the
//! caller keeps, so a path costs the memory of three buffers and not of a tree; a question costs one draw of noise per halving.
//!
//! Invariant: the path at one time depends on the seed, the ends of the interval and that time, and not on what was asked before.

use crate::random::{Generator, Philox, Random};

/// Words of entropy that torchsde mixes (`pool_size` of its `SeedSequence`).
const POOL: usize = 24;
/// Times are rounded to a millionth (`tol` of torchsde, 1e-6).
const SCALE: f64 = 1e6;
/// Most halvings of an interval: 1e-6 of 2^43 is far above every noise level.
const MAX_DEPTH: u64 = 63;

/// The interval a path is defined on; its times are noise levels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    start: f64,
    end: f64,
    deviation: f32,
}

/// Buffers a question works in; all have the length of the path's values.
#[derive(Debug)]
pub(super) struct Room<'a> {
    /// The increment of the path over the interval at hand.
    pub(super) increment: &'a mut [f32],
    /// Noise of one halving.
    pub(super) noise: &'a mut [f32],
    /// Draws that noise; seeded anew for each halving.
    pub(super) random: &'a mut Random,
}

/// A generator of the same source as `random`, for [`Room::random`]: torchsde draws on the device that the latents are on.
pub(super) fn alike(random: &Random) -> Random {
    match random {
        Random::Cpu(_) => Random::Cpu(Generator::new(0)),
        Random::Cuda(_) => Random::Cuda(Philox::new(0)),
    }
}

/// Fills `out` as a generator that was just seeded does.
fn draw(random: &mut Random, seed: u32, out: &mut [f32]) {
    let seed = u64::from(seed);
    match random {
        Random::Cpu(generator) => generator.reseed(seed),
        Random::Cuda(generator) => *generator = Philox::new(seed),
    }
    random.fill_normal(out);
}

impl Interval {
    /// The interval from `start` to `end`.
    pub(super) fn new(start: f32, end: f32) -> Self {
        let (start, end) = (f64::from(start), f64::from(end));
        Self {
            start: round(start),
            end: round(end),
            deviation: (end - start).sqrt() as f32,
        }
    }

    /// The time at which a question about `time` is answered: rounded, and inside the interval.
    pub(super) fn place(&self, time: f32) -> f64 {
        round(f64::from(time)).max(self.start).min(self.end)
    }

    /// Writes the path of `seed` at `time` (of [`Interval::place`]) to `path`; it is 0 at the start.
    pub(super) fn path(&self, seed: u64, time: f64, path: &mut [f32], room: Room<'_>) {
        path.fill(0.0);
        if time <= self.start {
            return;
        }
        let Room {
            increment,
            noise,
            random,
        } = room;
        let [root] = state(seed, None);
        draw(random, root, increment);
        increment.iter_mut().for_each(|w| *w *= self.deviation);
        if time >= self.end {
            path.copy_from_slice(increment);
            return;
        }
        let (mut start, mut end, mut key) = (self.start, self.end, 0_u64);
        for depth in 0..MAX_DEPTH {
            let middle = round(0.5 * (end + start));
            let [root] = state(seed, Some((key, depth)));
            draw(random, root, noise);
            let (left, right, inverse) = (middle - start, end - middle, 1.0 / (end - start));
            let deviation = (left * right * inverse).sqrt() as f32;
            let (left, inverse) = (left as f32, inverse as f32);
            // The increment over the left half, given the whole: `noise` becomes it.
            for (noise, w) in noise.iter_mut().zip(&*increment) {
                *noise = left * *w * inverse + deviation * *noise;
            }
            key *= 2;
            if time < middle {
                increment.copy_from_slice(noise);
                end = middle;
                continue;
            }
            for ((path, w), left) in path.iter_mut().zip(&mut *increment).zip(&*noise) {
                *path += left;
                *w -= left;
            }
            if time <= middle {
                return;
            }
            start = middle;
            key += 1;
        }
    }
}

/// Python's `round(time, 6)`: the nearest decimal of the exact binary value, ties to even.
fn round(time: f64) -> f64 {
    let scaled = time * SCALE;
    // What the multiplication rounded away decides on which side of a half the exact product lies.
    let lost = time.mul_add(SCALE, -scaled);
    let below = scaled.floor();
    let beyond_half = (scaled - below - 0.5) + lost;
    let up = beyond_half > 0.0 || (beyond_half == 0.0 && below % 2.0 != 0.0);
    (if up { below + 1.0 } else { below }) / SCALE
}

/// `numpy.random.SeedSequence(entropy, spawn_key=spawn_key, pool_size=24).generate_state(N)` (M. E. O'Neill's `seed_seq` with
/// numpy's constants).
fn state<const N: usize>(entropy: u64, spawn_key: Option<(u64, u64)>) -> [u32; N] {
    const INIT_A: u32 = 0x43b0_d7e5;
    const MULT_A: u32 = 0x931e_8875;
    const INIT_B: u32 = 0x8b51_f9dd;
    const MULT_B: u32 = 0x58f3_8ded;
    const MIX_LEFT: u32 = 0xca01_f9dd;
    const MIX_RIGHT: u32 = 0x4973_f715;
    let mut constant = INIT_A;
    let mut hash = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(MULT_A);
        let value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    };
    let mix = |x: u32, y: u32| {
        let mixed = MIX_LEFT.wrapping_mul(x).wrapping_sub(MIX_RIGHT.wrapping_mul(y));
        mixed ^ (mixed >> 16)
    };
    // The entropy is padded to the pool with zeros, with a spawn key as without.
    let mut pool = [0_u32; POOL];
    (pool[0], pool[1]) = (low(entropy), high(entropy));
    pool.iter_mut().for_each(|word| *word = hash(*word));
    for from in 0..POOL {
        for to in 0..POOL {
            if from != to {
                pool[to] = mix(pool[to], hash(pool[from]));
            }
        }
    }
    if let Some((key, depth)) = spawn_key {
        // A number has as many words as it needs, and at least one.
        let words = [
            Some(low(key)),
            Some(high(key)).filter(|word| *word > 0),
            Some(low(depth)),
        ];
        for word in words.into_iter().flatten() {
            for to in &mut pool {
                *to = mix(*to, hash(word));
            }
        }
    }
    let mut constant = INIT_B;
    std::array::from_fn(|i| {
        let value = pool[i % POOL] ^ constant;
        constant = constant.wrapping_mul(MULT_B);
        let value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    })
}

fn low(number: u64) -> u32 {
    (number & 0xFFFF_FFFF) as u32
}

fn high(number: u64) -> u32 {
    (number >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Source;

    /// Values of numpy 2.4.6's SeedSequence with `pool_size=24`.
    #[test]
    fn seeds_are_those_of_numpys_seed_sequence() {
        assert_eq!(state(0, None), [4_025_752_534, 2_687_548_107, 2_326_983_537]);
        assert_eq!(
            state((1 << 32) + 5, None),
            [3_001_752_692, 252_864_033, 810_806_329]
        );
        assert_eq!(
            state(42, Some((5, 3))),
            [3_084_123_560, 468_215_949, 242_942_938, 2_650_128_260]
        );
        assert_eq!(
            state(u64::MAX, Some(((1 << 32) + 7, 35))),
            [2_667_687_446, 1_135_672_705, 925_471_017, 3_334_856_231]
        );
    }

    #[test]
    fn times_are_rounded_as_python_rounds_them() {
        let times = [
            (0.000_000_5, 0.0),
            (0.000_001_5, 0.000_002),
            (2.5, 2.5),
            (1.234_567_891, 1.234_568),
        ];
        for (time, rounded) in times {
            assert_eq!(round(time), rounded);
        }
        // The formatter of the standard library rounds correctly too; most of these lie next to a half.
        for i in 0..20_000 {
            let time = f64::from(i) * 0.000_730_5 + 0.000_000_5;
            assert_eq!(
                round(time),
                format!("{time:.6}").parse::<f64>().unwrap(),
                "{time}"
            );
        }
    }

    /// Values of torchsde 0.2.6, `BrownianInterval(t0=0.029168, t1=14.614647, entropy=2**40 + 3, ...)(0.029168, time)`.
    #[test]
    fn a_path_is_that_of_torchsde() {
        let interval = Interval::new(0.029_168, 14.614_647);
        for (time, known) in [
            (0.5, [-0.774_340_6, 1.166_816_6, 0.965_865_6, 0.421_462_9]),
            (2.345_678, [-1.596_205_6, 0.114_510_3, 0.187_256_6, 1.211_975_8]),
            (9.25, [4.267_666, 1.426_698_8, 1.352_391_6, 1.665_397_4]),
            (14.614_647, [5.299_272_5, 3.271_213_3, 1.472_979_8, 1.377_138_3]),
        ] {
            let (mut path, mut increment, mut noise) = ([0.0; 4], [0.0; 4], [0.0; 4]);
            let room = Room {
                increment: &mut increment,
                noise: &mut noise,
                random: &mut Random::new(Source::Cpu, 1),
            };
            interval.path((1 << 40) + 3, interval.place(time), &mut path, room);
            for (value, known) in path.into_iter().zip(known) {
                assert!((value - known).abs() < 2e-6, "{time}: {path:?}");
            }
        }
    }

    #[test]
    fn a_path_does_not_depend_on_what_was_asked_before_and_stays_inside() {
        let interval = Interval::new(0.03, 14.6);
        let ask = |time: f32| {
            let (mut path, mut increment, mut noise) = ([0.0; 20], [7.0; 20], [9.0; 20]);
            let room = Room {
                increment: &mut increment,
                noise: &mut noise,
                random: &mut Random::new(Source::Cpu, 1),
            };
            interval.path(3, interval.place(time), &mut path, room);
            path
        };
        assert_eq!(ask(0.01), [0.0; 20]);
        assert_eq!(ask(14.6), ask(99.0));
        let first = ask(2.5);
        let _ = ask(7.0);
        assert_eq!(ask(2.5), first);
        assert!(ask(2.500_01).iter().zip(first).all(|(a, b)| (a - b).abs() < 0.03));
    }
}
