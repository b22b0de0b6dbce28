//! Backends for text around an encoder: [`TokenizerBackend`] turns text into token ids, [`PoolingBackend`] turns token
//! embeddings into one vector per text.

mod parameters;
mod pooling;
mod tokenizer;

pub use pooling::PoolingBackend;
pub use tokenizer::TokenizerBackend;
