//! What a benchmark is told on its command line.

use anyhow::{Context, Result, bail};

/// Starts this executable as the bare HTTP server of [`crate::echo`] instead; only the benchmark itself uses it.
pub const ECHO_SERVER: &str = "--echo-server";

/// How a benchmark is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Runs for seconds, to see that everything works; its figures mean little.
    pub quick: bool,
    /// Runs only the cases whose name has this in it.
    pub case: Option<String>,
    /// [`ECHO_SERVER`].
    pub echo_server: bool,
    /// What comes with [`Arguments::FILL`].
    pub fill: Option<String>,
}

impl Arguments {
    /// Fills this process with copies of a model instead (`NAME WEIGHTS`); only the benchmark itself uses it.
    pub const FILL: &str = "--fill";

    /// From the process's command line.
    ///
    /// # Errors
    /// For an argument that is not known.
    pub fn parse() -> Result<Self> {
        Self::of(std::env::args().skip(1))
    }

    fn of(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Arguments::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => parsed.quick = true,
                ECHO_SERVER => parsed.echo_server = true,
                "--case" => parsed.case = Some(arguments.next().context("--case needs a part of a case's name")?),
                Self::FILL => parsed.fill = arguments.next(),
                // Cargo says so to every benchmark.
                "--bench" => {}
                other => bail!(
                    "unknown argument '{other}'; there are --quick and --case NAME (cargo bench -p benches -- --quick)"
                ),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments> {
        Arguments::of(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn cargos_own_argument_is_passed_over_and_unknown_ones_are_refused() {
        assert_eq!(parse("--bench").unwrap(), Arguments::default());
        assert!(parse("--quick --bench").unwrap().quick);
        assert_eq!(parse("--case identity").unwrap().case.as_deref(), Some("identity"));
        assert!(parse("--case").is_err());
        assert!(parse("--fast").unwrap_err().to_string().contains("'--fast'"));
    }
}
