//! model-cache.
