//! The bits of a scan's entropy-coded data.
//!
//! A byte 0xff stands as 0xff 0x00; 0xff before anything else begins a marker, and behind the last bit before a marker there
//! are zeros without end, as libjpeg has it. Refuses nothing: [`Bits::is_short`] and [`Bits::is_cut`] say what happened.
//! Invariant: of the buffer, the upper `left` bits are data, and all below are 0.

/// What one code of 16 bits, one of no table (17), and the 15 bits behind them can take at most.
const ENOUGH: u32 = 32;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Reads bits from the highest down.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte to take; at a marker, its 0xff.
    at: usize,
    buffer: u64,
    left: u32,
    /// How many of the bits left are zeros of behind the end.
    made_up: u32,
    /// No more bytes: a marker or the file's end is reached.
    is_over: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8], at: usize) -> Self {
        Self {
            data,
            at,
            buffer: 0,
            left: 0,
            made_up: 0,
            is_over: false,
        }
    }

    /// Whether zeros of behind the end were taken for data.
    pub(super) fn is_short(&self) -> bool {
        self.left < self.made_up
    }

    /// Whether it is the file's end, and no marker, behind which zeros were taken for data.
    pub(super) fn is_cut(&self) -> bool {
        self.is_short() && self.at >= self.data.len()
    }

    /// Where to look for the next marker.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Starts anew at a position.
    pub(super) fn restart(&mut self, at: usize) {
        *self = Self::new(self.data, at);
    }

    /// The next bits, of which at most 32 are there after [`Bits::fill`].
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.buffer >> (64 - count)) as u32
    }

    pub(super) fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.left -= count;
    }

    /// Makes 32 bits ready.
    pub(super) fn fill(&mut self) {
        if self.left < ENOUGH {
            self.refill();
        }
    }

    /// Takes up to 16 bits, without [`Bits::fill`] before it.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        self.fill();
        self.taken(count)
    }

    /// Takes up to 15 bits that are ready.
    pub(super) fn taken(&mut self, count: u32) -> u32 {
        // In two shifts, so that no bits are none.
        let bits = (self.buffer >> 1 >> (63 - count)) as u32;
        self.skip(count);
        bits
    }

    /// Takes up to 15 bits that are ready for a number with its sign: what begins with 0 is negative (T.81, F.2.2.1).
    pub(super) fn signed(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        let bits = self.taken(size) as i32;
        if bits < 1 << (size - 1) {
            bits - (1 << size) + 1
        } else {
            bits
        }
    }

    fn refill(&mut self) {
        if let Some(word) = self.data.get(self.at..).and_then(|rest| rest.first_chunk())
            && !self.is_over
        {
            let word = u64::from_be_bytes(*word);
            // No byte is 0xff when no byte of its opposite is 0.
            let has_marker = (!word).wrapping_sub(ONES) & word & HIGHS != 0;
            if !has_marker {
                let bytes = (64 - self.left) / 8;
                self.buffer |= word >> (64 - 8 * bytes) << (64 - self.left - 8 * bytes);
                self.left += 8 * bytes;
                self.at += bytes as usize;
                return;
            }
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.left <= 56 && !self.is_over {
            let byte = match self.data.get(self.at..) {
                Some(&[0xff, ref behind @ ..]) => {
                    // More than one 0xff count as one.
                    let fill = behind.iter().take_while(|byte| **byte == 0xff).count();
                    match behind.get(fill) {
                        Some(0) => {
                            self.at += fill + 2;
                            0xff
                        }
                        Some(_) => {
                            self.is_over = true;
                            break;
                        }
                        None => {
                            self.at = self.data.len();
                            self.is_over = true;
                            break;
                        }
                    }
                }
                Some(&[byte, ..]) => {
                    self.at += 1;
                    byte
                }
                Some([]) | None => {
                    self.is_over = true;
                    break;
                }
            };
            self.left += 8;
            self.buffer |= u64::from(byte) << (64 - self.left);
        }
        if self.left < ENOUGH {
            let zeros = 56 - self.left;
            self.left += zeros;
            self.made_up += zeros;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_bytes_are_read_once_and_a_marker_ends_the_data() {
        let data = [0xab, 0xff, 0x00, 0xff, 0xff, 0x00, 0x12, 0xff, 0xff, 0xd9, 0x77];
        let mut bits = Bits::new(&data, 0);
        for byte in [0xab, 0xff, 0xff, 0x12] {
            assert_eq!(bits.take(8), byte);
        }
        assert!(!bits.is_short());
        assert_eq!(bits.position(), 7);
        assert_eq!(bits.take(1), 0);
        assert!(bits.is_short() && !bits.is_cut());
    }

    #[test]
    fn the_files_end_is_told_from_a_marker() {
        for data in [&[0x5a_u8][..], &[0x5a, 0xff], &[0x5a, 0xff, 0xff]] {
            let mut bits = Bits::new(data, 0);
            assert_eq!(bits.take(8), 0x5a);
            assert!(!bits.is_cut());
            assert_eq!(bits.take(16), 0);
            assert!(bits.is_cut());
        }
    }

    #[test]
    fn numbers_that_begin_with_0_are_negative() {
        let mut bits = Bits::new(&[0b1010_0110, 0b1000_0000], 0);
        bits.fill();
        // 101 is 5, 00 is -3, 1 is 1, 1010 is 10.
        assert_eq!([bits.signed(3), bits.signed(2), bits.signed(1)], [5, -3, 1]);
        assert_eq!([bits.signed(0), bits.signed(4)], [0, 10]);
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn bits_are_those_of_the_bytes(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..80),
                                           sizes in prop::collection::vec(1_u32..16, 0..60)) {
                let stuffed: Vec<u8> = bytes
                    .iter()
                    .flat_map(|byte| if *byte == 0xff { vec![0xff, 0] } else { vec![*byte] })
                    .chain([0xff, 0xd9])
                    .collect();
                let bit = |at: usize| u32::from(bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1));
                let mut bits = Bits::new(&stuffed, 0);
                let mut at = 0;
                for size in sizes {
                    let wanted = (0..size as usize).fold(0, |sum, one| sum << 1 | bit(at + one));
                    prop_assert_eq!(bits.take(size), wanted);
                    at += size as usize;
                    prop_assert_eq!(bits.is_short(), at > bytes.len() * 8);
                }
            }
        }
    }
}
