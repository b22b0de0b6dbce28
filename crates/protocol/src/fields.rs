//! Which fields messages have, and which of them a configuration sets.

use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, Value};

use crate::descriptors;
use crate::model_config::ModelConfig;

/// A field that a configuration sets to something other than its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetField {
    /// The message that has the field, without its package: `ModelInput`, `ModelEnsembling.Step`.
    pub message: String,
    /// The field's name.
    pub field: String,
    /// Where it is, as [`crate::Positions`] names it: `input[0].optional`.
    pub path: String,
}

/// Every field, at any depth, that a configuration sets to something other than its default.
pub fn set_fields(config: &ModelConfig) -> Vec<SetField> {
    let mut message = DynamicMessage::new(descriptors::model_config());
    message.transcode_from(config).expect("invariant: the type is generated from the same descriptor");
    let mut fields = Vec::new();
    visit_message(&message, "", &mut fields);
    fields
}

/// The fields of a message of package `inference` and, for those that hold messages, which one; `None` for a name that is
/// no message. Maps count as holding their value's message.
pub fn message_fields(message: &str) -> Option<Vec<(String, Option<String>)>> {
    let descriptor = descriptors::message(message)?;
    let held = |field: &FieldDescriptor| {
        let kind = field.kind();
        let held = kind.as_message()?;
        if !field.is_map() {
            return Some(short_name(held.full_name()).to_owned());
        }
        held.map_entry_value_field().kind().as_message().map(|value| short_name(value.full_name()).to_owned())
    };
    Some(descriptor.fields().map(|field| (field.name().to_owned(), held(&field))).collect())
}

fn short_name(full_name: &str) -> &str {
    full_name.strip_prefix("inference.").unwrap_or(full_name)
}

fn visit_message(message: &DynamicMessage, path: &str, fields: &mut Vec<SetField>) {
    let owner = message.descriptor();
    for (field, value) in message.fields() {
        let name = field.name();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let message = short_name(owner.full_name()).to_owned();
        fields.push(SetField { message, field: name.to_owned(), path: path.clone() });
        visit_value(value, &path, fields);
    }
}

fn visit_value(value: &Value, path: &str, fields: &mut Vec<SetField>) {
    match value {
        Value::Message(message) => visit_message(message, path, fields),
        Value::List(values) => {
            values
                .iter()
                .enumerate()
                .for_each(|(index, value)| visit_value(value, &format!("{path}[{index}]"), fields));
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                let path = match key {
                    MapKey::String(key) => format!("{path}[{key:?}]"),
                    key => format!("{path}[{}]", Value::from(key.clone()).as_u64().unwrap_or_default()),
                };
                visit_value(value, &path, fields);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_model_config;

    #[test]
    fn set_fields_have_the_paths_of_their_positions() {
        let text = r#"input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] optional: true allow_ragged_batch: false }
            dynamic_batching { priority_queue_policy { key: 3 value { max_queue_size: 1 } } }
            parameters { key: "k" value { string_value: "v" } }"#;
        let parsed = parse_model_config(text).expect("valid");
        let fields = set_fields(&parsed.config);
        let unknown = fields.iter().find(|field| parsed.positions.exact(&field.path).is_none());
        assert_eq!(unknown, None);
        let paths: Vec<&str> = fields.iter().map(|field| field.path.as_str()).collect();
        for path in [
            "input[0].optional",
            "parameters[\"k\"].string_value",
            "dynamic_batching.priority_queue_policy[3].max_queue_size",
        ] {
            assert!(paths.contains(&path), "{path} in {paths:?}");
        }
        assert!(!paths.contains(&"input[0].allow_ragged_batch"), "{paths:?}");
        let step = message_fields("ModelEnsembling").expect("exists");
        assert_eq!(step[0], ("step".to_owned(), Some("ModelEnsembling.Step".to_owned())));
        assert_eq!(message_fields("Nothing"), None);
    }
}
