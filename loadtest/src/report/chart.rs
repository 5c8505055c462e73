//! Line charts as SVG inside HTML: no script, nothing fetched. Pure.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 40.0;
/// What is not smaller is no measurement, and is left out.
const LARGEST: f64 = 1e15;
/// Lines of the grid, about.
const TICKS: f64 = 5.0;
/// Told apart by most who see colours differently (Okabe and Ito 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// One axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: &'static str,
    /// Whether it is logarithmic; values that are not positive are left out then.
    pub log: bool,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// In the order of the legend.
    pub lines: Vec<Line>,
}

/// Where values lie between the ends of an axis.
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(axis: Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if !low.is_finite() || !high.is_finite() {
            (low, high) = (1.0, 10.0);
        }
        if axis.log {
            low = 10f64.powf(low.log10().floor());
            high = 10f64.powf(high.log10().ceil()).max(low * 10.0);
        } else {
            low = low.min(0.0);
            // Values that are all the same still need a scale.
            high = if high - low > 1.0 / LARGEST {
                high
            } else {
                low + 1.0
            };
        }
        Self {
            log: axis.log,
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = if self.log {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part * (self.to - self.from)
    }

    /// Powers of ten, or multiples of 1, 2 or 5 times one.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.high / self.low).log10().round() as i32;
            return (0..=decades)
                .map(|decade| self.low * 10f64.powi(decade))
                .collect();
        }
        let raw = (self.high - self.low) / TICKS;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|step| *step >= raw)
            .unwrap_or(raw);
        (0..)
            .map(|i| self.low + f64::from(i) * step)
            .take_while(|tick| *tick <= self.high * (1.0 + 1e-9))
            .collect()
    }
}

impl Chart {
    /// The chart as an `svg` element.
    #[must_use]
    pub fn svg(&self) -> String {
        let drawn = |point: &&(f64, f64)| {
            let fits = |value: f64, axis: Axis| value.abs() < LARGEST && (!axis.log || value > 1.0 / LARGEST);
            fits(point.0, self.x) && fits(point.1, self.y)
        };
        let points = || {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().filter(drawn))
        };
        let x = Scale::new(self.x, points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Scale::new(self.y, points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{0}"><text x="{LEFT}" y="14" class="title">{0}</text>"#,
            escape(self.title)
        );
        for tick in x.ticks() {
            let at = x.place(tick);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{at:.1} {TOP}V{0}"/><text class="tick" x="{at:.1}" y="{1}" text-anchor="middle">{2}</text>"#,
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 14.0,
                show(tick)
            );
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{LEFT} {at:.1}H{0}"/><text class="tick" x="{1}" y="{2:.1}" text-anchor="end">{3}</text>"#,
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                show(tick)
            );
        }
        let _ = write!(
            svg,
            r#"<text class="tick" x="{0}" y="{1}" text-anchor="end">{2}</text><text class="tick" x="{LEFT}" y="{3}">{4}</text>"#,
            WIDTH - RIGHT,
            HEIGHT - 8.0,
            escape(self.x.label),
            TOP - 3.0,
            escape(self.y.label)
        );
        let mut legend = WIDTH - RIGHT;
        for (index, line) in self.lines.iter().enumerate().rev() {
            let colour = COLOURS[index % COLOURS.len()];
            let _ = write!(
                svg,
                r#"<text x="{legend}" y="14" text-anchor="end" fill="{colour}">{}</text>"#,
                escape(&line.name)
            );
            // About the width of the name in this font.
            legend -= 7.5 * line.name.chars().count() as f64 + 14.0;
        }
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let mut path = String::new();
            for (index, point) in line.points.iter().filter(drawn).enumerate() {
                let letter = if index == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", x.place(point.0), y.place(point.1));
            }
            let _ = write!(svg, r#"<path class="line" stroke="{colour}" d="{path}"/>"#);
        }
        svg.push_str("</svg>");
        svg
    }
}

fn show(value: f64) -> String {
    match value.abs() {
        _ if value == 0.0 => "0".into(),
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e4 => format!("{}k", value / 1e3),
        size if size < 1e-3 => format!("{value:.0e}"),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

/// Text as HTML shows it.
pub(super) fn escape(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                _ => out.push(c),
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chart(log: bool, points: Vec<(f64, f64)>) -> Chart {
        let axis = |label| Axis { label, log };
        Chart {
            title: "t",
            x: axis("x"),
            y: axis("y"),
            lines: vec![Line {
                name: "<l>".into(),
                points,
            }],
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        let scale = Scale::new(
            Axis {
                label: "",
                log: false,
            },
            [0.0, 87.0].into_iter(),
            0.0,
            1.0,
        );
        assert_eq!(scale.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0]);
        let scale = Scale::new(Axis { label: "", log: true }, [0.3, 40.0].into_iter(), 0.0, 1.0);
        assert_eq!(
            scale.ticks().into_iter().map(show).collect::<Vec<_>>(),
            ["0.1", "1", "10", "100"]
        );
    }

    #[test]
    fn names_cannot_break_the_page() {
        assert!(chart(false, Vec::new()).svg().contains("&lt;l&gt;"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_drawn_inside(
            log: bool,
            points in proptest::collection::vec((proptest::num::f64::ANY, -1e9f64..1e9), 0..20),
        ) {
            let svg = chart(log, points).svg();
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            prop_assert!(svg.ends_with("</svg>"));
        }
    }
}
