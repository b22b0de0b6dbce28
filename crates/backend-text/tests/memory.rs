//! What a tokenizer is said to take, against what the process grows by. One test, alone in its file: it measures the process.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use backend_text::TokenizerBackend;
use inference::{
    Backend, DataType, Device, InputSpec, LoadedModel, ModelArtifact, ModelSpec, OutputSpec, Placement, Shape,
};

const WORDS: usize = 30_000;
const COPIES: u64 = 8;

/// Bytes of memory that the process has for itself.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Words of 2 to 7 letters, no two alike.
fn words() -> Vec<String> {
    let word = |number: usize| {
        let stem: String = (0..4).map(|place| char::from(b'a' + (number / 26usize.pow(place) % 26) as u8)).collect();
        stem + &"ly.".repeat(number % 2)
    };
    (0..WORDS).map(word).collect()
}

fn vocabulary() -> String {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    special.into_iter().chain(words()).collect::<Vec<_>>().join("\n")
}

fn ids(tokens: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    tokens.enumerate().map(|(id, token)| (token, id)).collect()
}

fn word_piece() -> String {
    let vocab = serde_json::json!(ids(vocabulary().lines().map(str::to_owned)));
    serde_json::json!({"version": "1.0", "model": {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocab}})
    .to_string()
}

/// Letters, and all that can be made of two tokens until there are enough.
fn byte_pair() -> String {
    let mut tokens: Vec<String> = ('a'..='z').map(String::from).collect();
    let mut merges = Vec::new();
    'all: for left in 0.. {
        for right in 0..26 {
            if tokens.len() == WORDS {
                break 'all;
            }
            let (left, right): (&String, &String) = (&tokens[left], &tokens[right]);
            merges.push(format!("{left} {right}"));
            tokens.push(format!("{left}{right}"));
        }
    }
    let vocab = ids(tokens.into_iter());
    serde_json::json!({"version": "1.0", "model": {"type": "BPE", "vocab": vocab, "merges": merges}}).to_string()
}

/// What a tokenizer says it takes, and what it takes.
fn measure(file: &str, text: &str) -> (u64, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(file), text).expect("written");
    let output = |name: &str| OutputSpec {
        name: name.into(),
        datatype: DataType::Int64,
        dims: Shape::from([-1]),
        reshape: None,
        label_filename: None,
    };
    let spec = ModelSpec {
        max_batch_size: 8,
        inputs: vec![InputSpec {
            name: "TEXT".into(),
            datatype: DataType::Bytes,
            dims: Shape::from([1]),
            reshape: None,
            optional: false,
        }],
        outputs: vec![output("input_ids")],
        ..ModelSpec::new("tok", TokenizerBackend::NAME)
    };
    let directory = folder.path().to_owned();
    let model = ModelArtifact {
        spec: Arc::new(spec),
        version: 1,
        version_directory: directory.clone(),
        directory,
        immutable: false,
    };
    let load = || TokenizerBackend.load(&model, &Placement::on_host(1)).expect("loads");
    // The first load's scratch memory is used again by later ones.
    let first: LoadedModel = load();
    let before = resident();
    let kept: Vec<_> = (0..COPIES).map(|_| load()).collect();
    let taken = (resident() - before) / COPIES;
    // Not given back: the next measurement would be made in its memory.
    std::mem::forget(kept);
    (first.memory.get(Device::Host), taken)
}

#[test]
fn what_a_tokenizer_is_said_to_take_is_near_what_it_takes() {
    for (file, text) in [("vocab.txt", vocabulary()), ("tokenizer.json", word_piece()), ("tokenizer.json", byte_pair())]
    {
        let (said, taken) = measure(file, &text);
        println!("{file} of {} bytes: said {said}, taken {taken} ({} a token)", text.len(), taken / WORDS as u64);
        assert!(said >= taken * 3 / 4 && said <= taken * 2, "{file}: said {said}, taken {taken}");
    }
}
