//! Quantiles of the beta distribution with both shapes 0.6 (`scipy.stats.beta.ppf(p, 0.6, 0.6)`).
//!
//! Only this shape: by symmetry one half is enough, and there the power series of the distribution function converges fast
//! (Abramowitz and Stegun 1964, 26.5.4 with 15.1.1).

/// Both shapes of the distribution (Lee et al. 2024, arXiv 2407.12173).
const SHAPE: f64 = 0.6;
/// The beta function at both shapes.
const BETA: f64 = 2.415_344_208_002_472;

/// The value below which a share `p` of the distribution lies.
pub(super) fn quantile(p: f64) -> f64 {
    if p <= 0.0 {
        0.0
    } else if p >= 1.0 {
        1.0
    } else if p > 0.5 {
        1.0 - lower(1.0 - p)
    } else {
        lower(p)
    }
}

/// The quantile of `p` up to one half, by Newton's method over `u = x^0.6`, in which the distribution function is almost a line.
fn lower(p: f64) -> f64 {
    // Quadratic from a start within a fifth: six steps are more than f64 has digits for.
    const STEPS: usize = 6;
    let scale = SHAPE * BETA;
    let mut u = p * scale;
    for _ in 0..STEPS {
        let x = u.powf(1.0 / SHAPE);
        let slope = (1.0 - x).powf(SHAPE - 1.0) / scale;
        u -= (u / scale * series(x) - p) / slope;
    }
    u.powf(1.0 / SHAPE)
}

/// `2F1(a, 1 - b; a + 1; x)` with both shapes, for x up to one half.
fn series(x: f64) -> f64 {
    let mut power = 1.0;
    let mut sum = 1.0;
    let mut k = 0.0;
    loop {
        k += 1.0;
        power *= (k - SHAPE) / k * x;
        let next = sum + power * SHAPE / (SHAPE + k);
        if next == sum {
            return sum;
        }
        sum = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_scipy() {
        // scipy 1.17.1: scipy.stats.beta.ppf(p, 0.6, 0.6)
        for (p, expected) in [
            (0.001, 1.855873851745199e-05),
            (0.01, 0.0008612388215429059),
            (0.05, 0.012554456873611399),
            (0.3333333333333333, 0.2754132907776234),
            (0.25, 0.17568037865269498),
            (0.5, 0.5000000000000001),
            (0.6, 0.6372990092467856),
            (0.75, 0.824319621347305),
            (0.9, 0.9604155944112192),
            (0.99, 0.9991387611784571),
            (0.999, 0.9999814412614826),
        ] {
            let got = quantile(p);
            assert!(
                (got - expected).abs() <= 1e-14 + 1e-13 * expected,
                "{p}: {got:e} {expected:e}"
            );
        }
        assert_eq!((quantile(0.0), quantile(1.0)), (0.0, 1.0));
    }

    #[test]
    fn both_halves_mirror_each_other() {
        for i in 1..1000 {
            let p = f64::from(i) / 1000.0;
            assert!((quantile(p) + quantile(1.0 - p) - 1.0).abs() < 1e-14);
        }
    }
}
