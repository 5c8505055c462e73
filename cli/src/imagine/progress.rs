//! What the user sees while the mesh draws: a bar on a terminal, a few plain lines elsewhere, nothing when quiet.
//!
//! Progress goes to standard error. Results go to standard output, so that scripts can read them, unless the picture itself
//! goes there.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mobula_proto::image::v1::{Accepted, Restarted, Step, Waiting};

use crate::Error;
use crate::human::{self, tell};

/// Plain progress lines per request: enough to see that it moves, few enough for a log.
const PLAIN_LINES: u32 = 4;
/// How often the bar's clock moves on without news.
const TICK: Duration = Duration::from_millis(100);

/// One request's progress on the screen.
#[derive(Debug)]
pub(crate) struct Progress {
    view: View,
    /// Standard output carries the picture.
    output_taken: bool,
}

#[derive(Debug)]
enum View {
    Quiet,
    Plain { told: u32 },
    Bar(ProgressBar),
}

impl Progress {
    pub(crate) fn new(quiet: bool, output_taken: bool) -> Self {
        let view = if quiet {
            View::Quiet
        } else if stderr().is_terminal() {
            let bar = ProgressBar::new(0)
                .with_style(style("{spinner} {msg} {elapsed}"))
                .with_message("asking");
            bar.enable_steady_tick(TICK);
            View::Bar(bar)
        } else {
            View::Plain { told: 0 }
        };
        Self { view, output_taken }
    }

    /// The mesh is not there yet.
    pub(crate) fn waiting(&self) {
        if let View::Bar(bar) = &self.view {
            bar.set_message("waiting for the mesh");
        }
    }

    pub(crate) fn accepted(&mut self, accepted: &Accepted) {
        let message = place(accepted.queue_position, accepted.eta_ms, "accepted");
        match &self.view {
            View::Quiet => {}
            View::Plain { .. } => {
                tell(format_args!("{message} (request {})", accepted.request_id));
            }
            View::Bar(bar) => bar.set_message(message),
        }
    }

    /// Its place in line has changed.
    pub(crate) fn moved(&mut self, waiting: &Waiting) {
        // A log has had its place once: a line each second is no news.
        if let View::Bar(bar) = &self.view {
            bar.set_message(place(waiting.queue_position, waiting.eta_ms, "next in line"));
        }
    }

    pub(crate) fn started(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.set_message("drawing");
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match &mut self.view {
            View::Quiet => {}
            View::Plain { told } => {
                let quarter = quarter(step);
                if quarter > *told {
                    *told = quarter;
                    tell(format_args!("step {} of {}", step.index, step.of));
                }
            }
            View::Bar(bar) => {
                if bar.length() != Some(u64::from(step.of)) {
                    bar.set_length(step.of.into());
                    bar.set_style(style("{msg} [{bar:30}] step {pos} of {len}, {elapsed}"));
                    bar.set_message("drawing");
                }
                bar.set_position(step.index.into());
            }
        }
    }

    pub(crate) fn restarted(&mut self, restarted: &Restarted) {
        if let View::Plain { told } = &mut self.view {
            *told = 0;
        }
        let text = format!("started again: {}", restarted.reason);
        match &self.view {
            View::Quiet => {}
            View::Plain { .. } => tell(&text),
            View::Bar(bar) => bar.suspend(|| tell(&text)),
        }
    }

    /// A picture was drawn in another way than asked.
    pub(crate) fn note(&self, name: &str, note: &str) {
        let text = format!("{name}: {note}");
        match &self.view {
            View::Quiet => {}
            View::Plain { .. } => tell(&text),
            View::Bar(bar) => bar.suspend(|| tell(&text)),
        }
    }

    /// Tells a result; above the bar, where there is one.
    pub(crate) fn say(&self, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        // Not `println!`, which panics when the reader has gone.
        let write = || {
            if self.output_taken {
                writeln!(stderr(), "{text}")
            } else {
                writeln!(stdout(), "{text}")
            }
        };
        match &self.view {
            View::Quiet => Ok(()),
            View::Plain { .. } => write(),
            View::Bar(bar) => bar.suspend(write),
        }
        .map_err(Error::Output)
    }

    /// Takes the bar off the screen; more may still be said afterwards.
    pub(crate) fn clear(&self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// Which quarter of the steps is done, 0 to 4.
fn quarter(step: &Step) -> u32 {
    step.index
        .saturating_mul(PLAIN_LINES)
        .checked_div(step.of)
        .unwrap_or(0)
}

/// Where a request stands, in words; `first` when nobody is ahead of it.
fn place(ahead: u32, eta_ms: u64, first: &str) -> String {
    let mut words = match ahead {
        0 => first.to_owned(),
        n => format!("waiting behind {}", human::count(n as usize, "request")),
    };
    if eta_ms > 0 {
        let eta = human::duration(Duration::from_millis(eta_ms));
        words.push_str(&format!(", about {eta}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_at_the_quarters() {
        let told: Vec<_> = (1..=20).map(|index| quarter(&Step { index, of: 20 })).collect();
        assert_eq!(told.iter().filter(|q| **q == 0).count(), 4);
        assert_eq!(told.last(), Some(&PLAIN_LINES));
    }

    #[test]
    fn a_request_of_no_steps_divides_nothing() {
        assert_eq!(quarter(&Step { index: 0, of: 0 }), 0);
    }
}
