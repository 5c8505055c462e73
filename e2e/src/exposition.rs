//! A strict reader of metrics pages in Prometheus' text format (version 0.0.4). What its parser takes and this refuses is
//! what other readers stumble over: a family without HELP or TYPE, or in two places; a counter that is not named `_total`.
//!
//! Pure. It refuses summaries and untyped metrics, of which Mobula has none.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};

/// Labels of a series, sorted.
pub type Labels = BTreeMap<String, String>;

/// Every series of a page with its value; those of histograms with their suffixes.
pub type Page = BTreeMap<(String, Labels), f64>;

#[derive(Debug, Default)]
struct Family {
    name: String,
    has_help: bool,
    kind: Option<Kind>,
    /// In the order of the page.
    samples: Vec<(String, Labels, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Reads a page.
///
/// # Errors
/// At the first line, or the first family, that is not as it must be, which is named.
pub fn read(page: &str) -> anyhow::Result<Page> {
    ensure!(page.ends_with('\n'), "the last line does not end");
    let mut families: Vec<Family> = Vec::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        take(line, &mut families).with_context(|| line.to_owned())?;
    }
    let mut names = BTreeSet::new();
    let mut series = Page::new();
    for family in families {
        ensure!(
            names.insert(family.name.clone()),
            "{} is in two places",
            family.name
        );
        family.check().with_context(|| family.name.clone())?;
        for (name, labels, value) in family.samples {
            let twice = series.insert((name.clone(), labels.clone()), value);
            ensure!(twice.is_none(), "{name} {labels:?} is there twice");
        }
    }
    Ok(series)
}

/// Takes a line into the family at the end, or into a new one.
fn take(line: &str, families: &mut Vec<Family>) -> anyhow::Result<()> {
    if let Some(rest) = line.strip_prefix("# HELP ") {
        let (name, help) = rest.split_once(' ').context("no text")?;
        unescape(help, false)?;
        let family = of(name, families)?;
        ensure!(!family.has_help, "a second HELP");
        family.has_help = true;
        return Ok(());
    }
    if let Some(rest) = line.strip_prefix("# TYPE ") {
        let (name, kind) = rest.split_once(' ').context("no type")?;
        let kind = match kind {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            other => bail!("{other:?} is no type of ours"),
        };
        let family = of(name, families)?;
        ensure!(family.kind.is_none(), "a second TYPE");
        ensure!(family.samples.is_empty(), "a TYPE behind samples");
        family.kind = Some(kind);
        return Ok(());
    }
    ensure!(!line.starts_with('#'), "neither HELP nor TYPE");
    let (name, labels, value) = sample(line)?;
    let family = families.last_mut().context("a sample before every TYPE")?;
    let suffix = name.strip_prefix(&family.name);
    let is_its = match family.kind {
        Some(Kind::Histogram) => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
        Some(Kind::Counter | Kind::Gauge) => suffix == Some(""),
        None => false,
    };
    ensure!(is_its, "not a sample of {}, which goes before", family.name);
    family.samples.push((name, labels, value));
    Ok(())
}

/// The family that a HELP or TYPE line is about.
fn of<'a>(name: &str, families: &'a mut Vec<Family>) -> anyhow::Result<&'a mut Family> {
    ensure!(is_name(name, ":"), "{name:?} is no name");
    if families.last().is_none_or(|last| last.name != name) {
        families.push(Family {
            name: name.to_owned(),
            ..Family::default()
        });
    }
    families.last_mut().context("one was pushed")
}

fn is_name(text: &str, beside: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || beside.contains(c);
    text.starts_with(is_first) && text.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

/// Reads `name{label="value",...} value`.
fn sample(line: &str) -> anyhow::Result<(String, Labels, f64)> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name, ":"), "{name:?} is no name");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").context("no label")?;
            ensure!(
                is_name(label, "") && !label.starts_with("__"),
                "{label:?} is no label"
            );
            let end = end_of_value(behind).context("a label's value does not end")?;
            let value = unescape(&behind[..end], true)?;
            let twice = labels.insert(label.to_owned(), value);
            ensure!(twice.is_none(), "label {label} is there twice");
            rest = &behind[end + 1..];
            match rest.split_at_checked(1) {
                Some((",", more)) => rest = more,
                Some(("}", more)) => {
                    rest = more;
                    break;
                }
                _ => bail!("neither a comma nor a brace behind label {label}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').context("no space before the value")?;
    Ok((name.to_owned(), labels, number(value)?))
}

/// A number as the format spells it; a time stamp behind it is none of ours.
fn number(text: &str) -> anyhow::Result<f64> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ => {
            let is_plain = text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            ensure!(is_plain, "{text:?} is no number");
            Ok(text.parse()?)
        }
    }
}

/// Where a label's value ends: at the first quotation mark that is not escaped.
fn end_of_value(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

/// Undoes escapes; only labels' values have quotation marks to escape.
fn unescape(text: &str, is_label: bool) -> anyhow::Result<String> {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        plain.push(match (c, is_label) {
            ('\\', _) => match (rest.next(), is_label) {
                (Some('\\'), _) => '\\',
                (Some('n'), _) => '\n',
                (Some('"'), true) => '"',
                (other, _) => bail!("\\{other:?} is no escape"),
            },
            ('"', true) => bail!("a quotation mark that is not escaped"),
            (c, _) => c,
        });
    }
    Ok(plain)
}

impl Family {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.has_help, "no HELP");
        match self.kind.context("no TYPE")? {
            Kind::Gauge => Ok(()),
            Kind::Counter => {
                ensure!(
                    self.name.ends_with("_total"),
                    "a counter whose name does not end in _total"
                );
                let counts = self
                    .samples
                    .iter()
                    .all(|(_, _, value)| *value >= 0.0 && value.is_finite());
                ensure!(counts, "a counter that does not count");
                Ok(())
            }
            Kind::Histogram => self.check_histogram(),
        }
    }

    fn check_histogram(&self) -> anyhow::Result<()> {
        let mut distributions: BTreeMap<Labels, Distribution> = BTreeMap::new();
        for (name, labels, value) in &self.samples {
            let mut labels = labels.clone();
            let bound = labels.remove("le");
            let one = distributions.entry(labels).or_default();
            match (&name[self.name.len()..], bound) {
                ("_bucket", Some(bound)) => one.buckets.push((number(&bound)?, *value)),
                ("_sum", None) => one.sum = Some(*value),
                ("_count", None) => one.count = Some(*value),
                (suffix, bound) => bail!("{suffix} with le {bound:?}"),
            }
        }
        for (labels, one) in distributions {
            one.check().with_context(|| format!("{labels:?}"))?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Distribution {
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

impl Distribution {
    fn check(&self) -> anyhow::Result<()> {
        for pair in self.buckets.windows(2) {
            let [(bound, below), (next_bound, next_below)] = pair else {
                continue;
            };
            ensure!(
                bound < next_bound,
                "the bucket of {next_bound} is behind that of {bound}"
            );
            ensure!(
                below <= next_below,
                "{next_below} up to {next_bound}, and {below} up to {bound}"
            );
        }
        let (bound, all) = self.buckets.last().context("no buckets")?;
        ensure!(*bound == f64::INFINITY, "no bucket of +Inf");
        let count = self.count.context("no _count")?;
        ensure!(*all == count, "{all} up to +Inf, and {count} in all");
        ensure!(
            self.sum.context("no _sum")?.is_finite(),
            "a sum that is no number"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# HELP a_total Told\\nwith \\\\.\n# TYPE a_total counter\n";
    const HISTOGRAM: &str = "# HELP h Time.\n# TYPE h histogram\n";

    #[test]
    fn what_is_written_well_is_read_with_every_label() {
        let page = format!(
            "{HEAD}a_total{{x=\"\\\"a\\\\\\n,}}\",y=\"\"}} 3\na_total 4e2\n{HISTOGRAM}h_bucket{{le=\"0.5\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\nh_sum 3.5\nh_count 2\n"
        );
        let series = read(&page).unwrap();
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(own).collect()
        };
        let value = |name: &str, pairs| series.get(&(name.to_owned(), labels(pairs))).copied();
        assert_eq!(value("a_total", &[("x", "\"a\\\n,}"), ("y", "")]), Some(3.0));
        assert_eq!(value("a_total", &[]), Some(400.0));
        assert_eq!(value("h_bucket", &[("le", "+Inf")]), Some(2.0));
    }

    proptest::proptest! {
        #[test]
        fn no_page_makes_the_reader_panic(name in "[a-z{}\"\\\\=, é#]{0,12}", value in "[0-9+-. eInfNa]{0,6}") {
            let _ = read(&format!("{HEAD}a_total{{{name}}} {value}\n# {name}\n"));
        }

        #[test]
        fn whatever_is_escaped_is_read_again(value in ".{0,20}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            // A carriage return is the format's own business.
            proptest::prop_assume!(!value.contains('\r'));
            let page = read(&format!("{HEAD}a_total{{x=\"{escaped}\"}} 1\n")).unwrap();
            proptest::prop_assert_eq!(&page.keys().next().unwrap().1["x"], &value);
        }
    }

    #[test]
    fn what_is_not_is_refused_with_its_reason() {
        for (page, why) in [
            (format!("{HEAD}a_total 1"), "does not end"),
            (format!("{HEAD}a_total 1\na_total 2\n"), "twice"),
            (format!("{HEAD}{HEAD}"), "second HELP"),
            (format!("{HEAD}{HISTOGRAM}{HEAD}"), "two places"),
            ("# TYPE a_total counter\na_total 1\n".to_owned(), "no HELP"),
            ("# HELP a b\na 1\n".to_owned(), "not a sample"),
            ("a 1\n".to_owned(), "before every TYPE"),
            ("# HELP a b\n# TYPE a counter\na 1\n".to_owned(), "_total"),
            ("# HELP a b\n# TYPE a summary\n".to_owned(), "no type"),
            ("# HELP a-b c\n".to_owned(), "no name"),
            (format!("{HEAD}a_total -1\n"), "does not count"),
            (format!("{HEAD}a_total NaN\n"), "does not count"),
            (format!("{HEAD}a_total inf\n"), "no number"),
            (format!("{HEAD}a_total{{1=\"\"}} 1\n"), "no label"),
            (format!("{HEAD}a_total{{x=\"\",x=\"\"}} 1\n"), "twice"),
            (format!("{HEAD}a_total{{x=\"\\t\"}} 1\n"), "no escape"),
            (format!("{HEAD}a_total{{x=\"}} 1\n"), "does not end"),
            (format!("{HEAD}b_total 1\n"), "not a sample"),
            (format!("{HISTOGRAM}h 1\n"), "not a sample"),
            (format!("{HISTOGRAM}h_sum 1\nh_count 1\n"), "no buckets"),
            (
                format!("{HISTOGRAM}h_bucket{{le=\"1\"}} 1\nh_sum 1\nh_count 1\n"),
                "+Inf",
            ),
            (
                format!("{HISTOGRAM}h_bucket{{le=\"+Inf\"}} 1\nh_sum 1\nh_count 2\n"),
                "in all",
            ),
            (
                format!("{HISTOGRAM}h_bucket{{le=\"1\"}} 2\nh_bucket{{le=\"+Inf\"}} 1\nh_sum 1\nh_count 1\n"),
                "up to 1",
            ),
            (
                format!("{HISTOGRAM}h_bucket{{le=\"2\"}} 1\nh_bucket{{le=\"1\"}} 1\nh_sum 1\nh_count 1\n"),
                "behind",
            ),
        ] {
            let error = read(&page).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{page:?}: {error:#}");
        }
    }
}
