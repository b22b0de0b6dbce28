//! What a configuration or an archive may not ask for.

use super::*;

/// Numbers and lists of a configuration that would cost memory out of all proportion are refused where they stand.
#[test]
fn what_would_blow_up_is_refused_with_its_place() {
    let many = |one: &str, count: usize| vec![one; count].join(" ");
    let with = |text: &str| format!("{ONNX}\n{text}");
    let tensor = |index: usize| format!("input {{ name: 'i{index}' data_type: TYPE_FP32 dims: 1 }}");
    let tensors = |count: usize| (0..count).map(tensor).collect::<Vec<_>>().join(" ");
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
