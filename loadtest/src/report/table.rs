//! Reports as text, for a terminal.

use std::fmt;

use super::{Comparison, Latency, Report, Sweep};
use crate::units::show_ms;

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        write!(
            f,
            "mean {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            show_ms(self.mean),
            show_ms(self.p50),
            show_ms(self.p90),
            show_ms(self.p99),
            show_ms(self.p999),
            show_ms(self.max)
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let stopped = if self.interrupted {
            ", stopped before its end"
        } else {
            ""
        };
        writeln!(f, "target      {}", self.target)?;
        writeln!(f, "load        {}, {:.1} s{stopped}", self.load, self.seconds)?;
        writeln!(f, "due         {} ({:.1}/s)", counts.due, self.rates.due)?;
        writeln!(
            f,
            "right       {} ({:.1}/s came in time of the run, {:.0} bytes each)",
            counts.right, self.rates.answered, self.mean_bytes
        )?;
        writeln!(
            f,
            "good        {} ({:.1}/s, {:.2} % of due)",
            counts.good, self.rates.good, self.good_percent
        )?;
        writeln!(f, "latency     {}", self.latency_ms)?;
        if self.refusal_ms.count > 0 {
            writeln!(f, "refusals    {}", self.refusal_ms)?;
        }
        for (what, count) in [("not sent", counts.unsent), ("no end", counts.unfinished)] {
            if count > 0 {
                writeln!(f, "{what:<12}{count}")?;
            }
        }
        for (reason, count) in &self.reasons {
            writeln!(f, "  {reason}: {count}")?;
        }
        for class in &self.classes {
            let counts = &class.counts;
            writeln!(
                f,
                "class       {}: due {}, good {} ({:.2} %), {}",
                class.name,
                counts.due,
                counts.good,
                counts.good_percent(),
                class.latency_ms
            )?;
        }
        let warm = &self.warm_up;
        writeln!(
            f,
            "warm-up     due {}, right {}, wrong {}",
            warm.due, warm.right, warm.wrong
        )?;
        write!(
            f,
            "generator   {:.1} us of CPU a request, sent late by p50 {}, p99 {}",
            self.generator.cpu_us_per_request,
            show_ms(self.generator.lag_ms.p50),
            show_ms(self.generator.lag_ms.p99)
        )
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a           {}", self.a)?;
        writeln!(f, "b           {}", self.b)?;
        writeln!(
            f,
            "load        {}, {} rounds by turns",
            self.load,
            self.rounds.len()
        )?;
        write!(
            f,
            "{:<12}{:>14}{:>14}{:>12}   95 % of such runs",
            "", "a", "b", "a / b"
        )?;
        for ratio in &self.ratios {
            write!(f, "\n{:<12}{:>14.2}{:>14.2}", ratio.name, ratio.a, ratio.b)?;
            match ratio.spread {
                Some(spread) => write!(
                    f,
                    "{:>12.3}   {:.3} to {:.3}",
                    spread.mean, spread.low, spread.high
                )?,
                None => write!(f, "{:>12}", "-")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target      {}", self.target)?;
        writeln!(
            f,
            "{:>12}{:>12}{:>9}{:>12}{:>12}{:>12}",
            "rate", "good/s", "good %", "p50", "p99", "refused"
        )?;
        for point in &self.points {
            writeln!(
                f,
                "{:>12.1}{:>12.1}{:>9.2}{:>12}{:>12}{:>12}",
                point.rate,
                point.report.rates.good,
                point.report.good_percent,
                show_ms(point.report.latency_ms.p50),
                show_ms(point.report.latency_ms.p99),
                point.report.counts.refused + point.report.counts.refused_without_delay
            )?;
        }
        match self.capacity {
            Some(rate) => write!(
                f,
                "capacity    {rate:.1} requests/s with {} % of them good",
                self.require
            ),
            None => write!(
                f,
                "capacity    none found: no rate had {} % good answers",
                self.require
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::report;

    #[test]
    fn a_table_says_what_was_not_right_and_why() {
        let text = report().to_string();
        for line in [
            "due         23 (2.3/s)",
            "good        20 (2.0/s, 86.96 % of due)",
            "not sent    1",
            "  refused: 503: 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("no end"), "{text}");
    }
}
