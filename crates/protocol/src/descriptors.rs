//! Reflection: the descriptors of the messages in `proto/`.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_slice())
        .expect("invariant: the build script encoded the descriptors")
});

/// The descriptor of `inference.ModelConfig`.
pub(crate) fn model_config() -> MessageDescriptor {
    message("ModelConfig").expect("invariant: proto/model_config.proto defines it")
}

/// The descriptor of a message of package `inference`, if there is one of this name.
pub(crate) fn message(name: &str) -> Option<MessageDescriptor> {
    POOL.get_message_by_name(&format!("inference.{name}"))
}
