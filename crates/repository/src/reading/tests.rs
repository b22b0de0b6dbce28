//! Layouts, names, versions, dialects and problems, on real files in temporary folders.

use std::time::Duration;

use inference::{
    DataType, DynamicBatching, ErrorKind, InputSpec, InstanceGroup, InstanceKind, OutputSpec, QueuePolicy, Shape,
    TimeoutAction, VersionPolicy, Weights,
};
use tempfile::TempDir;

use super::*;

mod bounds;
mod ragged;
mod rate;
mod sequences;
mod warmup;

const ONNX: &str = "backend: 'onnxruntime' ";
const ENSEMBLE: &str = "platform: 'ensemble' ensemble_scheduling { step { model_name: 'a' model_version: -1 } }";

/// Paths and what they hold.
type Files<'a> = &'a [(&'a str, &'a str)];

macro_rules! dialect {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/fixtures/config/", $name, ".pbtxt"))
    };
}

/// A folder with these files; a path that ends with `/` is an empty directory.
fn folder(files: Files<'_>) -> TempDir {
    let root = tempfile::tempdir().expect("temporary folder");
    for (path, text) in files {
        let path = root.path().join(path);
        let directory =
            if text.is_empty() && path.extension().is_none() { Some(path.as_path()) } else { path.parent() };
        std::fs::create_dir_all(directory.expect("has a parent")).expect("created");
        if path.extension().is_some() {
            std::fs::write(path, text).expect("written");
        }
    }
    root
}

/// Entry, and `name@versions` of each model, or the error.
fn archive(files: Files<'_>) -> String {
    let root = folder(files);
    match read_archive(root.path(), "stem") {
        Ok(repository) => {
            let models = repository.models.iter().map(|model| format!("{}@{:?}", model.spec.name, model.versions));
            format!("{}: {}", repository.entry.expect("an archive has one"), models.collect::<Vec<_>>().join(" "))
        }
        Err(error) => error.to_string(),
    }
}

/// The only model of an archive with this configuration in `m/config.pbtxt` and a version 1.
fn only(config: &str) -> Result<RepositoryModel> {
    let root = folder(&[("m/config.pbtxt", config), ("m/1/model.file", "x")]);
    read_archive(root.path(), "stem").map(|repository| repository.models.into_iter().next().expect("one model"))
}

#[test]
fn finds_the_models_of_each_layout() {
    let cases: [(Files<'_>, &str); 13] = [
        (&[("config.pbtxt", ONNX), ("1/model.onnx", "x")], "stem: stem@[1]"),
        (&[("config.pbtxt", "name: 'own' backend: 'onnxruntime'"), ("1/model.onnx", "x")], "own: own@[1]"),
        (&[("3/model.onnx", "x")], "stem: stem@[3]"),
        (&[("m/config.pbtxt", ONNX), ("m/1/model.onnx", "x"), ("README.md", "x")], "m: m@[1]"),
        (&[("m/config.pbtxt", "name: 'own' backend: 'python'"), ("m/1/model.py", "x")], "own: own@[1]"),
        (&[("m/1/model.onnx", "x"), ("m/2/model.onnx", "x")], "m: m@[2]"),
        (
            &[("a/config.pbtxt", ONNX), ("a/1/model.onnx", "x"), ("e/config.pbtxt", ENSEMBLE), ("e/1", "")],
            "e: a@[1] e@[1]",
        ),
        (&[("a/1/model.onnx", "x"), ("e/config.pbtxt", ENSEMBLE)], "e: a@[1] e@[1]"),
        (
            &[("top/a/1/model.onnx", "x"), ("top/e/config.pbtxt", ENSEMBLE), ("top/assets/vocab.txt", "x")],
            "e: a@[1] e@[1]",
        ),
        (&[("top/m/config.pbtxt", "backend: 'identity'"), ("__MACOSX/x/y.z", "x"), (".git/a.b", "x")], "m: m@[1]"),
        (
            &[
                ("a/1/model.onnx", "x"),
                ("inner/config.pbtxt", ENSEMBLE),
                ("outer/config.pbtxt", "ensemble_scheduling { step { model_name: 'inner' } }"),
            ],
            "outer: a@[1] inner@[1] outer@[1]",
        ),
        (
            &[
                ("config.pbtxt", "backend: 'identity' version_policy { all { } }"),
                ("2", ""),
                ("10", ""),
                ("01", ""),
                ("x", ""),
            ],
            "stem: stem@[2, 10]",
        ),
        (
            &[
                ("config.pbtxt", "backend: 'identity' version_policy { specific { versions: [ 10, 2 ] } }"),
                ("2", ""),
                ("10", ""),
                ("3", ""),
            ],
            "stem: stem@[2, 10]",
        ),
    ];
    for (files, expected) in cases {
        assert_eq!(archive(files), expected, "{files:?}");
    }
}

#[test]
fn says_what_is_wrong_with_a_layout() {
    let cases: [(Files<'_>, &[&str]); 11] = [
        (&[], &["no model was found\nfound:\n  (nothing)\nlayouts that work:\n  one model:"]),
        (&[("model.onnx", "x")], &["no model was found\nfound:\n  model.onnx\n"]),
        (&[("a/b/c/config.pbtxt", ONNX)], &["  a/\n    b/\n      c/\n        config.pbtxt\n"]),
        (&[("config.pbtxt", ONNX), ("m/config.pbtxt", ONNX)], &["both the root and folders below it are models"]),
        (&[("a/1/model.onnx", "x"), ("b/1/model.onnx", "x")], &["none of them is an ensemble: `a`, `b`"]),
        (
            &[("a/1/model.onnx", "x"), ("e/config.pbtxt", ENSEMBLE), ("f/config.pbtxt", ENSEMBLE)],
            &["several of them are ensembles: `e`, `f`"],
        ),
        (
            &[
                ("a/config.pbtxt", ENSEMBLE),
                ("e/config.pbtxt", "platform: 'ensemble' ensemble_scheduling { step { model_name: 'a' } }"),
                (
                    "f/config.pbtxt",
                    "platform: 'ensemble' ensemble_scheduling { step { model_name: 'e' } step { model_name: 'f' } }",
                ),
            ],
            &["every ensemble is a step of another one: `a`, `e`, `f`"],
        ),
        (
            &[("a/config.pbtxt", "\n name: 'b' backend: 'identity'"), ("b/config.pbtxt", "backend: 'identity'")],
            &["a/config.pbtxt:2:2: `name` is \"b\", but the directory is \"a\"; make them equal"],
        ),
        (
            &[("a/1/model.py", "x"), ("b/config.pbtxt", ONNX)],
            &[
                "2 problems:\na: there is no config.pbtxt, and no version",
                "\nb/config.pbtxt: there is no version directory: put",
            ],
        ),
        (
            &[
                ("m/config.pbtxt", "backend: 'identity'\nversion_policy { specific { versions: [ 1, 2 ] } }"),
                ("m/2", ""),
            ],
            &["m/config.pbtxt:2:29: versions [1] of `version_policy` are not there; found [2]"],
        ),
        (
            &[("config.pbtxt", "name: 'm'"), ("1/weights.bin", "x")],
            &["config.pbtxt: `backend` is missing, and no version"],
        ),
    ];
    for (files, expected) in cases {
        let error = archive(files);
        for part in expected {
            assert!(error.contains(part), "{files:?}\n{error}\nshould contain\n{part}");
        }
    }
}

#[test]
fn a_long_tree_is_cut() {
    let names: Vec<String> = (0..60).map(|index| format!("file{index:02}.bin")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let error = archive(&files);
    assert!(error.contains("file39.bin\n  … and more\n") && !error.contains("file40.bin"), "{error}");
}

#[test]
fn reads_each_dialect() {
    let model = only(dialect!("repeated_blocks")).expect("valid");
    assert_eq!((&*model.spec.name, model.spec.platform.as_str()), ("m", "onnxruntime_onnx"));
    let scale = InputSpec {
        name: "scale".into(),
        datatype: DataType::Fp32,
        dims: Shape::from([1]),
        reshape: Some(Shape::default()),
        optional: true,
    };
    assert_eq!(model.spec.input("scale"), Some(&scale));
    assert_eq!(model.spec.version_policy, VersionPolicy::All);
    assert_eq!(model.spec.output("y").and_then(|output| output.label_filename.clone()), Some("labels.txt".into()));

    let model = only(dialect!("full_scheduling")).expect("valid");
    assert_eq!(
        (&*model.spec.name, model.spec.backend.as_str(), model.spec.max_batch_size),
        ("ranker", "onnxruntime", 32)
    );
    assert_eq!(model.spec.default_model_filename.as_deref(), Some("ranker.onnx"));
    assert_eq!(model.spec.version_policy, VersionPolicy::Latest(2));
    assert_eq!(model.spec.parameters["intra_op_thread_count"], "2");
    let default_queue_policy = QueuePolicy {
        timeout_action: TimeoutAction::Delay,
        default_timeout: Some(Duration::from_millis(200)),
        allow_timeout_override: true,
        max_queue_size: Some(128),
    };
    let third = QueuePolicy {
        timeout_action: TimeoutAction::Reject,
        default_timeout: Some(Duration::from_millis(50)),
        allow_timeout_override: false,
        max_queue_size: Some(16),
    };
    let batching = DynamicBatching {
        preferred_batch_sizes: vec![8, 16],
        max_queue_delay: Duration::from_micros(500),
        adaptive: None,
        // Its three priorities change the order that it asks for.
        preserve_ordering: false,
        priority_levels: 3,
        default_priority_level: 2,
        default_queue_policy,
        priority_queue_policy: [(3, third)].into(),
    };
    assert_eq!(model.spec.dynamic_batching, Some(batching));

    let spec = only(dialect!("parameters_list")).expect("valid").spec;
    assert_eq!(
        spec.instance_groups,
        [InstanceGroup { count: 2, kind: InstanceKind::Gpu, gpus: vec![0, 1], ..InstanceGroup::default() }]
    );
    assert_eq!((spec.backend.as_str(), spec.platform.as_str()), ("dali", "dali"));

    let spec = only(dialect!("parameters_colon_comma")).expect("valid").spec;
    assert_eq!(spec.parameters["EXECUTION_ENV_PATH"], "$$TRITON_MODEL_DIRECTORY/env.tar.gz");
    assert_eq!(spec.inputs.iter().map(|input| input.optional).collect::<Vec<_>>(), [false, true, false]);

    let model = only(dialect!("ensemble_lists")).expect("valid");
    let steps = &model.spec.ensemble.as_ref().expect("an ensemble").steps;
    assert_eq!((&*steps[1].model, steps[1].version, &*steps[1].inputs["token_ids"]), ("encoder", None, "ids"));
    assert_eq!(model.locate("ensemble_scheduling.step[1].input_map[\"token_ids\"]"), "m/config.pbtxt:42:7");
    assert_eq!(model.locate("instance_group"), "m/config.pbtxt");
}

#[test]
fn reads_real_ensembles() {
    for (name, entry, models) in [
        ("ensemble_text", "sentence_embedding", &["encoder", "postprocess", "preprocess", "sentence_embedding"][..]),
        ("ensemble_image", "ensemble_dali_inception", &["classifier", "dali", "ensemble_dali_inception"]),
    ] {
        let root = tempfile::tempdir().expect("temporary folder");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        for model in models {
            std::fs::create_dir_all(root.path().join(model).join("1")).expect("created");
            let config = Path::new(model).join("config.pbtxt");
            std::fs::copy(fixtures.join(&config), root.path().join(&config)).expect("copied");
        }
        let repository = read_archive(root.path(), name).expect(name);
        assert_eq!(repository.entry.as_deref(), Some(entry));
        assert_eq!(repository.models.iter().map(|model| &*model.spec.name).collect::<Vec<_>>(), models);
    }
}

/// The lines of the error after its first.
fn check_problems(config: &str, expected: &[&str]) {
    let error = only(config).expect_err(config);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let lines: Vec<&str> = error.message().lines().skip(1).collect();
    assert_eq!(lines.len(), expected.len(), "{config}\n{error}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("m/config.pbtxt:{expected}")), "{line}\nshould begin with\n{expected}");
    }
}

#[test]
fn reports_every_problem_with_its_place() {
    check_problems(
        dialect!("bad_two_problems"),
        &["5:32: `data_type`: `TYPE_FLOAT32`", "6:10: `dims` is missing in output `y`"],
    );
    check_problems(dialect!("bad_unclosed"), &["4:7: the list opened here is never closed"]);
    check_problems(dialect!("bad_unknown_field"), &["4:1: `max_batchsize` is no field of ModelConfig; did you mean"]);
    let config = "backend: 'onnxruntime'
max_batch_size: -1
input { name: 'x' data_type: TYPE_FP32 dims: [ 2, 0 ] }
input { name: 'x' data_type: TYPE_INVALID dims: [ 2, -1 ] }
output { name: '' data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 3 ] } label_filename: '../x' }
instance_group [ { count: -1 kind: KIND_CPU gpus: [ 0, -2 ] } ]
default_model_filename: '/etc/passwd'
parameters { key: 'infer_timeout' value { string_value: 'soon' } }
parameters { key: 'memory_bytes' value { string_value: 'lots' } }
version_policy { specific { versions: [ 0 ] } }";
    check_problems(
        config,
        &[
            "2:1: `max_batch_size` is -1",
            "3:51: dimension 0 is neither",
            "4:9: there is another input called `x`",
            "4:19: `data_type` must be",
            "5:10: the name of this output is empty",
            "5:48: [2,3] has 6 elements, but `dims` [4] has 4",
            "5:76: \"../x\" must be a path within the model's directory",
            "6:20: a group cannot have -1 instances",
            "6:45: `gpus` contradicts `kind: KIND_CPU`",
            "6:56: -2 is no GPU",
            "7:1: \"/etc/passwd\" must be a path within the version directory",
            "8:43: `infer_timeout` is \"soon\", expected a time such as",
            "9:42: `memory_bytes` is \"lots\", expected a size such as",
            "10:41: 0 is no version",
        ],
    );
    let config = "platform: 'ensemble'
ensemble_scheduling {
  step [ { model_version: 0 input_map { key: 'x' } } ]
}";
    check_problems(
        config,
        &["3:10: `model_name` is missing", "3:12: 0 is no version", "3:29: an entry needs a `key` and a `value`"],
    );
    check_problems("platform: 'ensemble'", &["1:1: an ensemble needs `ensemble_scheduling`"]);
    check_problems(
        "backend: 'python' ensemble_scheduling { }",
        &["1:19: an ensemble needs at least one", "1:19: `ensemble_scheduling` needs"],
    );
    check_problems("backend: 'python' platform: 'onnxruntime_onnx'", &["1:19: `platform` \"onnxruntime_onnx\" means"]);
}

#[test]
fn batching_that_contradicts_itself_is_refused() {
    let config = "backend: 'onnxruntime' max_batch_size: 4
dynamic_batching {
  preferred_batch_size: [ 4, 8, 0 ]
  priority_levels: 2 default_priority_level: 3
  priority_queue_policy { key: 5 value { max_queue_size: 1 } }
}";
    check_problems(
        config,
        &[
            "3:30: preferred batch size 8 is above `max_batch_size` 4",
            "3:33: 0 is no batch size",
            "4:22: `default_priority_level` must be between 1 and `priority_levels` (2), got 3",
            "5:3: there is no priority level 5; `priority_levels` is 2",
        ],
    );
    let config = "backend: 'onnxruntime' dynamic_batching { default_priority_level: 1 }";
    check_problems(config, &["1:43: `default_priority_level` is 1, but there are no levels"]);
    let config = "backend: 'onnxruntime' dynamic_batching { priority_levels: 2 }";
    check_problems(config, &["1:24: `default_priority_level` must be between 1 and `priority_levels` (2), got 0"]);
    let config = "backend: 'onnxruntime' dynamic_batching { preferred_batch_size: 64 }";
    only(config).expect("the model's file may say how large its batches are");
    let spec = only("backend: 'onnxruntime' dynamic_batching { }").expect("valid").spec;
    assert_eq!(spec.dynamic_batching, Some(DynamicBatching::default()));
    assert_eq!(only("backend: 'onnxruntime'").expect("valid").spec.dynamic_batching, None);
}

#[test]
fn refuses_what_it_would_get_wrong_and_passes_over_the_rest() {
    let refused = [
        "cc_model_filenames { key: '7.5' value: 'm' }",
        "model_operations { op_library_filename: 'x.so' }",
        "model_repository_agents { agents { name: 'checksum' } }",
    ];
    for field in refused {
        let name = field.split(' ').next().expect("a name");
        check_problems(
            &format!("backend: 'onnxruntime'\n {field}"),
            &[&format!("2:2: `{name}` is not supported yet (")],
        );
    }
    let metrics = "backend: 'x'\nmodel_metrics { metric_control { histogram_options { buckets: [ 10, 10 ] } } }";
    check_problems(metrics, &["2:17: a metric is named by", "2:54: `buckets` must be numbers"]);
    let input = "backend: 'onnxruntime' input { name: 'x' data_type: TYPE_FP32 dims: 1 is_shape_tensor: true }";
    check_problems(input, &["1:71: `is_shape_tensor` is not supported yet"]);
    check_problems(
        "backend: x cc_model_filenames { key: '7' value: 'm' }",
        &["1:10: `backend`: expected a string", "1:12: `cc_model_filenames` is"],
    );
    let accepted = "backend: 'python' model_transaction_policy { decoupled: false } runtime: 'libtriton_python.so' optimization { }
        instance_group { rate_limiter { priority: 2 } host_policy: 'cpu' } metric_tags { key: 'a' value: 'b' } model_metrics { }
        input { name: 'x' data_type: TYPE_FP32 dims: 1 format: FORMAT_NHWC allow_ragged_batch: false }";
    only(accepted).expect("nothing here can change an answer");
}

#[test]
fn decoupled_models_and_bounds_of_ensembles_are_read() {
    let of = |config: &str| only(config).expect("valid").spec;
    assert!(of("backend: 'repeat' model_transaction_policy { decoupled: true }").decoupled);
    assert!(!of("backend: 'identity' model_transaction_policy { }").decoupled);
    let bound = |max: &str| {
        let scheduling = format!("ensemble_scheduling {{ step {{ model_name: 'a' model_version: -1 }} {max} }}");
        of(&format!("platform: 'ensemble' {scheduling}")).ensemble.expect("an ensemble").max_inflight_requests
    };
    assert_eq!((bound("max_inflight_requests: 3"), bound("")), (Some(3), None));
}

#[test]
fn some_parameters_are_settings() {
    let parameter =
        |key: &str, value: &str| format!("parameters {{ key: '{key}' value {{ string_value: '{value}' }} }}\n");
    let config = parameter("infer_timeout", "1m 30s") + &parameter("memory_bytes", "1.5 MiB") + "backend: 'identity'";
    let spec = only(&config).expect("valid").spec;
    assert_eq!((spec.infer_timeout, spec.memory_bytes), (Some(Duration::from_secs(90)), Some(3 << 19)));
    let weights = |value: &str| parameter("weights", value) + "backend: 'onnxruntime'";
    assert_eq!(only(&weights("mapped")).expect("valid").spec.weights, Some(Weights::Mapped));
    check_problems(&weights("none"), &["1:37: `weights` is \"none\", expected private, mapped or auto"]);
    let batching = |value: &str| parameter("adaptive_batching", value) + "backend: 'x' dynamic_batching { }";
    for (value, adaptive) in [("true", true), ("false", false)] {
        let spec = only(&batching(value)).expect("valid").spec;
        assert_eq!(spec.dynamic_batching.expect("asked for").adaptive, Some(adaptive));
    }
    check_problems(&batching("yes"), &["1:47: `adaptive_batching` is \"yes\", expected true or false"]);
    let alone = parameter("adaptive_batching", "true") + "backend: 'x'";
    check_problems(&alone, &["1:47: `adaptive_batching` is \"true\", expected `dynamic_batching` beside it"]);
    let config = parameter("infer_timeout", "0s") + "backend: 'python' platform: 'ensemble'";
    check_problems(&config, &["1:43: `infer_timeout` is \"0s\"", "2:19: `platform` \"ensemble\" means backend"]);
}

#[test]
fn a_model_completed_by_its_backend_says_so_in_its_configuration() {
    let root = folder(&[("m/7/model.onnx", "12345"), ("m/7/model.data", "678")]);
    let model = read_archive(root.path(), "stem").expect("valid").models.remove(0);
    assert_eq!((model.config_file.clone(), model.file_bytes(7), model.file_bytes(8)), (None, 8, 0));
    assert_eq!((model.config.name.as_str(), model.config.platform.as_str()), ("m", "onnxruntime_onnx"));
    assert_eq!(model.locate("input"), "m");
    let mut spec = model.spec.clone();
    spec.max_batch_size = 4;
    spec.inputs.push(InputSpec {
        name: "x".into(),
        datatype: DataType::Int64,
        dims: Shape::from([-1, 3]),
        reshape: None,
        optional: false,
    });
    let output = OutputSpec {
        name: "y".into(),
        datatype: DataType::Bf16,
        dims: Shape::default(),
        reshape: None,
        label_filename: None,
    };
    spec.outputs.push(output);
    let completed = model.completed(spec.clone());
    assert_eq!(completed.spec, spec);
    let json = protocol::model_config_json(&completed.config);
    for part in
        [r#""max_batch_size":4"#, r#""dims":[-1,3]"#, r#""data_type":"TYPE_BF16""#, r#""latest":{"num_versions":1}"#]
    {
        assert!(json.contains(part), "{part} in {json}");
    }
}

#[test]
fn completion_keeps_what_the_configuration_says() {
    let text = "backend: 'onnxruntime' input { name: 'x' data_type: TYPE_FP32 dims: 3 format: FORMAT_NCHW }
        output { name: 'y' data_type: TYPE_FP32 dims: 3 label_filename: 'labels.txt' }";
    let model = only(text).expect("valid");
    let (before, spec) = (model.config.clone(), model.spec.clone());
    assert_eq!(model.completed(spec).config, before);
}

#[test]
fn labels_are_lines() {
    let config = "backend: 'identity'\noutput { name: 'y' data_type: TYPE_FP32 dims: 3 label_filename: 'labels.txt' }";
    let root = folder(&[("config.pbtxt", config), ("labels.txt", "cat\r\nbig dog\n")]);
    let model = read_archive(root.path(), "stem").expect("valid").models.remove(0);
    assert_eq!(model.read_labels().expect("readable")["y"], ["cat", "big dog"]);
    std::fs::remove_file(root.path().join("labels.txt")).expect("removed");
    let error = model.read_labels().expect_err("missing").to_string();
    assert!(error.starts_with("config.pbtxt:2:49: cannot read labels from \"labels.txt\": "), "{error}");
}

#[test]
fn a_folder_of_models_has_no_entry() {
    let root = folder(&[
        ("a/1/model.onnx", "x"),
        ("b/config.pbtxt", "backend: 'identity'"),
        ("note.txt", "x"),
        (".cache/x.y", "x"),
    ]);
    let repository = read_folder(root.path()).expect("valid");
    assert_eq!(repository.entry, None);
    assert_eq!(repository.models.iter().map(|model| &*model.spec.name).collect::<Vec<_>>(), ["a", "b"]);
    let error = |files: Files<'_>| read_folder(folder(files).path()).expect_err("bad").to_string();
    assert!(error(&[("config.pbtxt", ONNX)]).contains("is a model, not a model repository"));
    assert!(error(&[("a/x.txt", "x")]).contains("\na: there is no config.pbtxt"));
    assert!(
        error(&[("a/config.pbtxt", "name: 'b' backend: 'identity'")]).contains("a/config.pbtxt:1:1: `name` is \"b\"")
    );
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let root = folder(&[("m/1", "")]);
    std::fs::write(root.path().join("m/config.pbtxt"), b"name: 'a\xff'").expect("written");
    let error = read_archive(root.path(), "stem").expect_err("not UTF-8").to_string();
    assert!(error.contains("m/config.pbtxt: the file is not UTF-8 from byte 8 on"), "{error}");
}
