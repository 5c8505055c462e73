//! Functions of one value that a compiler turns into code for many: no branch, no table, no call.
//!
//! Only sums, products, quotients and choices of f32. With `FUSED` a product and a sum are rounded once, which is for machines that
//! have that as one instruction; a machine gives the same bits always. NaN stays NaN, and infinities give what the written-out
//! operators give.

/// `a * b + c`.
#[inline(always)]
pub(super) fn sum<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The value of a polynomial; the highest power's factor comes first.
#[inline(always)]
fn polynomial<const FUSED: bool, const N: usize>(x: f32, factors: [f32; N]) -> f32 {
    let mut value = factors[0];
    for factor in &factors[1..] {
        value = sum::<FUSED>(value, x, *factor);
    }
    value
}

/// e to the power of a value, within 2e-7 of it; infinity from 88.38 on, at least e^-87.
///
/// Cephes' `expf` (S. L. Moshier, <https://www.netlib.org/cephes/>, single/expf.c).
#[inline(always)]
pub(super) fn exp<const FUSED: bool>(x: f32) -> f32 {
    /// 1.5 * 2^23: what is added to it is rounded to a whole number that stands in the lowest bits.
    const ROUNDER: f32 = 12_582_912.0;
    const FACTORS: [f32; 6] = [
        1.987_569_1e-4,
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = sum::<FUSED>(x, std::f32::consts::LOG2_E, ROUNDER);
    let whole = shifted - ROUNDER;
    // ln 2 in two parts: the product with the first is exact.
    let r = sum::<FUSED>(whole, -0.693_359_4, x);
    let r = sum::<FUSED>(whole, 2.121_944_4e-4, r);
    let p = sum::<FUSED>(polynomial::<FUSED, 6>(r, FACTORS), r * r, r) + 1.0;
    // The exponent of 2^whole, which is between -126 and 128; 128 makes infinity.
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(super) fn silu<const FUSED: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FUSED>(-x))
}

/// The error function, within 5e-7 of its value.
///
/// The quotient of two polynomials of Eigen (`generic_fast_erf_float`, <https://eigen.tuxfamily.org>, MathFunctionsImpl.h).
#[inline(always)]
pub(super) fn erf<const FUSED: bool>(x: f32) -> f32 {
    /// From here on the function is 1 in f32.
    const END: f32 = 3.925;
    const ABOVE: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const BELOW: [f32; 5] = [
        -1.456_607_2e-5,
        -2.133_740_5e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_474e-2,
    ];
    let near = if x > END { END } else { x };
    let near = if near < -END { -END } else { near };
    let square = near * near;
    let above = polynomial::<FUSED, 7>(square, ABOVE);
    let inside = near * above / polynomial::<FUSED, 5>(square, BELOW);
    let inside = if x >= END { 1.0 } else { inside };
    if x <= -END { -1.0 } else { inside }
}

/// `x * Phi(x)`, the exact GELU.
#[inline(always)]
pub(super) fn gelu<const FUSED: bool>(x: f32) -> f32 {
    let half = 0.5 * x;
    sum::<FUSED>(half, erf::<FUSED>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The error function by a series of positive terms: exp(-x²) 2x/√π Σ (2x²)^n / (1·3·…·(2n+1)).
    pub(crate) fn exact_erf(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (1.0, 0.0);
        for n in 1..200 {
            sum += term;
            term *= 2.0 * x * x / f64::from(2 * n + 1);
        }
        sum * 2.0 * x * (-x * x).exp() / std::f64::consts::PI.sqrt()
    }

    pub(crate) fn exact_gelu(x: f64) -> f64 {
        0.5 * x * (1.0 + exact_erf(x / std::f64::consts::SQRT_2))
    }

    pub(crate) fn exact_silu(x: f64) -> f64 {
        x / (1.0 + (-x).exp())
    }

    /// Values over a range, and the largest error of a function at them relative to `size` of the true value.
    fn worst(
        low: f64,
        high: f64,
        f: fn(f32) -> f32,
        exact: fn(f64) -> f64,
        size: fn(f64, f64) -> f64,
    ) -> f64 {
        let points = 200_000;
        (0..=points)
            .map(|i| (low + (high - low) * f64::from(i) / f64::from(points)) as f32)
            .map(|x| {
                let truth = exact(f64::from(x));
                (f64::from(f(x)) - truth).abs() / size(f64::from(x), truth)
            })
            .fold(0.0, |most, error| {
                if error.is_nan() {
                    f64::INFINITY
                } else {
                    error.max(most)
                }
            })
    }

    #[test]
    fn exp_and_erf_are_within_their_bounds_of_the_truth() {
        let of_value = |_: f64, truth: f64| truth.abs() + f64::MIN_POSITIVE;
        for (low, high) in [(-87.0, 88.3), (-1.0, 1.0), (-1e-6, 1e-6)] {
            for exp in [exp::<false>, exp::<true>] {
                let error = worst(low, high, exp, f64::exp, of_value);
                assert!(error < 2e-7, "exp in {low}..{high}: {error}");
            }
        }
        for (low, high) in [(-6.0, 6.0), (-0.5, 0.5), (-1e-6, 1e-6)] {
            for erf in [erf::<false>, erf::<true>] {
                let error = worst(low, high, erf, exact_erf, of_value);
                assert!(error < 5e-7, "erf in {low}..{high}: {error}");
            }
        }
    }

    #[test]
    fn silu_and_gelu_are_within_their_bounds_of_the_truth() {
        let of_value = |_: f64, truth: f64| truth.abs() + f64::MIN_POSITIVE;
        for (low, high) in [(-88.0, 100.0), (-2.0, 2.0), (-1e-6, 1e-6)] {
            for silu in [silu::<false>, silu::<true>] {
                let error = worst(low, high, silu, exact_silu, of_value);
                assert!(error < 5e-7, "silu in {low}..{high}: {error}");
            }
        }
        // 1 + erf cancels far below zero, as in the written-out operators: there the error is one of the input's size.
        let of_input = |x: f64, _: f64| x.abs() + f64::MIN_POSITIVE;
        for (low, high) in [(-100.0, 100.0), (-6.0, 6.0), (-1e-6, 1e-6)] {
            for gelu in [gelu::<false>, gelu::<true>] {
                let error = worst(low, high, gelu, exact_gelu, of_input);
                assert!(error < 3e-7, "gelu in {low}..{high}: {error}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_right() {
        for f in [silu::<false>, silu::<true>, gelu::<false>, gelu::<true>] {
            assert_eq!((f(0.0), f(100.0), f(3e38)), (0.0, 100.0, 3e38));
            assert_eq!((f(-100.0), f(-3e38)), (0.0, 0.0));
            assert_eq!(f(f32::INFINITY), f32::INFINITY);
            // Minus infinity times zero, as in the written-out operators.
            assert!(f(f32::NEG_INFINITY).is_nan() && f(f32::NAN).is_nan());
        }
        for (exp, erf) in [
            (exp::<false> as fn(f32) -> f32, erf::<false> as fn(f32) -> f32),
            (exp::<true>, erf::<true>),
        ] {
            assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (1.0, -1.0));
            assert_eq!((exp(f32::INFINITY), exp(0.0)), (f32::INFINITY, 1.0));
            assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
        }
    }

    proptest! {
        #[test]
        fn any_number_gives_what_the_truth_gives(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            for (f, exact) in [
                (silu::<false> as fn(f32) -> f32, exact_silu as fn(f64) -> f64),
                (silu::<true>, exact_silu),
                (gelu::<false>, exact_gelu),
                (gelu::<true>, exact_gelu),
            ] {
                let (got, truth) = (f64::from(f(x)), exact(f64::from(x)));
                // The smallest numbers are a whole step apart.
                let close = (got - truth).abs() <= 5e-7 * f64::from(x).abs() + f64::from(f32::from_bits(1));
                prop_assert!(close || got.is_nan() && truth.is_nan() || got == truth, "{x}: {got} {truth}");
            }
        }
    }
}
