//! The figures as a chart: bars, and a line where they are asked to end. It is read on light and dark pages alike.

use std::fmt::Write as _;

use crate::report::{ASKED_GAIN, ASKED_RATIO, ASKED_TICK, Report};

const WIDTH: f64 = 720.0;
/// Where bars begin and how long the longest is.
const LEFT: f64 = 230.0;
const LENGTH: f64 = 400.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.h{font-weight:600}.s{font-size:11px;fill:#57606a}\
    .a{fill:#0969da}.b{fill:#8c959f}.l{stroke:#cf222e;stroke-width:1.5;stroke-dasharray:4 3}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.a{fill:#4493f8}.b{fill:#656c76}.l{stroke:#f85149}}";

/// A bar.
struct Bar {
    label: String,
    value: f64,
    shown: String,
    ours: bool,
    /// Where it is asked to end.
    asked: Option<f64>,
}

/// Draws what there is.
pub(crate) fn chart(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 8.0;
    let rows = report.rows.iter().flat_map(|rows| {
        let bar = |label: String, value: f64, ours: bool, asked| Bar {
            label,
            value: value / rows.bare,
            shown: format!("{value:.0} rows/s"),
            ours,
            asked,
        };
        let service = rows.ratio * rows.bare;
        [
            Bar {
                shown: format!("{:.1} %", 100.0 * rows.ratio),
                ..bar(
                    format!("{}, service", rows.model),
                    service,
                    true,
                    Some(ASKED_RATIO),
                )
            },
            bar(format!("{}, bare sessions", rows.model), rows.bare, false, None),
        ]
    });
    panel(
        &mut body,
        &mut y,
        "Rows a second, of bare ONNX Runtime sessions' (line: 95 %)",
        1.1,
        rows,
    );
    let deadlines = report.deadlines.iter().flat_map(|one| {
        let bar = |label, value, ours, asked| Bar {
            label,
            value,
            shown: format!("{value:.0} %"),
            ours,
            asked,
        };
        [
            bar(
                format!("{}, step by step", one.engine),
                one.steps,
                true,
                Some(one.fifo + ASKED_GAIN),
            ),
            bar(format!("{}, whole requests", one.engine), one.fifo, false, None),
        ]
    });
    let load = report.deadlines.first().map_or(0.0, |one| 100.0 * one.load);
    let title = format!("Requests in time at {load:.0} % load (line: 30 points more than by whole requests)");
    panel(&mut body, &mut y, &title, 110.0, deadlines);
    let ticks = report
        .ticks
        .iter()
        .filter(|tick| tick.size == 64)
        .map(|tick| Bar {
            label: format!("{}, {} rows", tick.scheduler, tick.rows),
            value: tick.microseconds,
            shown: format!("{:.0} µs, {} allocations", tick.microseconds, tick.allocations),
            ours: true,
            asked: Some(ASKED_TICK),
        });
    let longest = report
        .ticks
        .iter()
        .filter(|tick| tick.size == 64)
        .map(|tick| tick.microseconds);
    let scale = longest.fold(1.4 * ASKED_TICK, f64::max);
    panel(
        &mut body,
        &mut y,
        "A tick beside the model (line: 50 µs)",
        scale,
        ticks,
    );
    text(&mut body, 8.0, y + 12.0, "s", &report.machine);
    let height = y + 24.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"What the engine was \
         measured by\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// A heading and bars, of which one of length `scale` would fill the width.
fn panel(body: &mut String, y: &mut f64, title: &str, scale: f64, bars: impl Iterator<Item = Bar>) {
    let mut bars = bars.peekable();
    if bars.peek().is_none() {
        return;
    }
    text(body, 8.0, *y + 14.0, "h", title);
    *y += ROW;
    for bar in bars {
        let at = |value: f64| (value / scale).clamp(0.0, 1.0) * LENGTH;
        let class = if bar.ours { "a" } else { "b" };
        let top = *y + (ROW - BAR) / 2.0;
        text(body, 16.0, top + 12.0, "t", &bar.label);
        let length = at(bar.value);
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        );
        text(
            body,
            LEFT + length.max(bar.asked.map_or(0.0, at)) + 6.0,
            top + 12.0,
            "t",
            &bar.shown,
        );
        if let Some(asked) = bar.asked {
            let x = LEFT + at(asked);
            let _ = writeln!(
                body,
                "<line class=\"l\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                top - 3.0,
                top + BAR + 3.0
            );
        }
        *y += ROW;
    }
    *y += 10.0;
}

fn text(body: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
    );
}
