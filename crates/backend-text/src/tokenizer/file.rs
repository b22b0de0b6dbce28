//! Reads a tokenizer from `tokenizer.json` or from a BERT `vocab.txt`.

use std::path::{Path, PathBuf};

use inference::{Error, ModelArtifact, Result};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// Special tokens without which BERT's pipeline cannot work.
const REQUIRED: [&str; 3] = ["[UNK]", "[CLS]", "[SEP]"];
/// Special tokens that a vocabulary may lack.
const OTHERS: [&str; 2] = ["[PAD]", "[MASK]"];

/// A model's tokenizer file, by its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenizerFile {
    /// Hugging Face's `tokenizer.json`.
    Json(PathBuf),
    /// One WordPiece token per line.
    Vocabulary(PathBuf),
}

impl TokenizerFile {
    /// Finds the file: the one that the configuration names, or `tokenizer.json`, or `vocab.txt`.
    ///
    /// # Errors
    /// InvalidArgument that says what was looked for, and where.
    pub(crate) fn find(model: &ModelArtifact) -> Result<Self> {
        let candidates = match &model.spec.default_model_filename {
            Some(name) => vec![name.as_str()],
            None => vec!["tokenizer.json", "vocab.txt"],
        };
        let found = candidates.iter().map(|name| model.version_directory.join(name)).find(|path| path.is_file());
        match found {
            Some(path) if path.extension().is_some_and(|extension| extension == "json") => {
                Ok(TokenizerFile::Json(path))
            }
            Some(path) => Ok(TokenizerFile::Vocabulary(path)),
            None => Err(Error::invalid_argument(format!(
                "model '{}' has no {} in version {}; put the tokenizer's file there",
                model.spec.name,
                candidates.join(" or "),
                model.version
            ))
            .with_model(&*model.spec.name)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            TokenizerFile::Json(path) | TokenizerFile::Vocabulary(path) => path,
        }
    }

    /// Reads the tokenizer. `do_lower_case` is for vocabularies alone: a `tokenizer.json` says itself what it does.
    ///
    /// # Errors
    /// InvalidArgument that names the file and what is wrong in it.
    pub(crate) fn read(&self, do_lower_case: Option<bool>) -> Result<Tokenizer> {
        let name = self.path().file_name().unwrap_or_default().to_string_lossy();
        let read = match (self, do_lower_case) {
            (TokenizerFile::Json(_), Some(_)) => {
                Err("the parameter 'do_lower_case' is for vocab.txt alone; remove it".to_owned())
            }
            (TokenizerFile::Json(path), None) => Tokenizer::from_file(path).map_err(|error| error.to_string()),
            (TokenizerFile::Vocabulary(path), _) => read_vocabulary(path, do_lower_case.unwrap_or(true)),
        };
        read.map_err(|why| Error::invalid_argument(format!("cannot use {name}: {why}")))
    }
}

/// BERT's pipeline: clean, split at blanks, punctuation and Chinese characters, WordPiece, `[CLS]` and `[SEP]` around.
fn read_vocabulary(path: &Path, lowercase: bool) -> Result<Tokenizer, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let vocabulary = WordPiece::read_bytes(&bytes).map_err(|error| error.to_string())?;
    let id = |token: &str| vocabulary.get(token).copied();
    let missing: Vec<&str> = REQUIRED.into_iter().filter(|token| id(token).is_none()).collect();
    let (Some(cls), Some(sep), true) = (id("[CLS]"), id("[SEP]"), missing.is_empty()) else {
        return Err(format!("it lacks {missing:?}; a BERT vocabulary has one token per line"));
    };
    let special: Vec<AddedToken> = REQUIRED
        .into_iter()
        .chain(OTHERS)
        .filter(|token| id(token).is_some())
        .map(|token| AddedToken::from(token, true))
        .collect();
    let build = move || -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(WordPiece::builder().vocab(vocabulary).build()?);
        tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, lowercase)))?;
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.with_post_processor(Some(BertProcessing::new(("[SEP]".to_owned(), sep), ("[CLS]".to_owned(), cls))));
        tokenizer.add_special_tokens(special)?;
        Ok(tokenizer)
    };
    build().map_err(|error| error.to_string())
}
