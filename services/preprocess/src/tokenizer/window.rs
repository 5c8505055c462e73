//! A text's tokens in the window that a text encoder takes.
//!
//! As diffusers calls its tokenizer: `padding="max_length", max_length=tokenizer.model_max_length, truncation=True`.
//! Refuses nothing. Invariant: a window holds exactly [`Frame::window`] ids, start and end token always among them.

/// How token ids become a window.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Ids in a window, at least 2 (`model_max_length`; 77 for CLIP).
    pub window: usize,
    /// Start token.
    pub bos: u32,
    /// End token.
    pub eos: u32,
    /// What fills the window: the end token in Stable Diffusion 1, `!` in 2.
    pub pad: u32,
    /// Padding goes before the start token (`padding_side`).
    pub pads_left: bool,
    /// The text's beginning is cut off instead of its end (`truncation_side`).
    pub truncates_left: bool,
}

/// One text's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Start and end token and all between, padding not counted.
    pub token_count: usize,
    /// Tokens that did not fit.
    pub truncated_count: usize,
    /// The same as text.
    pub truncated_text: String,
}

impl Frame {
    /// Frames a text's ids; `decode` turns back those that do not fit.
    pub(crate) fn fit(&self, ids: &[u32], decode: impl FnOnce(&[u32]) -> String) -> Sequence {
        let room = self.window - 2;
        let over = ids.len().saturating_sub(room);
        let (kept, cut) = match self.truncates_left {
            true => (&ids[over..], &ids[..over]),
            false => (&ids[..ids.len() - over], &ids[ids.len() - over..]),
        };
        let padding = std::iter::repeat_n(self.pad, room - kept.len());
        let mut window = Vec::with_capacity(self.window);
        if self.pads_left {
            window.extend(padding.clone());
        }
        window.push(self.bos);
        window.extend_from_slice(kept);
        window.push(self.eos);
        if !self.pads_left {
            window.extend(padding);
        }
        Sequence {
            ids: window,
            token_count: kept.len() + 2,
            truncated_count: over,
            truncated_text: if cut.is_empty() {
                String::new()
            } else {
                decode(cut)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame {
        window: 5,
        bos: 90,
        eos: 91,
        pad: 0,
        pads_left: false,
        truncates_left: false,
    };

    fn fit(frame: Frame, ids: &[u32]) -> (Vec<u32>, usize, usize, String) {
        let sequence = frame.fit(ids, |cut| format!("{cut:?}"));
        (
            sequence.ids,
            sequence.token_count,
            sequence.truncated_count,
            sequence.truncated_text,
        )
    }

    #[test]
    fn a_short_text_is_padded_behind_its_end() {
        assert_eq!(fit(FRAME, &[1]), (vec![90, 1, 91, 0, 0], 3, 0, String::new()));
        assert_eq!(fit(FRAME, &[]), (vec![90, 91, 0, 0, 0], 2, 0, String::new()));
    }

    #[test]
    fn what_does_not_fit_is_reported() {
        assert_eq!(
            fit(FRAME, &[1, 2, 3]),
            (vec![90, 1, 2, 3, 91], 5, 0, String::new())
        );
        assert_eq!(
            fit(FRAME, &[1, 2, 3, 4, 5]),
            (vec![90, 1, 2, 3, 91], 5, 2, "[4, 5]".into())
        );
    }

    #[test]
    fn sides_follow_the_settings() {
        let frame = Frame {
            pads_left: true,
            truncates_left: true,
            ..FRAME
        };
        assert_eq!(fit(frame, &[1]), (vec![0, 0, 90, 1, 91], 3, 0, String::new()));
        assert_eq!(
            fit(frame, &[1, 2, 3, 4]),
            (vec![90, 2, 3, 4, 91], 5, 1, "[1]".into())
        );
    }
}
