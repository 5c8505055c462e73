//! What a scaler tells: decisions with their reason and inputs, and how it stands.
//!
//! Refuses to decide.

use std::{fmt, time::Duration};

/// A change of the target.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The tick that decided.
    pub at: Duration,
    /// Replicas before.
    pub from: u32,
    /// Replicas from now on.
    pub to: u32,
    /// Why, in words.
    pub reason: String,
    /// What it was decided on.
    pub inputs: Inputs,
}

/// What the policy goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Inputs {
    /// Queued and running requests, aggregated over the window: Ray's `total_num_requests`.
    pub ongoing: f64,
    /// Requests that wait, by the newest samples.
    pub queued: f64,
    /// Requests that run, by the newest samples.
    pub executing: f64,
    /// Seconds of work: aggregated over the window for the work policy, else by the newest samples.
    pub work_s: f64,
    /// Replicas that have something to do, mean over the window; 0 unless the policy is work.
    pub busy: f64,
    /// Replicas that run.
    pub replicas: u32,
    /// Replicas that the load asks for, before factors, bounds and delays.
    pub desired: f64,
    /// The least there may be, target capacity considered.
    pub lower: u32,
    /// The most there may be, target capacity considered.
    pub upper: u32,
    /// Routers and replicas that report.
    pub sources: usize,
}

/// Ray's `AutoscalingStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Fewer replicas run than there should be.
    Upscaling,
    /// More do.
    Downscaling,
    /// As many as there should be.
    Stable,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upscaling => "UPSCALING",
            Self::Downscaling => "DOWNSCALING",
            Self::Stable => "STABLE",
        })
    }
}

/// Ray's `AutoscalingMetricsHealth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every source reports.
    Healthy,
    /// A source has been silent for half the time after which it is dropped.
    Delayed,
    /// Nobody reports.
    Unavailable,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Delayed => "delayed",
            Self::Unavailable => "unavailable",
        })
    }
}

/// How a scaler stands, as of its last tick.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Whether the replicas follow.
    pub status: Status,
    /// Replicas that there should be.
    pub target: u32,
    /// Replicas that run.
    pub running: u32,
    /// Replicas that there would be without delays.
    pub wants: u32,
    /// Since when more, or fewer, than the target are wanted.
    pub since: Option<Duration>,
    /// When that will have been long enough, if it lasts.
    pub due: Option<Duration>,
    /// Why the target is what it is, in words.
    pub why: String,
    /// What the policy goes by.
    pub inputs: Inputs,
    /// Whether the sources report.
    pub health: Health,
    /// Samples that were no numbers, or below 0.
    pub refused: u64,
}
