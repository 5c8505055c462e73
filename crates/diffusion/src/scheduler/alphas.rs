//! The noise schedule of training: betas, and their cumulative products, in the precision torch uses at each place.
//!
//! Invariant: `alphas_cumprod` has one value per training timestep, each in [0, 1].

use std::f64::consts::PI;

/// How the betas run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Betas {
    Linear {
        start: f64,
        end: f64,
    },
    ScaledLinear {
        start: f64,
        end: f64,
    },
    SquaredCosine,
    /// A sigmoid from -6 to 6, which of the classes DDPM alone knows.
    Sigmoid {
        start: f64,
        end: f64,
    },
    /// A Laplace distribution of the log-SNR (Hang and Gu 2024, arXiv 2407.03297), which DDPM alone knows.
    Laplace,
    /// `exp(-12 t)`, which of the classes Heun alone knows.
    Exponential,
}

/// The training side of a scheduler configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Training {
    pub(super) timesteps: usize,
    pub(super) betas: Betas,
    pub(super) trained: Option<Vec<f64>>,
    pub(super) zero_snr: bool,
}

impl Training {
    /// `alphas_cumprod`, float32, by training timestep.
    pub(super) fn alphas_cumprod(&self) -> Vec<f32> {
        let mut alphas: Vec<f32> = self.betas().into_iter().map(|beta| 1.0 - beta).collect();
        if self.zero_snr {
            alphas = rescale_to_zero_snr(&alphas);
        }
        cumprod(&alphas)
    }

    fn betas(&self) -> Vec<f32> {
        if let Some(trained) = &self.trained {
            return trained.iter().map(|beta| *beta as f32).collect();
        }
        match self.betas {
            Betas::Linear { start, end } => linspace(start as f32, end as f32, self.timesteps),
            Betas::ScaledLinear { start, end } => {
                let roots = linspace(start.sqrt() as f32, end.sqrt() as f32, self.timesteps);
                roots.into_iter().map(|root| root * root).collect()
            }
            Betas::SquaredCosine => self.betas_of(|t| ((t + 0.008) / 1.008 * PI / 2.0).cos().powi(2)),
            Betas::Sigmoid { start, end } => {
                let span = (end - start) as f32;
                let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
                linspace(-6.0, 6.0, self.timesteps)
                    .into_iter()
                    .map(|x| sigmoid(x) * span + start as f32)
                    .collect()
            }
            Betas::Laplace => self.betas_of(|t| {
                let half = 0.5 - t;
                let snr = (-0.5 * 1.0_f64.copysign(half) * (1.0 - 2.0 * half.abs() + 1e-6).ln()).exp();
                (snr / (1.0 + snr)).sqrt()
            }),
            Betas::Exponential => self.betas_of(|t| (t * -12.0).exp()),
        }
    }

    /// diffusers' `betas_for_alpha_bar`, in f64: the betas whose cumulative alphas are `bar`.
    fn betas_of(&self, bar: impl Fn(f64) -> f64) -> Vec<f32> {
        const MAX_BETA: f64 = 0.999;
        let n = self.timesteps as f64;
        let beta = |i: usize| 1.0 - bar((i + 1) as f64 / n) / bar(i as f64 / n);
        (0..self.timesteps)
            .map(|i| beta(i).min(MAX_BETA) as f32)
            .collect()
    }
}

/// `torch.linspace` in float32: from both ends to the middle, each value by one fused multiply-add.
pub(super) fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f32;
    let value = |i: usize| {
        if i < n / 2 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((n - 1 - i) as f32, end)
        }
    };
    (0..n).map(value).collect()
}

/// `torch.cumprod` in float32, which accumulates in double and rounds each result.
fn cumprod(values: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    let next = |value: &f32| {
        product *= f64::from(*value);
        product as f32
    };
    values.iter().map(next).collect()
}

/// diffusers' `rescale_zero_terminal_snr`, from alphas to alphas.
fn rescale_to_zero_snr(alphas: &[f32]) -> Vec<f32> {
    let mut roots: Vec<f32> = cumprod(alphas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return roots;
    };
    let scale = first / (first - last);
    for root in &mut roots {
        *root = (*root - last) * scale;
    }
    let bars: Vec<f32> = roots.iter().map(|root| root * root).collect();
    let ratios = bars.windows(2).map(|pair| pair[1] / pair[0]);
    // Through betas and back, as diffusers goes: 1 - (1 - alpha) rounds.
    std::iter::once(bars[0])
        .chain(ratios)
        .map(|alpha| 1.0 - (1.0 - alpha))
        .collect()
}

/// The noise level of each training timestep, `sqrt((1 - a) / a)`, in f32, with the cumulative alphas it comes from.
pub(super) fn noise_levels(training: &Training) -> (Vec<f32>, Vec<f32>) {
    // With zero terminal SNR the last alpha is put just above 0, so that no level is infinite: at the smallest positive
    // half-precision number, as in diffusers. Its level is sqrt(2^24 - 1), which torch's vectorised root makes 4096.
    const SMALLEST_F16: f32 = 1.0 / 16_777_216.0;
    const LARGEST_LEVEL: f32 = 4096.0;
    let mut alphas_cumprod = training.alphas_cumprod();
    if let (true, Some(last)) = (training.zero_snr, alphas_cumprod.last_mut()) {
        *last = SMALLEST_F16;
    }
    let mut levels: Vec<f32> = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
    if let (true, Some(last)) = (training.zero_snr, levels.last_mut()) {
        *last = LARGEST_LEVEL;
    }
    (alphas_cumprod, levels)
}
