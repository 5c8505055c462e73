//! Reports as one HTML file that needs nothing else: tables and SVG charts, no script. Pure.

use std::fmt::Write as _;

use super::chart::escape;
use super::{Axis, Chart, Comparison, Line, Report, Sweep};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #8884;text-align:right}\
td:first-child,th:first-child{text-align:left}pre{overflow:auto;padding:.8rem;background:#8881}\
svg{width:100%;height:auto;margin:.8rem 0;font:12px system-ui,sans-serif}.title{font-weight:600;fill:currentColor}\
.grid{stroke:#8884;fill:none}.tick{fill:currentColor;opacity:.7;font-size:11px}.line{fill:none;stroke-width:2}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}";

const fn linear(label: &'static str) -> Axis {
    Axis { label, log: false }
}

const fn log(label: &'static str) -> Axis {
    Axis { label, log: true }
}

/// What a page can show.
#[derive(Debug, Clone, Copy)]
pub enum Page<'a> {
    /// One run.
    Run(&'a Report),
    /// Two targets.
    Comparison(&'a Comparison),
    /// Rates up to capacity.
    Sweep(&'a Sweep),
}

impl Page<'_> {
    /// The whole file.
    #[must_use]
    pub fn html(&self) -> String {
        let (title, text, charts) = match self {
            Self::Run(report) => (&report.target, report.to_string(), run(report)),
            Self::Comparison(comparison) => (&comparison.a, comparison.to_string(), compared(comparison)),
            Self::Sweep(sweep) => (&sweep.target, sweep.to_string(), swept(sweep)),
        };
        let mut html = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>Load on {0}</title><style>{STYLE}</style><h1>Load on {0}</h1><pre>{1}</pre>",
            escape(title),
            escape(&text)
        );
        if let Self::Run(report) = self {
            classes(&mut html, report);
        }
        for chart in charts {
            html.push_str(&chart.svg());
        }
        html.push_str("</html>\n");
        html
    }
}

fn line<T>(name: &str, points: &[T], at: impl Fn(&T) -> (f64, f64)) -> Line {
    Line {
        name: name.to_owned(),
        points: points.iter().map(at).collect(),
    }
}

/// Percentiles spread so that each nine takes the same room: 0, 90, 99, 99.9 at 1, 10, 100, 1000.
fn nines(curve: &[(f64, f64)], name: &str) -> Line {
    let points: Vec<_> = curve
        .iter()
        .filter(|(percentile, _)| *percentile < 100.0)
        .collect();
    line(name, &points, |(percentile, ms)| {
        (100.0 / (100.0 - percentile), *ms)
    })
}

fn run(report: &Report) -> Vec<Chart> {
    let series = &report.series;
    let seconds = linear("seconds");
    vec![
        Chart {
            title: "Requests per second, by when they were due",
            x: seconds,
            y: linear("1/s"),
            lines: vec![
                line("due", series, |p| (p.at, p.due)),
                line("good", series, |p| (p.at, p.good)),
                line("refused", series, |p| (p.at, p.refused)),
                line("bad", series, |p| (p.at, p.bad)),
            ],
        },
        Chart {
            title: "Latency from due, by when they were due",
            x: seconds,
            y: log("ms"),
            lines: vec![
                line("p50", series, |p| (p.at, p.p50_ms)),
                line("p99", series, |p| (p.at, p.p99_ms)),
            ],
        },
        Chart {
            title: "Latency by quantile",
            x: log("one in so many is slower"),
            y: log("ms"),
            lines: vec![nines(&report.curve, "latency")],
        },
    ]
}

fn compared(comparison: &Comparison) -> Vec<Chart> {
    let rounds: Vec<_> = (1..).map(f64::from).zip(&comparison.rounds).collect();
    let curves = comparison.rounds.last();
    vec![
        Chart {
            title: "Right answers per second",
            x: linear("round"),
            y: linear("1/s"),
            lines: vec![
                line("a", &rounds, |(i, round)| (*i, round.0.rates.answered)),
                line("b", &rounds, |(i, round)| (*i, round.1.rates.answered)),
            ],
        },
        Chart {
            title: "Latency by quantile, last round",
            x: log("one in so many is slower"),
            y: log("ms"),
            lines: curves.map_or_else(Vec::new, |round| {
                vec![nines(&round.0.curve, "a"), nines(&round.1.curve, "b")]
            }),
        },
    ]
}

fn swept(sweep: &Sweep) -> Vec<Chart> {
    let mut points: Vec<_> = sweep.points.iter().collect();
    points.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    vec![
        Chart {
            title: "Goodput against the rate asked for",
            x: linear("requests/s"),
            y: linear("1/s"),
            lines: vec![
                line("asked", &points, |p| (p.rate, p.rate)),
                line("good", &points, |p| (p.rate, p.report.rates.good)),
            ],
        },
        Chart {
            title: "Latency against the rate asked for",
            x: linear("requests/s"),
            y: log("ms"),
            lines: vec![
                line("p50", &points, |p| (p.rate, p.report.latency_ms.p50)),
                line("p99", &points, |p| (p.rate, p.report.latency_ms.p99)),
            ],
        },
    ]
}

fn classes(html: &mut String, report: &Report) {
    if report.classes.is_empty() {
        return;
    }
    html.push_str("<table><tr><th>class<th>due<th>good<th>p50 ms<th>p90 ms<th>p99 ms</tr>");
    for class in &report.classes {
        let _ = write!(
            html,
            "<tr><td>{}<td>{}<td>{:.2} %<td>{:.2}<td>{:.2}<td>{:.2}</tr>",
            escape(&class.name),
            class.counts.due,
            class.counts.good_percent(),
            class.latency_ms.p50,
            class.latency_ms.p90,
            class.latency_ms.p99
        );
    }
    html.push_str("</table>");
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::report;
    use super::super::{Search, search::Tried};
    use super::*;

    fn is_self_contained(html: &str) {
        for word in ["<script", "src=", "href=", "url(", "http-equiv", "@import"] {
            assert!(!html.contains(word), "{word}");
        }
        assert!(html.contains("<svg") && html.ends_with("</html>\n"));
        // What the target is called is text, never markup.
        assert!(html.contains("there &lt;&amp;&gt; here") && !html.contains("there <&>"));
    }

    #[test]
    fn every_page_fetches_nothing_and_escapes_what_others_wrote() {
        let run = report();
        is_self_contained(&Page::Run(&run).html());
        let comparison = Comparison::new(
            run.target.clone(),
            "b".into(),
            "l".into(),
            vec![(run.clone(), run.clone())],
        );
        is_self_contained(&Page::Comparison(&comparison).html());
        let mut search = Search::new(10.0, 5.0);
        search.record(true);
        let sweep = Sweep {
            target: run.target.clone(),
            require: 99.0,
            capacity: search.capacity(),
            points: vec![Tried {
                rate: 10.0,
                passed: true,
                report: run,
            }],
        };
        is_self_contained(&Page::Sweep(&sweep).html());
    }
}
