//! Backends for text around an encoder: [`TokenizerBackend`] turns text into token ids, [`PoolingBackend`] turns token
//! embeddings into one vector per text.

mod parameters;
mod pooling;
mod tokenizer;

pub use pooling::PoolingBackend;
pub use tokenizer::TokenizerBackend;

/// Bytes of all inputs of a batch.
fn input_bytes(batch: &inference::Batch) -> usize {
    batch.requests.iter().flat_map(|request| &request.inputs).map(|input| input.tensor.data().len()).sum()
}
