//! Markdown tables and the figures in them. Pure.

use std::fmt::Write;

use crate::statistics::range;

/// A Markdown table; its first column is text, the others are figures.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[&str]) -> Self {
        Table { columns: columns.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = line(&self.columns);
        let rules = (0..self.columns.len()).map(|index| if index == 0 { "---" } else { "---:" }.to_owned());
        text.push_str(&line(&rules.collect::<Vec<_>>()));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text
    }
}

fn line(cells: &[String]) -> String {
    let mut text = String::from("|");
    for cell in cells {
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
    text
}

/// A figure with about three digits: `0.21`, `4.56`, `78.9`, `123`, `45,678`.
pub fn figure(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "–".to_owned(),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// The smallest and the largest of some figures: `1.20–3.40`.
pub fn spread(values: impl IntoIterator<Item = f64>) -> String {
    let (low, high) = range(values);
    if low > high { figure(f64::NAN) } else { format!("{}–{}", figure(low), figure(high)) }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let cases = [
            (0.2149, "0.21"),
            (4.563, "4.56"),
            (78.94, "78.9"),
            (123.4, "123"),
            (1234.0, "1,234"),
            (-45_678.0, "-45,678"),
            (f64::NAN, "–"),
        ];
        for (value, expected) in cases {
            assert_eq!(figure(value), expected);
        }
    }

    #[test]
    fn a_spread_of_nothing_is_a_dash() {
        assert_eq!(spread([3.4, 1.2]), "1.20–3.40");
        assert_eq!(spread([]), "–");
    }

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new(&["case", "µs"]);
        table.row(vec!["a".to_owned(), figure(1.0)]);
        assert_eq!(table.markdown(), "| case | µs |\n| --- | ---: |\n| a | 1.00 |\n");
    }
}
