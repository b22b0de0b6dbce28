//! `cargo xtask demo`: a server on a folder of demo archives, one call to each, readable answers, URLs to try.

mod answers;
mod client;
mod server;

use std::{path::PathBuf, process::Command, sync::mpsc};

use anyhow::{Context, Result, bail};
use client::Client;
use server::Server;

use crate::{process, setup, workspace};

/// What `demo` can be told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Exit after the answers; the exit status tells whether all of them were right
    #[arg(long)]
    once: bool,
    /// Build the server in the release profile: slower to build, faster to answer
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::for_demo()?;
    let binary = build(args.release)?;
    let stop = interrupts()?;
    let mut server = Server::start(&binary, args.once)?;
    server.wait_until_ready()?;
    let failed = answers::show_all(&Client::new(server.http_port()));
    if args.once {
        server.stop()?;
    } else {
        server.print_urls();
        server.serve_until(&stop)?;
    }
    match failed {
        0 => Ok(()),
        count => {
            bail!("{count} demo requests went wrong (see above; the server's log is {})", server::log_file().display())
        }
    }
}

/// Gets a message on Ctrl-C or SIGTERM.
fn interrupts() -> Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel();
    // The receiver is gone only when `run` is over: then nobody waits for the message.
    ctrlc::set_handler(move || _ = sender.send(())).context("cannot watch for Ctrl-C")?;
    Ok(receiver)
}

/// Builds the server and asks cargo where the binary is: CARGO_TARGET_DIR may have moved it.
fn build(release: bool) -> Result<PathBuf> {
    eprintln!("building the server (the first time takes minutes)");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--bin", "panoply"]).args(release.then_some("--release")).current_dir(workspace::root());
    process::run(&mut cargo)?;
    let messages = process::capture(cargo.args(["--quiet", "--message-format=json"]))?;
    executable(&String::from_utf8_lossy(&messages)).context("cargo did not say where it put the binary `panoply`")
}

fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut executables = messages.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    executables.find(|path| path.file_stem().is_some_and(|name| name == "panoply"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_in_what_cargo_writes() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nnot json\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/panoply\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/debug/panoply")));
        assert_eq!(executable("{}"), None);
    }
}
