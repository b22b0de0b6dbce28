//! `parameters`, and those of them that mean something to the server.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use inference::Weights;
use protocol::model_config::ModelConfig;

use super::Findings;

/// How long a request to the model may take, instead of the server's default: `30s`.
const INFER_TIMEOUT: &str = "infer_timeout";
/// What the model takes once loaded, instead of an estimate: `512MiB`.
const MEMORY_BYTES: &str = "memory_bytes";

/// Where its weights are, instead of the server's default: `mapped`.
const WEIGHTS: &str = "weights";

/// Whether the wait of dynamic batching is learned, instead of the server's default: `true`.
const ADAPTIVE_BATCHING: &str = "adaptive_batching";

/// All parameters, as strings.
pub(super) fn all(config: &ModelConfig) -> BTreeMap<String, String> {
    config.parameters.iter().map(|(key, value)| (key.clone(), value.string_value.clone())).collect()
}

/// The parameter `infer_timeout`.
pub(super) fn infer_timeout(parameters: &BTreeMap<String, String>, findings: &mut Findings) -> Option<Duration> {
    let text = parameters.get(INFER_TIMEOUT)?;
    match humantime::parse_duration(text.trim()) {
        Ok(timeout) if !timeout.is_zero() => Some(timeout),
        _ => refuse(INFER_TIMEOUT, text, "a time such as 500ms or 30s", findings),
    }
}

/// The parameter `memory_bytes`.
pub(super) fn memory_bytes(parameters: &BTreeMap<String, String>, findings: &mut Findings) -> Option<u64> {
    let text = parameters.get(MEMORY_BYTES)?;
    match text.trim().parse::<ByteSize>() {
        Ok(size) => Some(size.as_u64()),
        Err(_) => refuse(MEMORY_BYTES, text, "a size such as 512MiB", findings),
    }
}

/// The parameter `weights`.
pub(super) fn weights(parameters: &BTreeMap<String, String>, findings: &mut Findings) -> Option<Weights> {
    let text = parameters.get(WEIGHTS)?;
    Weights::from_name(text.trim()).or_else(|| refuse(WEIGHTS, text, "private, mapped or auto", findings))
}

/// The parameter `adaptive_batching`, which needs dynamic batching.
pub(super) fn adaptive_batching(
    parameters: &BTreeMap<String, String>,
    batches: bool,
    findings: &mut Findings,
) -> Option<bool> {
    let text = parameters.get(ADAPTIVE_BATCHING)?;
    match text.trim() {
        "true" if batches => Some(true),
        "true" => refuse(ADAPTIVE_BATCHING, text, "`dynamic_batching` beside it", findings),
        "false" => Some(false),
        _ => refuse(ADAPTIVE_BATCHING, text, "true or false", findings),
    }
}

/// The most labels that `metric_tags` may add to a model's metrics.
const MOST_TAGS: usize = 16;

/// `metric_tags`.
pub(super) fn metric_tags(config: &ModelConfig, findings: &mut Findings) -> BTreeMap<String, String> {
    let count = config.metric_tags.len();
    if count > MOST_TAGS {
        findings.add("metric_tags", format!("there are {count} tags; at most {MOST_TAGS} are allowed"));
        return BTreeMap::new();
    }
    config.metric_tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn refuse<T>(key: &str, text: &str, expected: &str, findings: &mut Findings) -> Option<T> {
    findings.add(format!("parameters[{key:?}].string_value"), format!("`{key}` is {text:?}, expected {expected}"));
    None
}
