//! Colours, for terminals only. The switch is a value, so that everything that renders is pure and tested without one.

use std::fmt::Display;
use std::io::IsTerminal;

use clap::builder::styling::{AnsiColor, Effects, Style};

/// Paints text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Never paints.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { on: false };

    /// Paints when `stream` is a terminal and NO_COLOR (no-color.org) is unset or empty.
    pub(crate) fn for_stream(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            on: stream.is_terminal() && !refused,
        }
    }

    pub(crate) fn heading(self, text: impl Display) -> String {
        self.apply(Style::new().effects(Effects::BOLD), text)
    }

    pub(crate) fn good(self, text: impl Display) -> String {
        self.apply(AnsiColor::Green.on_default(), text)
    }

    pub(crate) fn warn(self, text: impl Display) -> String {
        self.apply(AnsiColor::Yellow.on_default(), text)
    }

    pub(crate) fn bad(self, text: impl Display) -> String {
        self.apply(AnsiColor::Red.on_default(), text)
    }

    pub(crate) fn dim(self, text: impl Display) -> String {
        self.apply(Style::new().effects(Effects::DIMMED), text)
    }

    fn apply(self, style: Style, text: impl Display) -> String {
        if self.on {
            format!("{style}{text}{style:#}")
        } else {
            text.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paint_changes_nothing() {
        assert_eq!(Paint::PLAIN.bad("gone"), "gone");
    }

    #[test]
    fn paint_ends_what_it_begins() {
        assert_eq!(Paint { on: true }.good("up"), "\u{1b}[32mup\u{1b}[0m");
    }
}
