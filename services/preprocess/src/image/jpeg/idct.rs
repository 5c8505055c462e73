//! Coefficients to samples: the inverse DCT in whole numbers that libjpeg calls `islow`, bit by bit.
//!
//! Two passes of Loeffler, Ligtenberg and Moschytz with constants of 13 bits, columns first, two bits kept between them
//! (libjpeg-turbo, src/jidctint.c). Values beyond 16 bits, which no picture has, wrap and clip where they do in its vector
//! code (simd/x86_64/jidctint-avx2.asm), which is what runs in Pillow. Refuses nothing.

/// Bits behind the point of a constant.
const CONSTANT: u32 = 13;
/// Bits behind the point between the passes.
const BETWEEN: u32 = 2;

/// Coefficients, or what one of each is worth, row by row.
pub(super) type Block = [i16; 64];
type Rows = [[i16; 8]; 8];

/// Writes the 8 x 8 samples of a block, the first at `samples[0]` and a row every `stride`.
pub(super) fn samples(coefficients: &Block, worth: &Block, samples: &mut [u8], stride: usize) {
    let any = |coefficients: &[i16]| coefficients.iter().fold(0, |any, one| any | one) != 0;
    let (first, behind) = coefficients.split_at(8);
    let is_row = !any(behind);
    let mut rows = samples.chunks_mut(stride);
    if is_row && !any(&first[1..]) {
        let value = coefficients[0].wrapping_mul(worth[0]) << BETWEEN;
        let value = (i32::from(value) + (1 << (BETWEEN + 2))) >> (BETWEEN + 3);
        for row in rows.by_ref().take(8) {
            row[..8].fill(to_sample(value as i16));
        }
        return;
    }
    let mut values: Rows = [[0; 8]; 8];
    for ((row, coefficients), worth) in values
        .iter_mut()
        .zip(coefficients.as_chunks::<8>().0)
        .zip(worth.as_chunks::<8>().0)
    {
        for ((value, coefficient), worth) in row.iter_mut().zip(coefficients).zip(worth) {
            *value = coefficient.wrapping_mul(*worth);
        }
    }
    let between = if is_row {
        // All columns are flat.
        turned(&[values[0].map(|value| value << BETWEEN); 8])
    } else {
        let mut between = values;
        pass::<{ CONSTANT - BETWEEN }>(&values, &mut between);
        turned(&between)
    };
    pass::<{ CONSTANT + BETWEEN + 3 }>(&between, &mut values);
    let values = turned(&values);
    for (row, values) in rows.by_ref().zip(&values) {
        for (sample, value) in row[..8].iter_mut().zip(values) {
            *sample = to_sample(*value);
        }
    }
}

/// The level of grey is 128.
fn to_sample(value: i16) -> u8 {
    (value.clamp(-128, 127) + 128) as u8
}

/// Rows for columns; two rows in turns, three times over, is what vectors have an instruction for.
fn turned(rows: &Rows) -> Rows {
    let mut rows = *rows;
    for _ in 0..3 {
        let from = rows;
        for (at, pair) in rows.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let (a, b) = (&from[at], &from[at + 4]);
            pair[0] = [a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]];
            pair[1] = [a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]];
        }
    }
    rows
}

/// One value for each of eight lanes.
///
/// A loop for every step is what the compiler makes vectors of.
macro_rules! lanes {
    ($lane:ident, $value:expr) => {{
        let mut values = [0; 8];
        for $lane in 0..8 {
            values[$lane] = $value;
        }
        values
    }};
}

/// One dimension, of eight lanes at once.
#[inline(never)]
fn pass<const DOWN: u32>(x: &Rows, to: &mut Rows) {
    // Of 16 bits by 16 bits, and two of them added, which is one instruction for a vector of them.
    let by = |value: i16, constant: i32| i32::from(value) * constant;
    // Even part: 0.541196100, and it with 0.765366865 and -1.847759065.
    let high = lanes!(i, by(x[2][i], 4433 + 6270) + by(x[6][i], 4433));
    let low = lanes!(i, by(x[2][i], 4433) + by(x[6][i], 4433 - 15137));
    let plus = lanes!(i, i32::from(x[0][i].wrapping_add(x[4][i])) << CONSTANT);
    let minus = lanes!(i, i32::from(x[0][i].wrapping_sub(x[4][i])) << CONSTANT);
    let even: [[i32; 8]; 4] = [
        lanes!(i, i32::wrapping_add(plus[i], high[i])),
        lanes!(i, i32::wrapping_add(minus[i], low[i])),
        lanes!(i, i32::wrapping_sub(minus[i], low[i])),
        lanes!(i, i32::wrapping_sub(plus[i], high[i])),
    ];
    // Odd part; the sums of two are of 16 bits. 1.175875602 with -1.961570560 and -0.390180644.
    let z3 = lanes!(i, x[7][i].wrapping_add(x[3][i]));
    let z4 = lanes!(i, x[5][i].wrapping_add(x[1][i]));
    let third = lanes!(i, by(z3[i], 9633 - 16069) + by(z4[i], 9633));
    let fourth = lanes!(i, by(z3[i], 9633) + by(z4[i], 9633 - 3196));
    // 0.298631336, 2.053119869, 3.072711026 and 1.501321110, with -0.899976223 and -2.562915447.
    let odd: [[i32; 8]; 4] = [
        lanes!(
            i,
            fourth[i].wrapping_add(by(x[7][i], -7373) + by(x[1][i], 12299 - 7373))
        ),
        lanes!(
            i,
            third[i].wrapping_add(by(x[5][i], -20995) + by(x[3][i], 25172 - 20995))
        ),
        lanes!(
            i,
            fourth[i].wrapping_add(by(x[5][i], 16819 - 20995) + by(x[3][i], -20995))
        ),
        lanes!(
            i,
            third[i].wrapping_add(by(x[7][i], 2446 - 7373) + by(x[1][i], -7373))
        ),
    ];
    let down = |value: i32| {
        (value.wrapping_add(1 << (DOWN - 1)) >> DOWN).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    };
    for at in 0..4 {
        to[at] = lanes!(i, down(even[at][i].wrapping_add(odd[at][i])));
        to[7 - at] = lanes!(i, down(even[at][i].wrapping_sub(odd[at][i])));
    }
}
