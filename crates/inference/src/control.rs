//! What a client may say when it has a model loaded or unloaded by name.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What a load by name uses instead of the model's own configuration and files (Triton's `config` and `file:<path>`). It
/// holds until the model is unloaded or loaded by name again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOverrides {
    /// A whole configuration as JSON, as `GET /v2/models/{name}/config` prints it.
    pub config: Option<String>,
    /// Files by their path within the model's directory (`1/model.onnx`). Where there are any, the model consists of these
    /// files alone, and `config` must be given as well.
    pub files: BTreeMap<String, Bytes>,
    /// The model is only loaded (`panoply_pin: false`): it may leave memory when others need the room, as if a request had
    /// loaded it. Otherwise it stays until it is unloaded by name.
    pub prefetch: bool,
}

impl LoadOverrides {
    /// Whether the model is to be loaded as it is.
    pub fn is_empty(&self) -> bool {
        self.config.is_none() && self.files.is_empty()
    }
}
