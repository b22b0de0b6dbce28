//! The architecture as a dependency table: which crate may know which, and who alone may use a heavy dependency.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{process, workspace};

/// The workspace's crates that each crate may depend on. Anything else is an error.
const DIRECTIONS: [(&str, &[&str]); 14] = [
    ("inference", &[]),
    ("protocol", &[]),
    ("repository", &["inference", "protocol"]),
    ("scheduler", &["inference"]),
    ("model-cache", &["inference", "repository", "scheduler"]),
    ("backend-onnxruntime", &["inference"]),
    ("backend-text", &["inference"]),
    ("frontend", &["inference", "protocol"]),
    ("test-util", &["inference"]),
    ("xtask", &[]),
    ("server", EVERYTHING),
    ("e2e", EVERYTHING),
    ("benches", EVERYTHING),
    ("fuzz", &["frontend", "protocol", "repository", "test-util"]),
];

/// For the crates that wire the others together.
const EVERYTHING: &[&str] = &[
    "inference",
    "protocol",
    "repository",
    "scheduler",
    "model-cache",
    "backend-onnxruntime",
    "backend-text",
    "frontend",
    "server",
    "test-util",
];

/// What tests may use besides their crate's own dependencies.
const FOR_TESTS: &[&str] = &["test-util"];

/// Dependencies from outside (a name, or a prefix that ends in `*`), the only crates that may use them outside of tests,
/// and why.
const OWNED: [(&str, &[&str], &str); 14] = [
    ("ort", &["backend-onnxruntime"], "only a backend crate knows its runtime"),
    ("tokenizers", &["backend-text"], "only a backend crate knows its runtime"),
    ("aws-*", &["repository", "test-util"], "only the model store speaks S3"),
    ("tar", &["repository", "test-util"], "only `repository` unpacks archives, with its checks against hostile ones"),
    ("axum", &["frontend"], "only `frontend` knows wire formats"),
    ("hyper", &["frontend", "test-util"], "only `frontend` knows wire formats"),
    ("tokio-rustls", &["frontend"], "only `frontend` serves sockets"),
    ("prost", &["protocol", "frontend"], "protobuf is a wire format"),
    ("prost-reflect", &["protocol"], "protobuf is a wire format"),
    ("cudarc", &["model-cache"], "only the model cache calls the CUDA driver; others use `inference::DeviceMemory`"),
    (
        "tokio",
        &["repository", "scheduler", "model-cache", "frontend", "server", "test-util"],
        "no runtime below the seams",
    ),
    ("opentelemetry*", &["server"], "how traces leave the process is settled in one place"),
    ("clap", &["server", "xtask"], "settings are read in one place"),
    ("anyhow", &["server", "xtask"], "elsewhere an error has a kind, set where it is born"),
];

/// The packages of end-to-end tests, benchmarks and fuzzing: they are tests from end to end.
const ALL_TESTS: [&str; 3] = ["e2e", "benches", "fuzz"];

/// One line of a Cargo.toml.
struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    is_dev: bool,
    is_local: bool,
}

/// Checks every dependency that the workspace's manifests declare.
pub(super) fn check() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version=1", "--no-deps"]).current_dir(workspace::root());
    let metadata: Value =
        serde_json::from_slice(&process::capture(&mut cargo)?).context("cargo metadata is not JSON")?;
    let edges = edges(&metadata).context("cargo metadata has an unexpected form")?;
    let problems: Vec<_> = edges.iter().filter_map(problem).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn edges(metadata: &Value) -> Option<Vec<Edge<'_>>> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array()? {
        for dependency in package["dependencies"].as_array()? {
            found.push(Edge {
                from: package["name"].as_str()?,
                to: dependency["name"].as_str()?,
                is_dev: dependency["kind"] == "dev",
                is_local: dependency["path"].is_string(),
            });
        }
    }
    Some(found)
}

/// What is wrong with a dependency, if anything.
fn problem(edge: &Edge<'_>) -> Option<String> {
    if edge.is_local { forbidden_direction(edge) } else { not_the_owner(edge) }
}

fn forbidden_direction(edge: &Edge<'_>) -> Option<String> {
    let Edge { from, to, is_dev, .. } = edge;
    let Some((_, allowed)) = DIRECTIONS.iter().find(|(name, _)| name == from) else {
        return Some(format!("{from} is not in the table of crates/xtask/src/check/dependencies.rs: add it there"));
    };
    let is_allowed = allowed.contains(to) || (*is_dev && FOR_TESTS.contains(to));
    (!is_allowed).then(|| format!("{from} must not depend on {to}; it may depend on: {}", list(allowed)))
}

fn not_the_owner(edge: &Edge<'_>) -> Option<String> {
    let (_, owners, reason) = OWNED.iter().find(|(pattern, ..)| matches(pattern, edge.to))?;
    let is_allowed = edge.is_dev || owners.contains(&edge.from) || ALL_TESTS.contains(&edge.from);
    (!is_allowed).then(|| format!("{} must not use {}: {reason} (used by: {})", edge.from, edge.to, list(owners)))
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing of the workspace".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(from: &str, to: &str, is_dev: bool) -> Option<String> {
        problem(&Edge { from, to, is_dev, is_local: true })
    }

    fn external(from: &str, to: &str) -> Option<String> {
        problem(&Edge { from, to, is_dev: false, is_local: false })
    }

    #[test]
    fn the_front_end_does_not_know_the_model_cache() {
        assert!(local("frontend", "model-cache", false).unwrap().contains("must not depend on model-cache"));
        assert!(local("frontend", "model-cache", true).is_some());
        assert!(local("server", "model-cache", false).is_none());
        assert!(local("frontend", "test-util", true).is_none());
        assert!(local("frontend", "test-util", false).is_some());
        assert!(local("unheard-of", "inference", false).unwrap().contains("add it there"));
    }

    #[test]
    fn a_heavy_dependency_has_its_owners() {
        assert!(external("repository", "aws-sdk-s3").is_none());
        assert!(external("server", "aws-sdk-s3").unwrap().contains("only the model store"));
        assert!(external("inference", "tokio").unwrap().contains("below the seams"));
        assert!(external("inference", "smallvec").is_none());
    }

    #[test]
    fn manifests_are_read_from_cargos_own_metadata() {
        let metadata = serde_json::json!({ "packages": [{ "name": "a", "dependencies": [
            { "name": "b", "kind": "dev", "path": "/w/b" }, { "name": "c", "kind": null } ] }] });
        let edges = edges(&metadata).unwrap();
        assert!(edges[0].is_dev && edges[0].is_local && !edges[1].is_dev && !edges[1].is_local);
    }
}
