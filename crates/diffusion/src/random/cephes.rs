//! Logarithm, sine and cosine in f32 as torch's vectorised normal fill computes them: the Cephes polynomials, with fused
//! multiply-adds where its compiler fuses them. Only additions, multiplications and fused ones, so every platform gives the same
//! bits; found and checked by comparing with torch bit for bit.
//!
//! They hold for what the fill needs (a logarithm of (0, 1], angles of a few turns) and refuse nothing.

const LOG: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_84e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];
/// ln 2 in two parts, the large one exact in few bits.
const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
/// pi / 4 in three parts.
const QUARTER_PI: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];

/// ln(x) for x in (0, 1].
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    let mut exponent = ((bits >> 23) as i32 - 0x7E) as f32;
    // The mantissa in [0.5, 1), then moved to around 1 so that its logarithm is small.
    let mut m = f32::from_bits((bits & 0x007F_FFFF) | 0.5_f32.to_bits());
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        m += m - 1.0;
    } else {
        m -= 1.0;
    }
    let square = m * m;
    let series = LOG[1..].iter().fold(LOG[0], |sum, c| sum.mul_add(m, *c)) * m;
    let tail = series.mul_add(square, exponent * LN_2.1);
    let tail = square.mul_add(-0.5, tail);
    exponent.mul_add(LN_2.0, m + tail)
}

/// (sin x, cos x) for small x at or above 0.
#[inline(always)]
pub(super) fn sin_cos(x: f32) -> (f32, f32) {
    // The octant, made even: the angle becomes at most pi/4 around it.
    let octant = ((x * (4.0 / std::f32::consts::PI)) as i32 + 1) & !1;
    let x = QUARTER_PI
        .iter()
        .fold(x, |x, part| (octant as f32).mul_add(*part, x));
    let square = x * x;
    let cos = 2.443_315_7e-5_f32
        .mul_add(square, -1.388_731_6e-3)
        .mul_add(square, 4.166_664_6e-2)
        * square;
    let cos = cos.mul_add(square, -(square * 0.5)) + 1.0;
    let sin = (-1.951_529_6e-4_f32)
        .mul_add(square, 8.332_161e-3)
        .mul_add(square, -1.666_665_5e-1)
        * square;
    let sin = sin.mul_add(x, x);
    let (sin, cos) = if octant & 2 == 0 { (sin, cos) } else { (cos, sin) };
    let sin = if octant & 4 == 0 { sin } else { -sin };
    let cos = if (octant - 2) & 4 == 0 { -cos } else { cos };
    (sin, cos)
}
