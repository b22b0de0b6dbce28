//! The `tokenizer` backend: text in, token ids out.
//!
//! | parameter | default | means |
//! | --- | --- | --- |
//! | `max_length` | the tokenizer's own, else 512 | the longest row, special tokens included |
//! | `truncation` | `true` | cut longer texts; otherwise they are refused |
//! | `padding` | `longest` | fill rows up to the longest of the request, or to `max_length` |
//! | `add_special_tokens` | `true` | `[CLS]` and `[SEP]`, or what the tokenizer has instead |
//! | `do_lower_case` | `true` | for `vocab.txt`: fold case and strip accents |
//! | `output_ids`, `output_mask`, `output_types` | `input_ids`, `attention_mask`, `token_type_ids` | outputs' names |

mod config;
mod encode;
mod file;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use inference::{Backend, Device, Error, LoadedModel, MemoryUsage, ModelArtifact, ModelInstance, Placement, Result};
use tokenizers::{PostProcessor, Tokenizer, TruncationParams, TruncationStrategy};

use config::{Config, DEFAULT_MAX_LENGTH};
use encode::{Encoder, EncoderInstance, Pad};
use file::TokenizerFile;

/// Before the load only the file's size is known: a token and its place in a file take 7 (`vocab.txt`) to 30 bytes.
const MEMORY_FACTOR: u64 = 32;
/// A token is kept in maps both ways. Measured with 30,000 tokens (`tests/memory.rs` compares with what a process grows
/// by): 186 to 208 bytes for WordPiece, 245 with BPE's merges.
const BYTES_PER_TOKEN: u64 = 256;

/// Encodes text with Hugging Face's `tokenizers`, from a `tokenizer.json` or a BERT `vocab.txt` in the version's
/// directory.
///
/// Inputs: BYTES, one text per row (`dims: [1]` with a batch dimension, `[-1]` without), and optionally a second such
/// input for pairs. Outputs: any of ids, mask and types, INT64 or INT32, of shape [rows, length].
#[derive(Debug, Default)]
pub struct TokenizerBackend;

impl TokenizerBackend {
    /// What configurations call it.
    pub const NAME: &'static str = "tokenizer";
}

impl Backend for TokenizerBackend {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn estimate(&self, _: &ModelArtifact, file_bytes: u64, _: &Placement) -> MemoryUsage {
        MemoryUsage::on(Device::Host, file_bytes.saturating_mul(MEMORY_FACTOR))
    }

    fn load(&self, model: &ModelArtifact, placement: &Placement) -> Result<LoadedModel> {
        let (encoder, memory) = load_encoder(model).map_err(|error| match error.model() {
            Some(_) => error,
            None => error.context(format!("model '{}'", model.spec.name)).with_model(&*model.spec.name),
        })?;
        let encoder = Arc::new(encoder);
        let instance = |_| Box::new(EncoderInstance(encoder.clone())) as Box<dyn ModelInstance>;
        let instances = placement.instances.iter().map(instance).collect();
        Ok(LoadedModel { instances, memory: MemoryUsage::on(Device::Host, memory) })
    }
}

fn load_encoder(model: &ModelArtifact) -> Result<(Encoder, u64)> {
    let config = Config::of(&model.spec)?;
    let file = TokenizerFile::find(model)?;
    let mut tokenizer = file.read(config.do_lower_case)?;
    let own_truncation = tokenizer.get_truncation().cloned();
    let own_length = own_truncation.as_ref().map(|truncation| truncation.max_length);
    let max_length = config.max_length.or(own_length).unwrap_or(DEFAULT_MAX_LENGTH);
    let pairs = config.pair.is_some();
    let added = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pairs));
    config.check_lengths(&model.spec, max_length, added)?;
    let pad = Pad::of(&tokenizer);
    truncate(&mut tokenizer, own_truncation, config.truncation, max_length, pairs)?;
    tokenizer.with_padding(None);
    let encoder = Encoder { model: model.spec.name.clone(), config, tokenizer, max_length, pad };
    let memory = BYTES_PER_TOKEN.saturating_mul(encoder.tokenizer.get_vocab_size(true) as u64);
    Ok((encoder, memory))
}

/// Replaces the truncation that the file brought along by the configuration's; direction and strategy stay the file's.
fn truncate(
    tokenizer: &mut Tokenizer,
    own: Option<TruncationParams>,
    wanted: bool,
    max_length: usize,
    pairs: bool,
) -> Result<()> {
    let own = own.unwrap_or_default();
    let strategy = if pairs { own.strategy } else { TruncationStrategy::LongestFirst };
    let truncation = wanted.then_some(TruncationParams { max_length, strategy, stride: 0, direction: own.direction });
    let set = tokenizer.with_truncation(truncation);
    set.map(|_| ()).map_err(|error| Error::invalid_argument(format!("cannot truncate to {max_length} tokens: {error}")))
}
