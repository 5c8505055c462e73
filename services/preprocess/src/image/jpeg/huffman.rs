//! Huffman tables (T.81, annex C and F.2.2.3).
//!
//! Refuses counts that make no tree. Whether symbols are what a value can have is asked where a table is used.

use crate::image::Refused;

use super::{bits::Bits, broken};

/// Codes up to this length are looked up at once; of the usual tables only the rarest are longer.
const QUICK: u32 = 10;
/// The longest code.
const LONGEST: usize = 16;

/// Which bits stand for which symbol.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// By the next bits: the code's length, then its symbol; 0 where the code is longer.
    quick: Box<[u16; 1 << QUICK]>,
    /// By length: the highest code, or less than any.
    highest: [i32; LONGEST + 1],
    /// By length: where in `symbols` a code's symbol is, less the code.
    offset: [i32; LONGEST + 1],
    symbols: Box<[u8; 256]>,
    /// Whether all symbols are sizes of up to 15 bits, as those of DC values must be.
    pub(super) is_of_sizes: bool,
}

impl Table {
    /// Makes a table from how many codes there are of every length, and the symbols in order of their codes.
    pub(super) fn new(counts: &[u8; LONGEST], named: &[u8]) -> Result<Self, Refused> {
        let mut symbols = Box::new([0; 256]);
        match symbols.get_mut(..named.len()) {
            Some(part) => part.copy_from_slice(named),
            None => return Err(broken("a Huffman table has more than 256 codes")),
        }
        let mut table = Self {
            quick: Box::new([0; 1 << QUICK]),
            highest: [-1; LONGEST + 1],
            offset: [0; LONGEST + 1],
            symbols,
            is_of_sizes: named.iter().all(|symbol| *symbol < 16),
        };
        let (mut code, mut first) = (0_usize, 0_usize);
        for (length, count) in (1..).zip(counts) {
            let count = usize::from(*count);
            if count > 0 {
                // All ones is no code.
                if code + count >= 1 << length {
                    return Err(broken("a Huffman table has more codes than fit"));
                }
                table.highest[length] = (code + count - 1) as i32;
                table.offset[length] = first as i32 - code as i32;
                table.put_quick(
                    code,
                    length as u32,
                    named.get(first..first + count).unwrap_or_default(),
                );
            }
            code = (code + count) << 1;
            first += count;
        }
        Ok(table)
    }

    fn put_quick(&mut self, code: usize, length: u32, symbols: &[u8]) {
        let Some(spare) = QUICK.checked_sub(length) else {
            return;
        };
        for (code, symbol) in (code..).zip(symbols) {
            let entry = (length as u16) << 8 | u16::from(*symbol);
            self.quick[code << spare..(code + 1) << spare].fill(entry);
        }
    }

    /// Reads a symbol, and leaves 15 bits ready; what is no code is a 0 of 17 bits, as in libjpeg.
    #[inline]
    pub(super) fn read(&self, bits: &mut Bits<'_>) -> u8 {
        bits.fill();
        let entry = self.quick[bits.peek(QUICK) as usize];
        if entry != 0 {
            bits.skip(u32::from(entry >> 8));
            return entry as u8;
        }
        self.read_slowly(bits)
    }

    #[cold]
    fn read_slowly(&self, bits: &mut Bits<'_>) -> u8 {
        for length in QUICK + 1..=LONGEST as u32 {
            let code = bits.peek(length) as i32;
            if code <= self.highest[length as usize] {
                bits.skip(length);
                return self.symbols[(code + self.offset[length as usize]) as usize & 0xff];
            }
        }
        bits.skip(LONGEST as u32 + 1);
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counted: &[(usize, u8)]) -> [u8; LONGEST] {
        let mut counts = [0; LONGEST];
        for (length, count) in counted {
            counts[length - 1] = *count;
        }
        counts
    }

    #[test]
    fn codes_of_every_length_are_read() {
        // 0, 10, 110..., and one code of 12 bits behind the last of the short ones.
        let table = Table::new(&counts(&[(1, 1), (2, 1), (12, 1), (16, 2)]), &[7, 8, 9, 1, 2]).unwrap();
        // 0 | 10 | 110000000000 | 1100000000010000 | 1100000000010001
        let data = [
            0b0101_1000,
            0b0000_0001,
            0b1000_0000,
            0b0010_0001,
            0b1000_0000,
            0b0010_0010,
        ];
        let mut bits = Bits::new(&data, 0);
        let seen: Vec<u8> = (0..5).map(|_| table.read(&mut bits)).collect();
        assert_eq!(seen, [7, 8, 9, 1, 2]);
    }

    #[test]
    fn what_is_no_code_is_a_zero_of_seventeen_bits() {
        let table = Table::new(&counts(&[(1, 1)]), &[5]).unwrap();
        let mut bits = Bits::new(&[0xfe, 0xfe, 0x80 | 0x3f], 0);
        assert_eq!(table.read(&mut bits), 0);
        assert_eq!(table.read(&mut bits), 5);
    }

    #[test]
    fn counts_that_make_no_tree_are_refused() {
        for counted in [
            &[(1, 2)][..],
            &[(1, 1), (2, 2)],
            &[(2, 3), (3, 2)],
            &[(8, 255), (9, 2)],
        ] {
            assert!(
                Table::new(&counts(counted), &[1; 257][..256]).is_err(),
                "{counted:?}"
            );
        }
        assert!(Table::new(&counts(&[(9, 255)]), &[0; 255]).is_ok());
        assert!(Table::new(&counts(&[(9, 255)]), &[0; 257]).is_err());
        assert!(Table::new(&counts(&[(2, 1)]), &[15]).unwrap().is_of_sizes);
        assert!(!Table::new(&counts(&[(2, 1)]), &[16]).unwrap().is_of_sizes);
    }
}
