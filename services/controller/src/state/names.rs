//! Short random names; the same seed draws the same names.

/// Draws names.
#[derive(Debug)]
pub(super) struct Names(u64);

impl Names {
    /// FNV-1a over the controller's id, which is random.
    pub(super) fn new(seed: &str) -> Self {
        Self(fnv(seed.as_bytes()))
    }

    /// Eight characters out of a-z and 0-9, by SplitMix64: a double among 10^5 names has a chance of 2 in 1000.
    pub(super) fn draw(&mut self) -> String {
        const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (0..8)
            .map(|i| char::from(LETTERS[(z >> (8 * i)) as u8 as usize % LETTERS.len()]))
            .collect()
    }
}

/// FNV-1a, 64 bits: tells things apart, and nobody tries to fool it.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
