//! A model configuration as JSON, as Triton's `/config` prints it and its load call takes it.

use prost_reflect::{DeserializeOptions, DynamicMessage, SerializeOptions};

use crate::descriptors;
use crate::model_config::ModelConfig;

/// The configuration as Triton's `/v2/models/{name}/config` prints it: field names as in `config.pbtxt`, enums by name,
/// 64-bit integers as numbers, and fields that have their default value included (messages that are absent are not).
pub fn model_config_json(config: &ModelConfig) -> String {
    let mut message = DynamicMessage::new(descriptors::model_config());
    message.transcode_from(config).expect("invariant: the type is generated from the same descriptor");
    let options =
        SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false).skip_default_fields(false);
    let mut json = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut json, &options).expect("invariant: writing to memory does not fail");
    String::from_utf8(json.into_inner()).expect("invariant: serde_json writes UTF-8")
}

/// Reads a configuration from JSON: what [`model_config_json`] prints, or any other way of writing the same message that
/// the JSON format of protocol buffers allows.
///
/// # Errors
/// What is wrong, with line and column: no JSON, an unknown field, a value of another type.
pub fn parse_model_config_json(text: &str) -> Result<ModelConfig, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new();
    let read = DynamicMessage::deserialize_with_options(descriptors::model_config(), &mut json, &options);
    let message = read.and_then(|message| json.end().map(|()| message)).map_err(|error| error.to_string())?;
    Ok(message.transcode_to().expect("invariant: the type is generated from the same descriptor"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_model_config;

    #[test]
    fn reads_what_it_prints_and_what_people_write() {
        let text = r#"name: "m" max_batch_size: 8 parameters { key: "a" value { string_value: "1" } }
            input { name: "x" data_type: TYPE_FP32 dims: [ 16, -1 ] } model_warmup { name: "w" batch_size: 1 }
            dynamic_batching { max_queue_delay_microseconds: 9007199254740993 }"#;
        let config = parse_model_config(text).expect("valid").config;
        assert_eq!(parse_model_config_json(&model_config_json(&config)), Ok(config.clone()));
        let written = r#"{"name": "m", "maxBatchSize": 8, "parameters": {"a": {"string_value": "1"}},
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["16", -1]}],
            "model_warmup": [{"name": "w", "batch_size": 1}],
            "dynamic_batching": {"max_queue_delay_microseconds": "9007199254740993"}}"#;
        assert_eq!(parse_model_config_json(written), Ok(config));
        let cases = [
            ("{", "EOF"),
            ("[]", "invalid type"),
            ("{}{}", "trailing"),
            ("{\"max_batchsize\": 1}", "max_batchsize"),
            ("{\"name\": 7}", "invalid type"),
            ("{\"input\": [{\"data_type\": \"FP32\"}]}", "FP32"),
        ];
        for (text, part) in cases {
            let error = parse_model_config_json(text).expect_err(text);
            assert!(error.contains(part) && error.contains("line 1"), "{text}: {error}");
        }
    }

    #[test]
    fn prints_what_perf_analyzer_reads() {
        let text = r#"name: "m" max_batch_size: 8
            input { name: "x" data_type: TYPE_FP32 dims: [ 16, -1 ] }
            dynamic_batching { max_queue_delay_microseconds: 9007199254740993 }
            version_policy { specific { versions: 3 } }"#;
        let json = model_config_json(&parse_model_config(text).expect("valid").config);
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let input = serde_json::json!({
            "name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [16, -1], "is_shape_tensor": false,
            "allow_ragged_batch": false, "optional": false, "is_non_linear_format_io": false,
        });
        assert_eq!(value["input"], serde_json::json!([input]));
        assert_eq!(value["max_batch_size"], 8);
        assert_eq!(value["platform"], "");
        assert_eq!(value["output"], serde_json::json!([]));
        assert_eq!(value["dynamic_batching"]["max_queue_delay_microseconds"], 9_007_199_254_740_993u64);
        assert_eq!(value["version_policy"]["specific"]["versions"][0], 3);
        assert!(value.get("ensemble_scheduling").is_none(), "{json}");
        assert!(value.get("sequence_batching").is_none(), "{json}");
    }
}
