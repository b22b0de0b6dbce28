//! What a configuration or an archive may not ask for.

use super::*;

/// Numbers and lists of a configuration that would cost memory out of all proportion are refused where they stand.
#[test]
fn what_would_blow_up_is_refused_with_its_place() {
    let many = |one: &str, count: usize| vec![one; count].join(" ");
    let with = |text: &str| format!("{ONNX}\n{text}");
    let tensor = |index: usize| format!("input {{ name: 'i{index}' data_type: TYPE_FP32 dims: 1 }}");
    let tensors = |count: usize| (0..count).map(tensor).collect::<Vec<_>>().join(" ");
    let sequences = |text: &str| with(&format!("sequence_batching {{ {text} }}"));
    let steps =
        |count| format!("platform: 'ensemble'\nensemble_scheduling {{ {} }}", many("step { model_name: 'a' }", count));
    let cases = [
        (with("instance_group [{count: 2000000000 kind: KIND_CPU}]"), "m/config.pbtxt:2:", "at most 1024"),
        (with("instance_group { count: 1025 }"), "m/config.pbtxt:2:", "at most 1024"),
        (with(&many("instance_group { count: 1000 }", 2)), "m/config.pbtxt:2:", "have 2000 instances; at most 1024"),
        (with(&many("instance_group { count: 1 }", 65)), "m/config.pbtxt:2:", "65 groups; at most 64"),
        (with(&format!("instance_group {{ kind: KIND_GPU {} }}", many("gpus: 0", 65))), "m/config.pbtxt:2:", "65 GPUs"),
        (
            with(&format!("version_policy {{ specific {{ {} }} }}", many("versions: 1", 1001))),
            "m/config.pbtxt:2:",
            "1001",
        ),
        (
            with(&format!("input {{ name: 'x' data_type: TYPE_FP32 {} }}", many("dims: 1", 65))),
            "m/config.pbtxt:2:",
            "65 dim",
        ),
        (with(&tensors(4097)), "m/config.pbtxt:2:", "4097 inputs; at most 4096"),
        (steps(1001), "m/config.pbtxt:2:", "1001 steps; at most 1000"),
        (
            sequences(&many("state { data_type: TYPE_INT8 dims: 1 }", 4097)),
            "m/config.pbtxt:2:",
            "4097 states; at most 4096",
        ),
        (sequences(&many("control_input { }", 4097)), "m/config.pbtxt:2:", "4097 control_inputs; at most 4096"),
    ];
    for (config, place, message) in cases {
        let error = only(&config).expect_err(message);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains(place) && error.message().contains(message), "{error}");
        assert!(error.message().len() < 300, "one problem, not one per element: {error}");
    }
    only(&with("instance_group { count: 1000 } instance_group { count: 24 }")).expect("up to the bound");
    only(&with(&tensors(4096))).expect("up to the bound");
}

/// A sequence's states are bounded together, and nothing is allocated for those that are refused.
#[test]
fn states_are_bounded_together() {
    const MIB: usize = 1 << 20;
    let state = |index: usize, bytes: usize| {
        format!("state {{ input_name: 'i{index}' output_name: 'o{index}' data_type: TYPE_INT8 dims: {bytes} }}\n")
    };
    let config = |states: &[usize]| {
        let states: String = states.iter().enumerate().map(|(index, bytes)| state(index, *bytes)).collect();
        format!("{ONNX}\nsequence_batching {{\n{states}}}")
    };
    only(&config(&[1024 * MIB - 1, 1])).expect("up to the bound");
    let error = only(&config(&[600 * MIB, 600 * MIB, 1])).expect_err("over the bound");
    let place = "m/config.pbtxt:4:";
    let message = "with a state of shape [629145600] the states are larger than 1073741824 bytes";
    assert!(error.message().contains(place) && error.message().contains(message), "{error}");
    only(&config(&vec![1024 * MIB; 4096])).expect_err("four TiB");
}

#[test]
fn a_given_configuration_is_bounded_as_a_file_is() {
    let root = folder(&[("1/model.onnx", "x")]);
    let read = |length: usize| read_given_model(root.path(), "m", &format!("{{}}{}", " ".repeat(length - 2)));
    let error = read((4 << 20) + 1).expect_err("too long");
    assert!(error.message().contains("the given config: it is larger than 4194304 bytes"), "{error}");
    let error = read(4 << 20).err().map(|error| error.message().to_owned()).unwrap_or_default();
    assert!(!error.contains("larger"), "{error}");
}

#[test]
fn an_archive_of_too_many_models_is_refused() {
    let root = folder(&[]);
    for number in 0..1001 {
        let directory = root.path().join(format!("m{number}"));
        std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(directory.join("config.pbtxt"), ONNX))
            .expect("m");
    }
    let error = read_archive(root.path(), "stem").expect_err("too many");
    assert!(error.message().contains("holds 1001 models; at most 1000"), "{error}");
}
