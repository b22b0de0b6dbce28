//! A scrape of `/metrics`, taken apart.

use std::collections::BTreeMap;

/// The series of one scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    series: Vec<Series>,
    types: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads Prometheus' text format.
    ///
    /// # Panics
    /// When it is not that.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Metrics { series: Vec::new(), types: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                metrics.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                metrics.series.push(series(line).unwrap_or_else(|| panic!("not a line of metrics: {line}")));
            }
        }
        metrics
    }

    /// The sum of all series of a metric that have these labels; 0 when there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // Not `Iterator::sum`, whose empty sum is -0.
        self.matching(name, labels).fold(0.0, |sum, series| sum + series.value)
    }

    /// How many series there are in all.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Whether there is such a series.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// The type that is declared for a metric.
    pub fn kind(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str)
    }

    /// The names of all metrics that a type is declared for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// The different values of a label among a metric's series.
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let found = self.matching(name, &[]).filter_map(|series| series.labels.get(label).cloned());
        let unique: std::collections::BTreeSet<_> = found.collect();
        unique.into_iter().collect()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(move |series| {
            let has = |(label, value): &(&str, &str)| series.labels.get(*label).is_some_and(|found| found == value);
            series.name == name && labels.iter().all(has)
        })
    }
}

/// `name{label="value",…} number`, with `\\`, `\"` and `\n` escaped in values.
fn series(line: &str) -> Option<Series> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
        rest = rest.strip_prefix('}')?;
    }
    Some(Series { name: name.to_owned(), labels, value: rest.trim().parse().ok()? })
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[position + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_prometheus_clients_write() {
        let text = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"q\\\"}\\\\\"} 2\na{x=\"2\"} 3e0\n\nb 1.5\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a", &[]), 5.0);
        assert_eq!(metrics.sum("a", &[("y", "q\"}\\")]), 2.0);
        assert_eq!(metrics.sum("b", &[]), 1.5);
        assert_eq!(metrics.sum("c", &[]), 0.0);
        assert_eq!((metrics.kind("a"), metrics.values("a", "x")), (Some("counter"), vec!["1".into(), "2".into()]));
    }
}
