//! Tokenizers made from a small vocabulary, loaded and run as a server would.

use std::fs;
use std::sync::Arc;

use inference::{DataType, ErrorKind, InputSpec, ModelSpec, NamedTensor, OutputSpec, Shape, Tensor};
use inference::{InferRequest, InferResponse};

use super::*;

/// Ids in the order of lines: `hello` is 5, `world` 6, …
const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\n##s\n!\nun\n##able\nHello\n";

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";

fn input(name: &str, dims: &[i64], optional: bool) -> InputSpec {
    InputSpec { name: name.into(), datatype: DataType::Bytes, dims: Shape::new(dims), reshape: None, optional }
}

fn output(name: &str, datatype: DataType, dims: &[i64]) -> OutputSpec {
    OutputSpec { name: name.into(), datatype, dims: Shape::new(dims), reshape: None, label_filename: None }
}

/// A batching model with one text and all outputs in INT64.
fn spec(parameters: &[(&str, &str)]) -> ModelSpec {
    ModelSpec {
        max_batch_size: 8,
        inputs: vec![input("TEXT", &[1], false)],
        outputs: [IDS, MASK, TYPES].iter().map(|name| output(name, DataType::Int64, &[-1])).collect(),
        parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..ModelSpec::new("tok", TokenizerBackend::NAME)
    }
}

/// A `tokenizer.json` of the same vocabulary, with padding and truncation fixed at 6 as published ones have them.
fn tokenizer_json() -> String {
    let vocabulary: Vec<String> =
        VOCABULARY.lines().enumerate().map(|(id, token)| format!("\"{token}\": {id}")).collect();
    format!(
        r#"{{"version": "1.0",
        "truncation": {{"max_length": 6, "strategy": "LongestFirst", "stride": 0}},
        "padding": {{"strategy": {{"Fixed": 6}}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 4,
            "pad_type_id": 0, "pad_token": "[MASK]"}},
        "added_tokens": [],
        "normalizer": {{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true}},
        "pre_tokenizer": {{"type": "BertPreTokenizer"}},
        "post_processor": {{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}},
        "decoder": null,
        "model": {{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "\#\#",
            "max_input_chars_per_word": 100, "vocab": {{{}}}}}}}"#,
        vocabulary.join(", ")
    )
    .replace("\\#\\#", "##")
}

fn load_with(spec: ModelSpec, files: &[(&str, &str)]) -> Result<LoadedModel> {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in files {
        fs::write(directory.path().join(name), content).expect("written");
    }
    let artifact = ModelArtifact {
        spec: Arc::new(spec),
        version: 1,
        directory: directory.path().to_owned(),
        version_directory: directory.path().to_owned(),
        immutable: false,
    };
    TokenizerBackend.load(&artifact, &Placement::on_host(2))
}

fn load(spec: ModelSpec) -> Result<LoadedModel> {
    load_with(spec, &[("vocab.txt", VOCABULARY)])
}

fn column(name: &str, texts: &[&str]) -> NamedTensor {
    let shape = Shape::from([texts.len() as i64, 1]);
    NamedTensor::new(name, Tensor::from_strings(shape, texts).expect("fits"))
}

fn run(model: &mut LoadedModel, inputs: Vec<NamedTensor>) -> Result<InferResponse> {
    let requests = vec![InferRequest { inputs, ..InferRequest::default() }];
    model.instances[0].execute(inference::Batch::new(requests)).pop().expect("one result")
}

fn encode(model: &mut LoadedModel, texts: &[&str]) -> InferResponse {
    run(model, vec![column("TEXT", texts)]).expect("encodes")
}

/// The rows of an INT64 output.
fn rows(response: &InferResponse, name: &str) -> Vec<Vec<i64>> {
    let tensor = response.output(name).expect("returned");
    let length = usize::try_from(tensor.shape()[1]).expect("positive");
    let elements = tensor.to_elements::<i64>().expect("INT64");
    elements.chunks(length).map(<[i64]>::to_vec).collect()
}

#[test]
fn a_vocabulary_becomes_berts_pipeline() {
    let mut model = load(spec(&[])).expect("loads");
    assert_eq!(model.instances.len(), 2);
    let response = encode(&mut model, &["Héllo  worlds!", "unable zzz [SEP]"]);
    assert_eq!(rows(&response, IDS), [[2, 5, 6, 7, 8, 3], [2, 9, 10, 1, 3, 3]]);
    let response = encode(&mut model, &["hello", "hello world !", ""]);
    assert_eq!(rows(&response, IDS), [[2, 5, 3, 0, 0], [2, 5, 6, 8, 3], [2, 3, 0, 0, 0]], "padded to the longest");
    assert_eq!(rows(&response, MASK), [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]);
    assert_eq!(rows(&response, TYPES), [[0; 5]; 3]);
}

#[test]
fn parameters_change_case_special_tokens_lengths_and_names() {
    let ids = |parameters: &[(&str, &str)], text: &str| {
        let mut model = load(spec(parameters)).expect("loads");
        rows(&encode(&mut model, &[text]), IDS).remove(0)
    };
    assert_eq!(ids(&[("do_lower_case", "false")], "Hello"), [2, 11, 3]);
    assert_eq!(ids(&[("add_special_tokens", "false")], "hello world"), [5, 6]);
    assert_eq!(ids(&[("max_length", "4")], "hello world hello world"), [2, 5, 6, 3]);
    assert_eq!(ids(&[("max_length", "5"), ("padding", "max_length")], "hello"), [2, 5, 3, 0, 0]);

    let mut renamed = spec(&[("output_ids", "ids"), ("padding", "max_length"), ("max_length", "4")]);
    renamed.outputs = vec![output("ids", DataType::Int32, &[4])];
    let response = encode(&mut load(renamed).expect("loads"), &["hello"]);
    let tensor = response.output("ids").expect("returned");
    assert_eq!(tensor.shape(), &Shape::from([1, 4]));
    assert_eq!(tensor.to_elements::<i32>().expect("INT32").as_ref(), [2, 5, 3, 0]);
}

#[test]
fn fixed_lengths_of_a_tokenizer_json_give_way_to_parameters() {
    let json = tokenizer_json();
    let ids = |parameters: &[(&str, &str)], texts: &[&str]| {
        let mut model = load_with(spec(parameters), &[("tokenizer.json", &json)]).expect("loads");
        rows(&encode(&mut model, texts), IDS)
    };
    let long = "hello world hello world hello world";
    assert_eq!(ids(&[], &[long]), [[2, 5, 6, 5, 6, 3]], "its own max_length is the default");
    assert_eq!(ids(&[("max_length", "8")], &[long]), [[2, 5, 6, 5, 6, 5, 6, 3]]);
    assert_eq!(ids(&[], &["hello", "hello world"]), [[4, 2, 5, 3], [2, 5, 6, 3]], "its side and token for padding");
    let error = load_with(spec(&[("do_lower_case", "true")]), &[("tokenizer.json", &json)]).err().expect("refused");
    assert!(error.message().contains("'do_lower_case' is for vocab.txt alone"), "{error}");
}

#[test]
fn pairs_get_types_and_the_second_text_may_be_absent() {
    let mut pairs = spec(&[]);
    pairs.inputs.push(input("PAIR", &[1], true));
    let mut model = load(pairs).expect("loads");
    let both = run(&mut model, vec![column("TEXT", &["hello"]), column("PAIR", &["world !"])]).expect("encodes");
    assert_eq!(rows(&both, IDS), [[2, 5, 3, 6, 8, 3]]);
    assert_eq!(rows(&both, TYPES), [[0, 0, 0, 1, 1, 1]]);
    assert_eq!(rows(&encode(&mut model, &["hello"]), IDS), [[2, 5, 3]]);
    let uneven = run(&mut model, vec![column("TEXT", &["hello"]), column("PAIR", &["a", "b"])]);
    assert!(uneven.expect_err("refused").message().contains("got 1 texts and 2 second texts"));
}

#[test]
fn a_model_without_batch_dimension_takes_a_list() {
    let mut list = spec(&[]);
    list.max_batch_size = 0;
    list.inputs[0].dims = Shape::from([-1]);
    list.outputs = vec![output(IDS, DataType::Int64, &[-1, -1])];
    let texts = |texts: &[&str]| {
        let shape = Shape::from([texts.len() as i64]);
        vec![NamedTensor::new("TEXT", Tensor::from_strings(shape, texts).expect("fits"))]
    };
    let mut model = load(list.clone()).expect("loads");
    assert_eq!(rows(&run(&mut model, texts(&["hello", "world"])).expect("encodes"), IDS), [[2, 5, 3], [2, 6, 3]]);
    let none = run(&mut model, texts(&[])).expect("nothing to do");
    assert_eq!(none.output(IDS).expect("returned").shape(), &Shape::from([0, 0]));

    list.inputs[0].dims = Shape::from([1]);
    list.outputs[0].dims = Shape::from([-1]);
    let one = run(&mut load(list).expect("loads"), texts(&["hello"])).expect("encodes");
    assert_eq!(one.output(IDS).expect("returned").shape(), &Shape::from([3]));
}

#[test]
fn bad_texts_are_refused_by_name() {
    let mut model = load(spec(&[("truncation", "false"), ("max_length", "3")])).expect("loads");
    let tensor = Tensor::from_strings(Shape::from([2, 1]), &[b"ok".as_slice(), b"a\xff"]).expect("fits");
    let error = run(&mut model, vec![NamedTensor::new("TEXT", tensor)]).expect_err("not UTF-8");
    assert_eq!((error.kind(), error.model()), (ErrorKind::InvalidArgument, Some("tok")));
    assert!(error.message().contains("element 1 of input 'TEXT' is not UTF-8 at byte 1"), "{error}");
    let error = run(&mut model, vec![column("TEXT", &["hello", "hello world"])]).expect_err("too long");
    assert!(error.message().contains("text 1 has 4 tokens, but max_length is 3"), "{error}");
    assert_eq!(encode(&mut model, &["hello"]).outputs.len(), 3, "the instance goes on");
}

#[test]
fn all_problems_of_a_configuration_come_at_once() {
    let mut bad = spec(&[("padding", "short"), ("max_length", "many"), ("truncation", "perhaps")]);
    bad.inputs[0].datatype = DataType::Int32;
    bad.inputs[0].dims = Shape::from([2]);
    bad.outputs[0].datatype = DataType::Fp32;
    bad.outputs[1].dims = Shape::from([2, 2]);
    bad.outputs[2].name = "what".into();
    let error = load(bad).err().expect("refused");
    let parts = [
        "model 'tok'",
        "input 'TEXT' is INT32, but a tokenizer takes BYTES",
        "input 'TEXT' must have dims [1]",
        "output 'input_ids' is FP32",
        "output 'attention_mask' has dims [2,2], expected [-1]",
        "output 'what' is none of 'input_ids', 'attention_mask', 'token_type_ids'",
        "'padding' is 'short', expected one of [\"longest\", \"max_length\"]",
        "'max_length' is 'many'",
        "'truncation' is 'perhaps'",
    ];
    for part in parts {
        assert!(error.message().contains(part), "{error}\nshould contain\n{part}");
    }
}

#[test]
fn files_and_lengths_that_do_not_fit_are_refused() {
    let refusal = |spec: ModelSpec, files: &[(&str, &str)]| {
        let error = load_with(spec, files).err().expect("refused");
        assert_eq!((error.kind(), error.model()), (ErrorKind::InvalidArgument, Some("tok")));
        error.message().to_owned()
    };
    let vocabulary = [("vocab.txt", VOCABULARY)];
    assert!(refusal(spec(&[]), &[]).contains("has no tokenizer.json or vocab.txt in version 1"));
    assert!(refusal(spec(&[]), &[("vocab.txt", "a\n[CLS]\n")]).contains("vocab.txt: it lacks [\"[UNK]\", \"[SEP]\"]"));
    assert!(refusal(spec(&[]), &[("tokenizer.json", "{")]).contains("cannot use tokenizer.json"));
    assert!(refusal(spec(&[("max_length", "2")]), &vocabulary).contains("adds 2 special tokens"));
    assert!(refusal(spec(&[("max_length", "99999999999")]), &vocabulary).contains("expected at most 1048576"));
    let mut fixed = spec(&[]);
    fixed.outputs[0].dims = Shape::from([128]);
    assert!(refusal(fixed, &vocabulary).contains("output 'input_ids' has a fixed length of 128; set the parameters"));
    let named = ModelSpec { default_model_filename: Some("words.txt".to_owned()), ..spec(&[]) };
    assert!(refusal(named.clone(), &vocabulary).contains("has no words.txt"));
    assert!(load_with(named, &[("words.txt", VOCABULARY)]).is_ok());
}
