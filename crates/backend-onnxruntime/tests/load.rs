//! Completing, checking and loading models; instances, placement and memory.

mod fixture;

use std::path::PathBuf;

use backend_onnxruntime::{OnnxRuntimeBackend, OnnxRuntimeConfig, describe_metrics};
use fixture::{
    artifact, artifact_in, backend, completed, config, configured, copy_model, execute, floats, input, load, output,
    request, values,
};
use inference::{
    Backend, Batch, DataType, Device, ErrorKind, InstanceGroup, InstanceKind, ModelSpec, Placement, Shape,
};
use metrics_exporter_prometheus::PrometheusBuilder;

#[test]
fn a_missing_library_says_what_to_install_and_set() {
    let config =
        OnnxRuntimeConfig { library: PathBuf::from("/nowhere/libonnxruntime.so"), ..OnnxRuntimeConfig::default() };
    let error = OnnxRuntimeBackend::start(config).err().expect("no library");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for part in ["/nowhere/libonnxruntime.so", "No such file", "pip install onnxruntime==1.31.1", "--ort-library"] {
        assert!(error.message().contains(part), "{error}\nshould contain {part}");
    }
}

#[test]
fn a_process_runs_one_library_and_starts_share_it() {
    let (first, second) = (backend(), backend());
    assert_eq!((first.name(), second.name()), ("onnxruntime", "onnxruntime"));
    let folder = tempfile::tempdir().expect("a folder");
    let other = folder.path().join("libonnxruntime.so");
    std::fs::write(&other, "not a library").expect("written");
    let error =
        OnnxRuntimeBackend::start(OnnxRuntimeConfig { library: other, ..config() }).err().expect("a second one");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_model_without_a_configuration_gets_one_from_its_file() {
    let spec = completed("add_sub").spec;
    assert_eq!(spec.max_batch_size, 4);
    assert_eq!(spec.inputs, [input("a", DataType::Fp32, &[3]), input("b", DataType::Fp32, &[3])]);
    assert_eq!(spec.outputs, [output("sum", DataType::Fp32, &[3]), output("difference", DataType::Fp32, &[3])]);
    let spec = completed("fixed_batch").spec;
    assert_eq!((spec.max_batch_size, &spec.inputs[0].dims), (0, &Shape::from([1, 3])));
}

#[test]
fn only_wanted_outputs_come_in_the_configurations_order() {
    let artifact = configured(&completed("add_sub"), |spec| spec.outputs.reverse());
    let mut model = load(&artifact);
    let inputs = || vec![floats("b", &[1, 3], &[1.0, 1.0, 1.0]), floats("a", &[1, 3], &[1.0, 2.0, 3.0])];
    let response = execute(&mut model, request(inputs())).expect("runs");
    let names: Vec<&str> = response.outputs.iter().map(|output| &*output.name).collect();
    assert_eq!(names, ["difference", "sum"]);
    assert_eq!(values(&response, "difference"), [0.0, 1.0, 2.0]);

    let mut one = request(inputs());
    one.outputs = vec!["sum".into()];
    let response = execute(&mut model, one).expect("runs");
    assert_eq!((response.outputs.len(), values(&response, "sum")), (1, vec![2.0, 3.0, 4.0]));
    assert!(response.timing.infer > std::time::Duration::ZERO);
}

#[test]
fn a_batch_of_requests_gets_one_result_each_in_order() {
    let mut model = load(&completed("add_sub"));
    let good = |x: f32| request(vec![floats("a", &[1, 3], &[x; 3]), floats("b", &[1, 3], &[1.0; 3])]);
    let bad = request(vec![]);
    let results = model.instances[0].execute(Batch::new(vec![good(1.0), bad, good(2.0)]));
    assert_eq!(results.len(), 3);
    assert_eq!(values(results[0].as_ref().expect("good"), "sum"), [2.0; 3]);
    assert!(results[1].is_err());
    assert_eq!(values(results[2].as_ref().expect("good"), "sum"), [3.0; 3]);
}

#[test]
fn instances_run_at_the_same_time_and_do_not_mix_results() {
    let model = backend().load(&completed("weights"), &Placement::on_host(4)).expect("loads");
    assert_eq!(model.instances.len(), 4);
    std::thread::scope(|scope| {
        for (number, mut instance) in model.instances.into_iter().enumerate() {
            scope.spawn(move || {
                for round in 0..100u16 {
                    let x = f32::from(round) + 1000.0 * number as f32;
                    let requests = vec![request(vec![floats("x", &[2, 512], &[x; 1024])])];
                    let response = instance.execute(Batch::new(requests)).remove(0).expect("runs");
                    assert_eq!(values(&response, "y"), [2.0 * x; 1024]);
                }
            });
        }
    });
}

#[test]
fn a_configuration_that_contradicts_the_file_is_refused_with_every_contradiction() {
    let wrong = configured(&artifact("add_sub"), |spec| {
        spec.inputs = vec![input("a", DataType::Int64, &[-1, 3]), input("c", DataType::Fp32, &[-1, 3])];
        spec.outputs = vec![output("sum", DataType::Fp32, &[-1, 2])];
    });
    assert_eq!(backend().complete(&wrong).expect("nothing is missing"), *wrong.spec);
    let error = backend().load(&wrong, &Placement::on_host(1)).err().expect("contradictions");
    assert_eq!((error.kind(), error.model()), (ErrorKind::InvalidArgument, Some("add_sub")));
    for part in ["'a' is configured as INT64", "no input 'c'", "needs an input 'b'", "[-1,2] the model has [-1,3]"] {
        assert!(error.message().contains(part), "{error}\nshould contain {part}");
    }
}

#[test]
fn a_sequence_is_refused_unless_the_configuration_leaves_it_out() {
    let error = backend().complete(&artifact("sequence_output")).expect_err("a sequence");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("output 'parts' is a sequence"), "{error}");

    let with = |outputs: Vec<inference::OutputSpec>| {
        configured(&artifact("sequence_output"), |spec| {
            spec.inputs = vec![input("x", DataType::Fp32, &[-1])];
            spec.outputs = outputs;
        })
    };
    let declared = with(vec![output("parts", DataType::Fp32, &[-1])]);
    let error = backend().load(&declared, &Placement::on_host(1)).err().expect("a sequence");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let mut model = load(&with(vec![output("y", DataType::Fp32, &[-1])]));
    let response = execute(&mut model, request(vec![floats("x", &[1], &[3.0])])).expect("runs");
    assert_eq!(values(&response, "y"), [-3.0]);
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = artifact_in(folder.path(), ModelSpec::new("m", "onnxruntime"));
    let error = backend().complete(&model).expect_err("no file");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("model 'm': version 1 has no file 'model.onnx'"), "{error}");

    std::fs::write(folder.path().join("model.onnx"), "no protobuf").expect("written");
    let error = backend().complete(&model).expect_err("broken");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.message().contains("model 'm': ONNX Runtime does not load it"), "{error}");

    copy_model("add_sub", &folder.path().join("model.onnx"));
    backend().complete(&model).expect("a real one");
}

#[test]
fn weights_count_as_memory_wherever_they_are() {
    const WEIGHTS: u64 = 512 * 512 * 4;
    let models = test_util::artifacts().join("test-models");
    for (name, files) in [("weights", &["weights.onnx"][..]), ("external", &["external.onnx", "external.weights"])] {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            std::fs::copy(models.join(file), folder.path().join(file)).expect("copied");
        }
        let artifact = artifact_in(folder.path(), ModelSpec::clone(&completed(name).spec));
        let mut loaded = load(&artifact);
        let response = execute(&mut loaded, request(vec![floats("x", &[1, 512], &[1.5; 512])])).expect("runs");
        assert_eq!(values(&response, "y"), [3.0; 512]);
        let memory = loaded.memory.get(Device::Host);
        assert!((WEIGHTS..WEIGHTS * 5 / 4).contains(&memory), "{name}: {memory}");
        let estimate = backend().estimate(&artifact, WEIGHTS, &Placement::on_host(3)).get(Device::Host);
        assert!((memory..2 * WEIGHTS).contains(&estimate), "{name}: {estimate}");
    }
}

#[test]
fn a_model_for_a_gpu_that_cannot_be_used_runs_on_the_host_or_is_refused() {
    let on_gpu = Placement { instances: vec![Device::Gpu(0), Device::Gpu(0)] };
    // Meant for a GPU, but placed on the host because the machine has none.
    let group = InstanceGroup { kind: InstanceKind::Gpu, ..InstanceGroup::default() };
    let displaced = configured(&completed("add_sub"), |spec| spec.instance_groups = vec![group]);
    let cases = [(completed("add_sub"), on_gpu), (displaced, Placement::on_host(2))];
    // The test's library has no CUDA; and a GPU that is not listed is none.
    for gpus in [vec![0], vec![]] {
        for (artifact, placement) in &cases {
            let recorder = PrometheusBuilder::new().build_recorder();
            let rendered = metrics::with_local_recorder(&recorder, || {
                describe_metrics();
                let lenient = OnnxRuntimeBackend::start(OnnxRuntimeConfig { gpus: gpus.clone(), ..config() });
                let mut model = lenient.expect("starts").load(artifact, placement).expect("falls back");
                assert_eq!(model.instances.len(), 2);
                assert!(model.memory.get(Device::Host) > 0 && model.memory.get(Device::Gpu(0)) == 0);
                let inputs = vec![floats("a", &[1, 3], &[1.0; 3]), floats("b", &[1, 3], &[1.0; 3])];
                execute(&mut model, request(inputs)).expect("runs");
                recorder.handle().render()
            });
            assert!(rendered.contains("panoply_gpu_fallbacks_total 1"), "{rendered}");
            let strict = OnnxRuntimeConfig { gpus: gpus.clone(), require_gpu: true, ..config() };
            let error = OnnxRuntimeBackend::start(strict).expect("starts").load(artifact, placement).err();
            let error = error.expect("no GPU");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.message().contains("--require-gpu"), "{error}");
        }
    }
}
