//! Turns the texts of a request into rows of token ids, their mask and their types.

use std::sync::Arc;

use inference::{
    Batch, Element, Error, InferRequest, InferResponse, ModelInstance, ModelName, NamedTensor, Result, Shape, Tensor,
};
use tokenizers::{EncodeInput, Encoding, PaddingDirection, Tokenizer};

use super::config::{Config, Output, Padding, Role};

/// All that instances of one model share.
pub(crate) struct Encoder {
    pub(crate) model: ModelName,
    pub(crate) config: Config,
    /// Truncates as the configuration says, and does not pad.
    pub(crate) tokenizer: Tokenizer,
    pub(crate) max_length: usize,
    pub(crate) pad: Pad,
}

/// How rows are filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pad {
    pub(crate) id: u32,
    pub(crate) type_id: u32,
    pub(crate) left: bool,
}

impl Pad {
    /// As the tokenizer's file says, or with its token for padding, on the right.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        if let Some(padding) = tokenizer.get_padding() {
            let left = matches!(padding.direction, PaddingDirection::Left);
            return Pad { id: padding.pad_id, type_id: padding.pad_type_id, left };
        }
        let id = ["[PAD]", "<pad>", "<|endoftext|>"].into_iter().find_map(|token| tokenizer.token_to_id(token));
        Pad { id: id.unwrap_or(0), type_id: 0, left: false }
    }
}

/// One instance; encoding needs no memory of its own, so all of them share the tokenizer.
pub(crate) struct EncoderInstance(pub(crate) Arc<Encoder>);

/// Text of this many bytes is tokenised in some 100 µs.
const BRIEF_BYTES: usize = 4 << 10;

impl ModelInstance for EncoderInstance {
    fn execute(&mut self, batch: Batch) -> Vec<Result<InferResponse>> {
        let named = |error: Error| error.with_model(&*self.0.model);
        batch.requests.iter().map(|request| self.0.answer(request).map_err(named)).collect()
    }

    fn is_brief(&self, batch: &Batch) -> bool {
        crate::input_bytes(batch) <= BRIEF_BYTES
    }
}

impl Encoder {
    fn answer(&self, request: &InferRequest) -> Result<InferResponse> {
        let encodings = self.encode(request)?;
        let length = match self.config.padding {
            Padding::MaxLength => self.max_length,
            Padding::Longest => encodings.iter().map(Encoding::len).max().unwrap_or(0),
        };
        let wanted = self.config.outputs.iter().filter(|output| request.wants(&output.name));
        let outputs: Result<Vec<NamedTensor>> = wanted
            .map(|output| {
                let tensor = match output.wide {
                    true => self.fill(output, &encodings, length, i64::from),
                    false => self.fill(output, &encodings, length, |id| id as i32),
                };
                Ok(NamedTensor { name: output.name.clone(), tensor: tensor? })
            })
            .collect();
        Ok(InferResponse::new(outputs?))
    }

    fn encode(&self, request: &InferRequest) -> Result<Vec<Encoding>> {
        let first = self.texts(request, &self.config.text)?.unwrap_or_default();
        let pair = match &self.config.pair {
            Some(name) => self.texts(request, name)?,
            None => None,
        };
        if let Some(pair) = pair.as_ref().filter(|pair| pair.len() != first.len()) {
            let (texts, pairs) = (first.len(), pair.len());
            return Err(self.refuse(&format!("got {texts} texts and {pairs} second texts; give one for each")));
        }
        let encode = |(row, text): (usize, &&str)| {
            let input: EncodeInput<'_> = match &pair {
                Some(pair) => (*text, pair[row]).into(),
                None => (*text).into(),
            };
            self.encode_one(row, input)
        };
        first.iter().enumerate().map(encode).collect()
    }

    fn encode_one(&self, row: usize, input: EncodeInput<'_>) -> Result<Encoding> {
        let encoding = self.tokenizer.encode_fast(input, self.config.add_special_tokens);
        let encoding = encoding.map_err(|error| {
            let message = format!("model '{}' cannot encode text {row}: {error}", self.model);
            Error::internal(message).from_model()
        })?;
        let (length, bound) = (encoding.len(), self.max_length);
        if length > bound {
            let hint = "send a shorter one, or set the parameter 'truncation' to 'true'";
            return Err(self.refuse(&format!("text {row} has {length} tokens, but max_length is {bound}; {hint}")));
        }
        Ok(encoding)
    }

    /// The elements of an input as text; `None` when it is not given.
    fn texts<'r>(&self, request: &'r InferRequest, name: &str) -> Result<Option<Vec<&'r str>>> {
        let Some(tensor) = request.input(name) else { return Ok(None) };
        let texts = tensor.strings()?.enumerate().map(|(index, bytes)| {
            std::str::from_utf8(bytes).map_err(|error| {
                let at = error.valid_up_to();
                self.refuse(&format!("element {index} of input '{name}' is not UTF-8 at byte {at}; send text as UTF-8"))
            })
        });
        let texts = texts.collect::<Result<Vec<&str>>>()?;
        let rows = tensor.shape().first().copied().unwrap_or(1);
        if i64::try_from(texts.len()) != Ok(rows) {
            let shape = tensor.shape();
            return Err(self.refuse(&format!("input '{name}' has shape {shape}; send one text per row")));
        }
        Ok(Some(texts))
    }

    fn fill<T: Element>(
        &self,
        output: &Output,
        encodings: &[Encoding],
        length: usize,
        convert: impl Fn(u32) -> T,
    ) -> Result<Tensor> {
        let padding = match output.role {
            Role::Ids => self.pad.id,
            Role::Mask => 0,
            Role::Types => self.pad.type_id,
        };
        let mut elements = vec![convert(padding); encodings.len() * length];
        for (row, encoding) in encodings.iter().enumerate() {
            let values = match output.role {
                Role::Ids => encoding.get_ids(),
                Role::Mask => encoding.get_attention_mask(),
                Role::Types => encoding.get_type_ids(),
            };
            let start = row * length + if self.pad.left { length - values.len() } else { 0 };
            let places = &mut elements[start..start + values.len()];
            places.iter_mut().zip(values).for_each(|(place, value)| *place = convert(*value));
        }
        let (rows, length) = (encodings.len() as i64, length as i64);
        let shape = if output.rows { Shape::from([rows, length]) } else { Shape::from([length]) };
        Tensor::from_vec(shape, elements)
    }

    fn refuse(&self, why: &str) -> Error {
        Error::invalid_argument(format!("model '{}': {why}", self.model))
    }
}
