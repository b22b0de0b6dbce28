//! `cargo xtask fuzz`: each target for some time, one after the other.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(seconds) = arguments.next().and_then(|seconds| seconds.parse().ok()) else {
        eprintln!("usage: fuzz SECONDS [TARGET…]; targets: {:?}", fuzz::TARGETS.each_ref().map(|target| target.name));
        return ExitCode::from(64);
    };
    let chosen: Vec<String> = arguments.collect();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let mut code = ExitCode::SUCCESS;
    for target in
        fuzz::TARGETS.iter().filter(|target| chosen.is_empty() || chosen.iter().any(|name| name == target.name))
    {
        match fuzz::run(target, Duration::from_secs(seconds), seed) {
            Ok(report) => println!("{}: {report:?}", target.name),
            Err(failure) => {
                eprintln!("{failure}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
