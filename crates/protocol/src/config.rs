//! Parses `config.pbtxt` into a `ModelConfig`, with the position of everything in it and all problems at once.

use prost_reflect::{DynamicMessage, Value};

use crate::model_config::ModelConfig;
use crate::{ConfigProblem, Position, Positions, descriptors, text_format};

/// A configuration and where its fields stand in the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedConfig {
    /// The configuration.
    pub config: ModelConfig,
    /// Where each field that the text mentions stands.
    pub positions: Positions,
}

/// Parses the text of a `config.pbtxt`.
///
/// Accepts the text format of protocol buffers as its specification has it, apart from extensions and `Any`.
///
/// # Errors
/// Every problem in the text, sorted by position: syntax, unknown fields and values, and inputs and outputs without a
/// name, type or dimensions.
pub fn parse_model_config(text: &str) -> Result<ParsedConfig, Vec<ConfigProblem>> {
    let (parsed, problems) = read_model_config(text);
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

/// Like [`parse_model_config`], but also returns what could be read where there are problems, so that a caller can add
/// problems of its own. Values that could not be read are their type's default.
pub fn read_model_config(text: &str) -> (ParsedConfig, Vec<ConfigProblem>) {
    let (message, positions, mut problems) = text_format::read(text, descriptors::model_config());
    problems.extend(missing_fields(&message, &positions));
    problems.sort();
    problems.dedup();
    problems.truncate(text_format::MOST_PROBLEMS);
    let config = message.transcode_to().expect("invariant: the type is generated from the same descriptor");
    (ParsedConfig { config, positions }, problems)
}

/// Every input and output must say its name, type and dimensions.
fn missing_fields(message: &DynamicMessage, positions: &Positions) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    for list in ["input", "output"] {
        let tensors = message.get_field_by_name(list);
        let tensors = tensors.as_deref().and_then(Value::as_list).unwrap_or_default();
        for (index, tensor) in tensors.iter().enumerate() {
            let path = format!("{list}[{index}]");
            let name = tensor.as_message().and_then(|tensor| tensor.get_field_by_name("name"));
            let name = name.as_deref().and_then(Value::as_str).unwrap_or_default();
            let mentioned = |field: &str| positions.exact(&format!("{path}.{field}")).is_some();
            let missing: Vec<_> = ["name", "data_type", "dims"].into_iter().filter(|field| !mentioned(field)).collect();
            if !missing.is_empty() {
                let which = if name.is_empty() { format!("this {list}") } else { format!("{list} `{name}`") };
                let are = if missing.len() == 1 { "is" } else { "are" };
                let message = format!("`{}` {are} missing in {which}", missing.join("`, `"));
                problems.push(ConfigProblem { position: positions.of(&path).unwrap_or(Position::START), message });
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;
