//! The Huffman tables that a file means when it has none (T.81, annex K.3), as frames of films do.
//!
//! libjpeg has them for sequential files (src/jstdhuff.c). Refuses nothing.

use super::huffman::Table;

const DC_COUNTS: [[u8; 16]; 2] = [
    [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
];
const DC_SYMBOLS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const AC_COUNTS: [[u8; 16]; 2] = [
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d],
    [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
];
/// The symbols up to where the counts run in even rows; behind them are all others in order.
const AC_SYMBOLS: [&[u8]; 2] = [
    &[
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22,
        0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33,
        0x62, 0x72, 0x82,
    ],
    &[
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13,
        0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62,
        0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a,
    ],
];

/// The usual table for DC values: 0 is of brightness, 1 of colour.
pub(super) fn dc(slot: usize) -> Table {
    Table::new(&DC_COUNTS[slot], &DC_SYMBOLS).expect("the usual tables are trees")
}

/// The usual table for AC values.
pub(super) fn ac(slot: usize) -> Table {
    let first = AC_SYMBOLS[slot];
    let all = (0..=0xf_u8).flat_map(|run| (1..=10).map(move |size| run << 4 | size));
    let rest = all.filter(|symbol| !first.contains(symbol));
    let symbols: Vec<u8> = first.iter().copied().chain(rest).collect();
    Table::new(&AC_COUNTS[slot], &symbols).expect("the usual tables are trees")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_as_many_as_counted() {
        let sum = |counts: &[u8; 16]| counts.iter().map(|count| usize::from(*count)).sum::<usize>();
        for slot in 0..2 {
            assert_eq!((sum(&DC_COUNTS[slot]), sum(&AC_COUNTS[slot])), (12, 162));
            assert!(dc(slot).is_of_sizes && !ac(slot).is_of_sizes);
        }
    }
}
