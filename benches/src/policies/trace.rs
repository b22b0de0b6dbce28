//! Traces: which archive was asked for when, and what it takes; from a CSV file or from a generator.
//!
//! A file has a header, `seconds,archive,bytes,load_seconds`, and a line for each request in order of time: seconds since the
//! beginning, the archive's key (without a comma), the bytes that it takes in memory, and how long it takes to load from disk.
//! Bytes and load seconds may be left out where the archive has had them before. Lines that begin with `#` are comments.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const HEADER: &str = "seconds,archive,bytes,load_seconds";

/// An archive of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    /// Its key.
    pub name: String,
    /// What it takes in memory.
    pub bytes: u64,
    /// How long it takes to load.
    pub load_seconds: f64,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Access {
    /// Since the beginning.
    pub at: Duration,
    /// Which of [`Trace::archives`].
    pub archive: usize,
}

/// Requests in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// Every archive that is asked for.
    pub archives: Vec<Archive>,
    /// The requests.
    pub accesses: Vec<Access>,
}

impl Trace {
    /// Reads a CSV file's text.
    ///
    /// # Errors
    /// With the number of the first line that is not as described above.
    pub fn from_csv(text: &str) -> Result<Self> {
        let is_content = |(_, line): &(usize, &str)| !line.is_empty() && !line.starts_with('#');
        let mut lines = text.lines().map(str::trim).enumerate().filter(is_content);
        let header = lines.next().map_or("", |(_, line)| line);
        ensure!(header == HEADER, "the first line is '{header}', not '{HEADER}'");
        let (mut trace, mut known) = (Trace::default(), HashMap::new());
        for (index, line) in lines {
            trace.read_line(line, &mut known).with_context(|| format!("line {}: '{line}'", index + 1))?;
        }
        ensure!(!trace.accesses.is_empty(), "the trace has no request");
        Ok(trace)
    }

    fn read_line(&mut self, line: &str, known: &mut HashMap<String, usize>) -> Result<()> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [seconds, name, bytes, load_seconds] = fields[..] else {
            bail!("{} fields instead of 4 ({HEADER})", fields.len())
        };
        let at = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let at = at.with_context(|| format!("'{seconds}' is no number of seconds"))?;
        ensure!(self.accesses.last().is_none_or(|last| last.at <= at), "it is earlier than the line before");
        let archive = match known.get(name) {
            Some(archive) => *archive,
            None => {
                let bytes = bytes.parse().with_context(|| format!("'{bytes}' is no number of bytes"))?;
                let load_seconds: f64 =
                    load_seconds.parse().with_context(|| format!("'{load_seconds}' is no number of seconds"))?;
                ensure!(load_seconds.is_finite() && load_seconds >= 0.0, "'{load_seconds}' is no number of seconds");
                self.archives.push(Archive { name: name.to_owned(), bytes, load_seconds });
                known.insert(name.to_owned(), self.archives.len() - 1);
                self.archives.len() - 1
            }
        };
        self.accesses.push(Access { at, archive });
        Ok(())
    }

    /// The bytes of all archives together.
    pub fn bytes(&self) -> u64 {
        self.archives.iter().map(|archive| archive.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_what_is_wrong_is_named() {
        let text =
            "# from a server\nseconds,archive,bytes,load_seconds\n0,a.tar.gz,100,0.5\n1.25,b,7,2\n1.25,a.tar.gz,,\n";
        let trace = Trace::from_csv(text).unwrap();
        assert_eq!(trace.archives[0], Archive { name: "a.tar.gz".to_owned(), bytes: 100, load_seconds: 0.5 });
        assert_eq!(trace.accesses.iter().map(|access| access.archive).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(trace.bytes(), 107);
        let header = format!("{HEADER}\n");
        for (lines, expected) in [
            ("0,a,,", "no number of bytes"),
            ("0,a,1", "3 fields"),
            ("-1,a,1,1", "'-1' is no number of seconds"),
            ("0,a,1,NaN", "no number of seconds"),
            ("2,a,1,1\n1,a,1,1", "line 3"),
            ("", "no request"),
        ] {
            let error = Trace::from_csv(&(header.clone() + lines)).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
        assert!(Trace::from_csv("a,b\n").unwrap_err().to_string().contains(HEADER));
    }
}
