//! A model configuration as bytes: how it passes between crates that know nothing of protocol buffers.

use prost::{DecodeError, Message};

use crate::model_config::ModelConfig;

/// The configuration as an encoded `inference.ModelConfig` message.
pub fn encode_model_config(config: &ModelConfig) -> Vec<u8> {
    config.encode_to_vec()
}

/// The configuration that [`encode_model_config`] has encoded.
///
/// # Errors
/// When the bytes are no such message.
pub fn decode_model_config(bytes: &[u8]) -> Result<ModelConfig, DecodeError> {
    ModelConfig::decode(bytes)
}

/// How many bytes a message takes once it is encoded.
pub fn message_size(message: &impl Message) -> usize {
    message.encoded_len()
}
