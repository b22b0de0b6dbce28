//! The dialects of `fixtures/config`, spellings of the specification, and each kind of problem with its position.

use proptest::prelude::*;

use super::*;
use crate::model_config::model_config::SchedulingChoice;
use crate::model_config::{DataType, ModelEnsembling};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/config/", $name, ".pbtxt"))
    };
}

fn parse(text: &str) -> ParsedConfig {
    parse_model_config(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

fn problems(text: &str) -> Vec<String> {
    parse_model_config(text).expect_err(text).iter().map(ToString::to_string).collect()
}

fn at(line: u32, column: u32) -> Option<Position> {
    Some(Position { line, column })
}

fn ensemble(config: &ModelConfig) -> &ModelEnsembling {
    match &config.scheduling_choice {
        Some(SchedulingChoice::EnsembleScheduling(ensemble)) => ensemble,
        other => panic!("no ensemble: {other:?}"),
    }
}

#[test]
fn reads_lists_of_messages_and_maps_as_repeated_blocks() {
    let ParsedConfig { config, positions } = parse(fixture!("ensemble_lists"));
    let steps = &ensemble(&config).step;
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[0].output_map["attention_mask"], "mask");
    assert_eq!(steps[1].model_version, -1);
    assert_eq!(config.input[0].dims, [1]);
    assert_eq!(positions.of("max_batch_size"), at(4, 1));
    assert_eq!(positions.of("input[0]"), at(6, 3));
    assert_eq!(positions.of("input[0].dims"), at(9, 5));
    assert_eq!(positions.of("input[0].dims[0]"), at(10, 7));
    assert_eq!(positions.of("ensemble_scheduling.step[0].output_map[\"attention_mask\"]"), at(34, 7));
    assert_eq!(positions.of("ensemble_scheduling.step[1].input_map[\"attn_mask\"]"), at(43, 7));
    assert_eq!(positions.of("ensemble_scheduling.step[2].model_name"), at(47, 7));
    assert_eq!(positions.of("ensemble_scheduling.step[2].input_map[\"none\"]"), at(49, 7), "the nearest that is known");
}

#[test]
fn reads_every_scheduling_option() {
    let config = parse(fixture!("full_scheduling")).config;
    assert_eq!(config.max_batch_size, 32);
    assert_eq!(config.metric_tags["team"], "search \"core\"\n");
    let Some(SchedulingChoice::DynamicBatching(batching)) = config.scheduling_choice else { panic!("no batching") };
    assert_eq!(batching.preferred_batch_size, [8, 16]);
    assert_eq!(batching.priority_queue_policy[&3].max_queue_size, 16);
    assert_eq!(config.model_warmup[0].inputs["features"].dims, [64]);
}

#[test]
fn reads_parameters_in_each_spelling() {
    let list = parse(fixture!("parameters_list"));
    assert_eq!(list.config.parameters["note"].string_value, "two strings are one");
    assert_eq!(list.config.output[0].data_type(), DataType::TypeFp32);
    assert_eq!(list.config.instance_group[0].gpus, [0, 1]);
    assert_eq!(list.positions.of("parameters[\"note\"]"), at(12, 3));
    assert_eq!(list.positions.of("parameters[\"note\"].string_value"), at(12, 25));
    let block = parse(fixture!("parameters_colon_comma"));
    assert_eq!(block.config.parameters["EXECUTION_ENV_PATH"].string_value, "$$TRITON_MODEL_DIRECTORY/env.tar.gz");
    assert!(block.config.input[1].optional);
    assert_eq!(block.config.input[2].dims, [-1]);
}

#[test]
fn reads_repeated_blocks() {
    let config = parse(fixture!("repeated_blocks")).config;
    assert_eq!((config.name.as_str(), config.backend.as_str()), ("", "onnxruntime"));
    assert_eq!(config.input[0].dims, [3, 224, 224]);
    assert_eq!(config.input[1].reshape.as_ref().map(|reshape| reshape.shape.len()), Some(0));
    assert_eq!(config.output[0].dims, [-1]);
    assert!(config.version_policy.is_some());
}

#[test]
fn reads_spellings_of_the_specification() {
    let names = [
        (r#"name: "a" 'b'  "c""#, "abc"),
        (r#"name: "\a\b\f\n\r\t\v\?\\\'\"""#, "\x07\x08\x0c\n\r\t\x0b?\\'\""),
        (r#"name: "\101\x42\x4c\u00e9\U0001F600\ud83d\ude00""#, "ABLé😀😀"),
        (r#"name: "\303\251 # no comment" # a comment"#, "é # no comment"),
        ("\u{feff}name: 'a';", "a"),
        ("# only\r\nname:\r\n\t'a'\r\n", "a"),
    ];
    for (text, expected) in names {
        assert_eq!(parse(text).config.name, expected, "{text}");
    }
    let sizes = [("0x1F", 31), ("017", 15), ("- 3", -3), ("2147483647", i32::MAX), ("-0x80000000", i32::MIN), ("0", 0)];
    for (number, expected) in sizes {
        assert_eq!(parse(&format!("max_batch_size: {number}")).config.max_batch_size, expected, "{number}");
    }
    let slots = [(".5", 0.5), ("1.", 1.0), ("1e-2f", 0.01), ("-inf", f32::NEG_INFINITY), ("Infinity", f32::INFINITY)];
    for (number, expected) in slots {
        let text = format!("sequence_batching < direct < minimum_slot_utilization: {number} > >");
        let Some(SchedulingChoice::SequenceBatching(batching)) = parse(&text).config.scheduling_choice else {
            panic!("{text}")
        };
        assert!(format!("{batching:?}").contains(&format!("{expected:?}")), "{number}: {batching:?}");
    }
    for (value, expected) in
        [("true", true), ("True", true), ("t", true), ("1", true), ("false", false), ("0x0", false)]
    {
        assert_eq!(
            parse(&format!("response_cache {{ enable: {value} }}")).config.response_cache.map(|c| c.enable),
            Some(expected)
        );
    }
}

#[test]
fn points_at_each_problem() {
    let cases: [(&str, &[&str]); 22] = [
        (
            fixture!("bad_two_problems"),
            &[
                "5:32: `data_type`: `TYPE_FLOAT32` is no value of DataType; did you mean `TYPE_FP32`?",
                "6:10: `dims` is missing in output `y`",
            ],
        ),
        (
            fixture!("bad_unclosed"),
            &["4:7: the list opened here is never closed: expected `,` or `]`, found the end of the file"],
        ),
        (
            fixture!("bad_unknown_field"),
            &["4:1: `max_batchsize` is no field of ModelConfig; did you mean `max_batch_size`?"],
        ),
        (
            "max_batch_size: \"8\"",
            &["1:17: `max_batch_size`: expected an integer, found the string \"8\"; write it without quotes"],
        ),
        ("max_batch_size: 3000000000", &["1:17: `max_batch_size`: 3000000000 is out of range for a field of type i32"]),
        ("max_batch_size: 8.5", &["1:17: `max_batch_size`: expected an integer, found `8.5`"]),
        ("max_batch_size: 08", &["1:17: `max_batch_size`: expected an integer, found `08`"]),
        ("max_batch_size 8", &["1:16: expected `:` after `max_batch_size`, found `8`"]),
        ("max_batch_size: [ 8 ]", &["1:17: `max_batch_size` is not a list: give it a single value"]),
        ("name: m\nbackend: 'b'", &["1:7: `name`: expected a string in quotes, found `m`"]),
        ("name:\nbackend: 'b'", &["2:1: `name`: expected a string in quotes, found `backend`"]),
        ("name: 'a\nbackend: 'b'", &["1:7: this string is not closed on its line; write a line break as `\\n`"]),
        ("name: 'a\\q'", &["1:9: unknown escape `\\q`; write a backslash as `\\\\`"]),
        ("name: '\\377'", &["1:7: `name`: the string is not valid UTF-8"]),
        ("name: 'a'\nname: 'b'", &["2:1: `name` is given twice; the first one is at 1:1"]),
        (
            "dynamic_batching { }\nensemble_scheduling { }",
            &["2:1: `ensemble_scheduling` and `dynamic_batching` (at 1:1) exclude each other"],
        ),
        (
            "instance_group { kind: KIND_TPU count: }",
            &[
                "1:24: `kind`: `KIND_TPU` is no value of Kind; did you mean `KIND_CPU`?",
                "1:40: `count`: expected an integer, found `}`",
            ],
        ),
        (
            "ensemble_scheduling {\n step [\n { model_name: 'a' ]\n}\nmax_batchsize: 1",
            &[
                "3:2: `{` opened here is never closed: expected a field or `}`, found `]` at 3:20",
                "5:1: `max_batchsize` is no field of ModelConfig; did you mean `max_batch_size`?",
            ],
        ),
        ("version_policy { specific { versions: [ 1 2 ] } }", &["1:43: expected `,` or `]` in the list, found `2`"]),
        ("instance_group [ { count: 1 } { count: 2 } ]", &["1:31: expected `,` or `]` in the list, found `{`"]),
        ("name: 'a' } $$ backend: 'b'", &["1:11: `}` closes nothing", "1:13: unexpected character '$'"]),
        (
            "[type.googleapis.com/a.B] { x: 1 } unknown { a [ < b: 'c' > ] } max_batch_size: 1 input: 3",
            &[
                "1:1: extensions and `Any` are not supported here",
                "1:36: `unknown` is no field of ModelConfig",
                "1:83: `name`, `data_type`, `dims` are missing in this input",
                "1:90: expected `{` and the fields of ModelInput, found `3`",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(text), expected, "{text}");
    }
}

#[test]
fn keeps_what_could_be_read() {
    let (parsed, problems) =
        read_model_config("name: 'm' max_batch_size: x output { name: 'y' data_type: TYPE_FP32 dims: 4 }");
    assert_eq!(problems.len(), 1);
    assert_eq!((parsed.config.name.as_str(), parsed.config.output[0].dims.as_slice()), ("m", [4i64].as_slice()));
}

#[test]
fn bad_files_end_in_bounded_time_and_problems() {
    for piece in ["[", "{", "input {", "input [ {", "-", "name: - ", "}", "'", "\\", "a: [", "$a", "[a] <"] {
        let (_, problems) = read_model_config(&piece.repeat(20_000));
        assert!((1..=100).contains(&problems.len()), "{piece}: {}", problems.len());
    }
}

/// Pieces that real files are made of, in any order.
fn mangled() -> impl Strategy<Value = String> {
    let pieces = [
        "input",
        "output",
        "name",
        "dims",
        "data_type",
        "TYPE_FP32",
        "parameters",
        "key",
        "value",
        "string_value",
        "{",
        "}",
        "[",
        "]",
        "<",
        ">",
        ":",
        ",",
        ";",
        "-",
        "\"x\"",
        "'y'",
        "\"",
        "\\",
        "1",
        "0x",
        "1e",
        ".",
        "# c\n",
        "\n",
        "inf",
        "ensemble_scheduling",
        "step",
        "input_map",
        "é",
        "max_batch_size",
        "version_policy",
        "latest",
        "all",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..60).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #[test]
    fn any_text_is_judged_without_a_panic(text in any::<String>()) {
        let _ = parse_model_config(&text);
    }

    #[test]
    fn any_mixture_of_tokens_is_judged_at_places_within_it(text in mangled()) {
        if let Err(problems) = parse_model_config(&text) {
            prop_assert!(problems.is_sorted() && !problems.is_empty());
            for problem in problems {
                let line = text.split('\n').nth(problem.position.line as usize - 1);
                let columns = line.map_or(0, |line| line.chars().count());
                prop_assert!((1..=columns + 1).contains(&(problem.position.column as usize)), "{}", problem);
            }
        }
    }

    #[test]
    fn any_cut_of_a_real_file_is_judged_without_a_panic(at in 0usize..3000) {
        for text in [fixture!("ensemble_lists"), fixture!("full_scheduling"), fixture!("parameters_colon_comma")] {
            let _ = parse_model_config(text.get(..at.min(text.len())).unwrap_or_default());
        }
    }
}
