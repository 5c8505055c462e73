//! What a request costs the replicas, in calls of the model. Pure arithmetic on fields that were checked.

use mobula_proto::{control::v1::ModelInfo, image::v1::GuidanceInterval};
use mobula_serving::route::{Cost, Work};

/// How often a scheduler calls the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Calls in a step.
    pub(crate) each: u32,
    /// Calls beyond those of the steps, once: more in the first steps of some, one less in the last one of others.
    pub(crate) extra: i32,
}

impl Calls {
    /// One for each step.
    pub(crate) const ONE: Self = Self { each: 1, extra: 0 };

    /// Calls in so many steps; one at least.
    fn of(self, steps: u32) -> u32 {
        let each = self.each.saturating_mul(steps);
        each.saturating_add_signed(self.extra).max(1)
    }

    /// Those of a part that begins after the first steps.
    pub(super) fn without_first(self) -> Self {
        Self {
            extra: self.extra.min(0),
            ..self
        }
    }
}

/// A part of the steps that one model takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// Steps.
    pub(super) steps: u32,
    /// Calls of the model.
    pub(super) calls: Calls,
    /// Two rows in every call.
    pub(super) guided: bool,
    /// Where they are two.
    pub(super) interval: Option<GuidanceInterval>,
}

/// Steps that are left of `steps` when so much is drawn anew: diffusers' `min(int(steps * strength), steps)`.
pub(super) fn strength(steps: u32, strength: f32) -> u32 {
    // By way of decimals: a caller's 0.7 is 0.69999999 in 32 bits, which would be a step less of 10.
    let strength: f64 = strength.to_string().parse().unwrap_or_default();
    ((f64::from(steps) * strength) as u32).min(steps)
}

/// Steps of the first model when it hands over at `switch_at`; at least one, and one less than all at most.
pub(super) fn switch(steps: u32, switch_at: f32) -> u32 {
    let first = (f64::from(steps) * f64::from(switch_at)).round() as u32;
    first.clamp(1, steps.saturating_sub(1).max(1))
}

/// The part of `interval` that lies within the part `from` to `to` of the steps, as a part of that part; `None` when none
/// does.
pub(super) fn within(interval: GuidanceInterval, from: f32, to: f32) -> Option<GuidanceInterval> {
    let (start, end) = (interval.start.max(from), interval.end.min(to));
    (start < end).then(|| GuidanceInterval {
        start: ((start - from) / (to - from)).clamp(0.0, 1.0),
        end: ((end - from) / (to - from)).clamp(0.0, 1.0),
    })
}

/// Rows of one picture.
fn rows(share: Share) -> u32 {
    let calls = share.calls.of(share.steps);
    let second = match (share.guided, share.interval) {
        (false, _) => 0,
        (true, None) => calls,
        (true, Some(part)) => {
            let until = |part: f32| (f64::from(part) * f64::from(calls)).ceil() as u32;
            until(part.end).saturating_sub(until(part.start))
        }
    };
    calls.saturating_add(second)
}

/// Costs `images` pictures of `pixels` each.
pub(super) fn cost(share: Share, images: u32, pixels: u64, model: &ModelInfo) -> Cost {
    Cost::of(Work {
        images,
        // Counted in the rows already, which may be two in some calls and one in others.
        guided: false,
        steps: rows(share),
        pixels,
        native_pixels: u64::from(model.default_width) * u64::from(model.default_height),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share {
        steps: 10,
        calls: Calls::ONE,
        guided: true,
        interval: None,
    };

    #[test]
    fn strength_leaves_as_many_steps_as_diffusers_does() {
        // int(steps * strength) in Python, whose numbers have 64 bits.
        for (steps, of, left) in [
            (50, 0.8, 40),
            (10, 0.7, 7),
            (20, 0.3, 6),
            (10, 0.99, 9),
            (10, 0.05, 0),
            (10, 1.0, 10),
            (3, 0.34, 1),
            (100, 0.29, 28),
        ] {
            assert_eq!(strength(steps, of), left, "{steps} x {of}");
        }
    }

    #[test]
    fn rows_follow_calls_guidance_and_its_interval() {
        assert_eq!(rows(SHARE), 20);
        assert_eq!(
            rows(Share {
                guided: false,
                ..SHARE
            }),
            10
        );
        let calls = |each, extra| Share {
            calls: Calls { each, extra },
            ..SHARE
        };
        assert_eq!(rows(calls(2, -1)), 38, "the last step needs one call");
        assert_eq!(rows(calls(1, 1)), 22, "PNDM's first step has two");
        assert_eq!(rows(calls(1, 9)), 38, "or its first three have four each");
        let part = |start, end| Share {
            interval: Some(GuidanceInterval { start, end }),
            ..SHARE
        };
        assert_eq!(rows(part(0.25, 0.75)), 15, "calls 3 to 7 of 0 to 9");
        assert_eq!(rows(part(0.0, 1.0)), 20);
        assert_eq!(rows(part(0.41, 0.49)), 10, "no call begins within");
    }

    #[test]
    fn each_model_guides_in_its_part_of_the_interval() {
        let interval = GuidanceInterval {
            start: 0.25,
            end: 0.9,
        };
        let first = within(interval, 0.0, 0.5);
        assert_eq!(first, Some(GuidanceInterval { start: 0.5, end: 1.0 }));
        let last = within(interval, 0.5, 1.0).map(|part| (part.start, (part.end * 10.0).round()));
        assert_eq!(last, Some((0.0, 8.0)));
        assert_eq!(within(GuidanceInterval { start: 0.0, end: 0.5 }, 0.5, 1.0), None);
    }

    #[test]
    fn both_models_have_steps() {
        assert_eq!(switch(40, 0.8), 32);
        assert_eq!(switch(10, 0.01), 1);
        assert_eq!(switch(10, 0.99), 9);
        assert_eq!(switch(2, 0.5), 1);
    }
}
