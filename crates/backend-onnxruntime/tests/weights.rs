//! Weights that stay in their files: the same answers, and who decides.

mod fixture;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use backend_onnxruntime::{OnnxRuntimeBackend, OnnxRuntimeConfig, describe_metrics};
use fixture::{artifact, artifact_in, backend, completed, config, configured, execute, floats, load, request, values};
use inference::{
    Backend, Device, GrowthAdvice, InferRequest, MemoryUsage, ModelArtifact, ModelSpec, NamedTensor, Placement, Shape,
    Tensor, Weights,
};
use metrics_exporter_prometheus::PrometheusBuilder;

/// Runs a model both ways; the answers must be equal within what another order of additions explains.
fn compare(artifact: &ModelArtifact, request: impl Fn() -> InferRequest) {
    let load = |weights| load(&configured(artifact, |spec| spec.weights = Some(weights)));
    let (mut private, mut mapped) = (load(Weights::Private), load(Weights::Mapped));
    let expected = execute(&mut private, request()).expect("runs");
    let response = execute(&mut mapped, request()).expect("runs");
    for output in &artifact.spec.outputs {
        let (got, expected) = (values(&response, &output.name), values(&expected, &output.name));
        let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let difference = (got - expected).abs();
            assert!(difference <= 1e-4 * largest, "{}: {got} instead of {expected} at {at}", artifact.spec.name);
        }
        assert_eq!(got.len(), expected.len());
    }
    let bytes = |model: &inference::LoadedModel| model.memory.get(Device::Host);
    assert!(2 * bytes(&mapped) < bytes(&private), "{} against {}", bytes(&mapped), bytes(&private));
}

fn real(folder: &str) -> ModelArtifact {
    let folder = test_util::artifacts().join("model_repository").join(folder);
    let artifact = artifact_in(&folder, ModelSpec::new("m", "onnxruntime"));
    let spec = backend().complete(&artifact).expect("complete");
    ModelArtifact { spec: spec.into(), ..artifact }
}

#[test]
fn real_models_answer_as_they_do_with_weights_of_their_own() {
    for rows in [1, 3] {
        let ids = |name: &str, value: i64| {
            let ids = (0..rows * 16).map(|at| if value == 1 { 1 } else { value * at }).collect();
            NamedTensor::new(name, Tensor::from_vec(Shape::new(&[rows, 16]), ids).expect("valid"))
        };
        let encoder = real("minilm/encoder/1");
        let inputs = || vec![ids("input_ids", 31), ids("attention_mask", 1), ids("token_type_ids", 0)];
        compare(&encoder, || request(inputs()));

        let mobilenet = real("mobilenet/mobilenet/1");
        let input = &mobilenet.spec.inputs[0];
        let dims: Vec<i64> = std::iter::once(rows).chain(input.dims.iter().copied()).collect();
        let pixels: Vec<f32> = (0..dims.iter().product()).map(|at: i64| (at % 255) as f32 / 255.0).collect();
        compare(&mobilenet, || request(vec![floats(&input.name, &dims, &pixels)]));
    }
}

#[test]
fn weights_beside_the_model_are_mapped_too_and_instances_share_them() {
    for name in ["weights", "external"] {
        let artifact = completed(name);
        compare(&artifact, || request(vec![floats("x", &[2, 512], &[1.5; 1024])]));
        let mapped = configured(&artifact, |spec| spec.weights = Some(Weights::Mapped));
        let bytes = |count| {
            let loaded = backend().load(&mapped, &Placement::on_host(count)).expect("loads");
            assert_eq!(loaded.instances.len(), count);
            loaded.memory.get(Device::Host)
        };
        // The arena's part of it is only known where nothing else runs.
        assert!(bytes(4) < 512 << 10 && bytes(1) < 512 << 10);
        let placement = Placement::on_host(1);
        let estimate = |artifact: &ModelArtifact| backend().estimate(artifact, 1 << 20, &placement).get(Device::Host);
        assert!(estimate(&mapped) < 256 << 10, "{}", estimate(&mapped));
        assert!(estimate(&artifact) > 1 << 20, "{}", estimate(&artifact));
    }
}

/// Bytes of mapped weights that the metrics tell of while a model is loaded, and afterwards.
fn mapped_bytes(backend: &OnnxRuntimeBackend, artifact: &ModelArtifact) -> (u64, u64) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let gauge = || {
        let rendered = handle.render();
        let line = rendered.lines().find_map(|line| line.strip_prefix("panoply_mapped_weights_bytes "));
        line.map_or(0, |number| number.parse::<f64>().expect("a number") as u64)
    };
    metrics::with_local_recorder(&recorder, || {
        describe_metrics();
        let loaded = backend.load(artifact, &Placement::on_host(2)).expect("loads");
        let during = gauge();
        drop(loaded);
        (during, gauge())
    })
}

#[test]
fn the_model_decides_before_the_server_and_files_that_may_change_are_not_mapped() {
    const BYTES: u64 = 512 * 512 * 4;
    let of_server = |weights| OnnxRuntimeBackend::start(OnnxRuntimeConfig { weights, ..config() }).expect("starts");
    let of_model = |weights| configured(&completed("weights"), |spec| spec.weights = weights);
    for (server, model, expected) in [
        (Weights::Private, None, 0),
        (Weights::Mapped, None, BYTES),
        (Weights::Auto, None, BYTES),
        (Weights::Private, Some(Weights::Mapped), BYTES),
        (Weights::Mapped, Some(Weights::Private), 0),
    ] {
        assert_eq!(mapped_bytes(&of_server(server), &of_model(model)), (expected, 0), "{server:?} {model:?}");
    }
    let changing = ModelArtifact { immutable: false, ..of_model(Some(Weights::Mapped)) };
    assert_eq!(mapped_bytes(&backend(), &changing), (0, 0));
    // Its weights are dequantised when it is loaded, which leaves none of them as they are.
    let quantised = configured(&real("minilm-int8/encoder/1"), |spec| spec.weights = Some(Weights::Mapped));
    assert_eq!(mapped_bytes(&backend(), &quantised), (0, 0));
    let without_weights = configured(&completed("add_sub"), |spec| spec.weights = Some(Weights::Mapped));
    assert_eq!(mapped_bytes(&backend(), &without_weights), (0, 0));
}

/// A model of external data whose file's name is replaced by another of the same length.
fn with_location(folder: &Path, location: &str) -> ModelArtifact {
    let source = test_util::artifacts().join("test-models/external.onnx");
    let mut model = std::fs::read(source).expect("a model");
    let at = model.windows(16).position(|part| part == b"external.weights").expect("its location");
    model[at..at + 16].copy_from_slice(location.as_bytes());
    std::fs::write(folder.join("external.onnx"), model).expect("written");
    let spec = configured(&completed("external"), |spec| spec.weights = Some(Weights::Mapped)).spec;
    ModelArtifact { spec, ..artifact_in(folder, artifact("external").spec.as_ref().clone()) }
}

#[test]
fn a_model_cannot_reach_files_that_are_not_beside_it() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("model");
    std::fs::create_dir(&folder).expect("made");
    let weights = test_util::artifacts().join("test-models/external.weights");
    std::fs::copy(&weights, root.path().join("ext.weights.1")).expect("copied");
    let error = backend().load(&with_location(&folder, "../ext.weights.1"), &Placement::on_host(1)).err();
    let error = error.expect("the file lies outside");
    assert!(error.message().contains("ONNX Runtime does not load it"), "{error}");

    // Nor through a link, nor past a file's end.
    std::os::unix::fs::symlink(root.path().join("ext.weights.1"), folder.join("ext_weights.link")).expect("linked");
    std::fs::write(folder.join("external_weights"), vec![0; 1000]).expect("written");
    for location in ["ext_weights.link", "external_weights"] {
        let loaded = backend().load(&with_location(&folder, location), &Placement::on_host(1));
        assert!(loaded.is_err(), "{location}");
    }
}

/// Tells when it is dropped.
struct Grant(#[expect(dead_code, reason = "held, never read")] Arc<()>);

#[test]
fn a_model_that_is_used_enough_asks_for_memory_and_has_it_until_it_is_unloaded() {
    let artifact = configured(&completed("weights"), |spec| spec.weights = Some(Weights::Auto));
    let mut model = backend().load(&artifact, &Placement::on_host(2)).expect("loads");
    let growth = model.instances[1].growth().expect("its use decides");
    assert_eq!((growth.advice(Instant::now()), growth.held()), (GrowthAdvice::Stay, MemoryUsage::default()));
    let rows = 64;
    let ask = |model: &mut inference::LoadedModel| {
        let inputs = vec![floats("x", &[rows, 512], &vec![1.5; 512 * rows as usize])];
        let response = execute(model, request(inputs)).expect("runs");
        assert_eq!(values(&response, "y"), vec![3.0; 512 * rows as usize]);
    };
    let advice = (0..100_000).find_map(|_| {
        ask(&mut model);
        Some(growth.advice(Instant::now())).filter(|advice| *advice != GrowthAdvice::Stay)
    });
    let Some(GrowthAdvice::Grow(usage)) = advice else { panic!("it never asks: {advice:?}") };
    assert!(usage.get(Device::Host) >= 512 * 512 * 4, "{usage:?}");

    // Whether weights of its own make so small a model faster is for the machine to say.
    let granted = Arc::new(());
    let has_grown = growth.grow(Box::new(Grant(granted.clone()))).expect("there is nothing to fail");
    ask(&mut model);
    assert_eq!(Arc::strong_count(&granted), if has_grown { 2 } else { 1 });
    assert_eq!(growth.held(), if has_grown { usage } else { MemoryUsage::default() });
    drop((growth, model));
    assert_eq!(Arc::strong_count(&granted), 1, "what was granted goes with the model");
    let fixed = load(&completed("weights"));
    assert!(fixed.instances[0].growth().is_none());
}
