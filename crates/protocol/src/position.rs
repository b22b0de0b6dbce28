//! Where things stand in a configuration file, and what is wrong there.

use std::collections::HashMap;
use std::fmt;

/// A place in a text: line and column, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// Where a text begins.
    pub const START: Position = Position { line: 1, column: 1 };
}

/// `12:7`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something wrong in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigProblem {
    /// Where it is.
    pub position: Position,
    /// What was found and what was expected.
    pub message: String,
}

/// `12:7: what is wrong`.
impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.message)
    }
}

impl std::error::Error for ConfigProblem {}

/// Where each field of a configuration stands in its file.
///
/// Fields are named by paths: `max_batch_size`, `input[0].dims`, `input[0].dims[2]`, `parameters["k"]`,
/// `ensemble_scheduling.step[1].input_map["x"]`. A field's position is that of its name, a list element's that of its
/// first character; what a map's value holds comes right after the key: `parameters["k"].string_value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(HashMap<String, Position>);

impl Positions {
    /// The position of a field, or else of the nearest thing around it that is in the file; `None` when there is nothing
    /// around it.
    pub fn of(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(position) = self.exact(path) {
                return Some(position);
            }
            path = enclosing(path)?;
        }
    }

    /// The position of a field that the file mentions; `None` when it does not.
    pub fn exact(&self, path: &str) -> Option<Position> {
        self.0.get(path).copied()
    }

    /// Adds a position; the first one for a path stays.
    pub(crate) fn insert(&mut self, path: String, position: Position) {
        self.0.entry(path).or_insert(position);
    }
}

/// The path around a path: `a[0].b` → `a[0]` → `a` → none. Quoted keys may hold dots and brackets.
fn enclosing(path: &str) -> Option<&str> {
    let mut last = None;
    let (mut quoted, mut escaped) = (false, false);
    for (at, character) in path.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '.' | '[' if !quoted && at > 0 => last = Some(at),
            _ => {}
        }
    }
    last.map(|at| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_back_to_what_is_around() {
        let mut positions = Positions::default();
        let at = |line| Position { line, column: 1 };
        positions.insert("input".into(), at(1));
        positions.insert("input[1]".into(), at(2));
        positions.insert(r#"parameters["a.b[0]"]"#.into(), at(3));
        let cases = [
            ("input[1]", Some(at(2))),
            ("input[1].dims[3]", Some(at(2))),
            ("input[2].dims", Some(at(1))),
            (r#"parameters["a.b[0]"].string_value"#, Some(at(3))),
            (r#"parameters["other"]"#, None),
            ("output", None),
            ("", None),
        ];
        for (path, expected) in cases {
            assert_eq!(positions.of(path), expected, "{path}");
        }
    }
}
