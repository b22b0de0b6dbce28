//! The ONNX node tests of the package `onnx`, run through the backend: every test that ONNX Runtime itself passes and whose
//! types KServe v2 can carry. `prepare_node_tests.py` has found out which these are.

mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use fixture::{artifact_in, backend, execute, load, request};
use half::{bf16, f16};
use inference::{
    Backend, DataType, ModelArtifact, ModelSpec, NamedTensor, Shape, Tensor, check_request, to_model_shape,
    to_request_shape,
};
use serde_json::Value;

/// Node tests of onnx 1.22.0 that run here.
const RUN: usize = 1434;

/// Why the others do not, and how many these are. Their names are in `target/panoply/onnx-node-tests/manifest.json`.
const LEFT_OUT: [(&str, usize); 3] = [
    // Sequences, maps and optional values: KServe v2 has tensors only.
    ("not-a-tensor", 29),
    // ONNX Runtime 1.31.1 lacks the operator or type on the CPU, or misses the expected values.
    ("onnxruntime-fails", 138),
    // Complex numbers, 8-bit and 4-bit floats, 2-bit and 4-bit integers.
    ("type-unknown-to-kserve", 164),
];

const RELATIVE_TOLERANCE: f64 = 1e-3;
const ABSOLUTE_TOLERANCE: f64 = 1e-5;

#[test]
fn every_node_test_that_onnx_runtime_passes_passes_here() {
    let folder = test_util::artifacts().join("onnx-node-tests");
    let manifest = fs::read(folder.join("manifest.json")).expect("run `cargo xtask setup` first");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let tests = manifest["tests"].as_array().expect("a list");
    let failures: Vec<String> = tests.iter().filter_map(|test| check(&folder, test).err()).collect();
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), tests.len(), failures.join("\n"));

    let mut reasons = BTreeMap::new();
    for reason in manifest["left_out"].as_object().expect("an object").values() {
        *reasons.entry(reason.as_str().expect("a string")).or_insert(0) += 1;
    }
    assert_eq!(reasons, BTreeMap::from(LEFT_OUT));
    assert_eq!(tests.len(), RUN);
    assert_eq!((&manifest["onnx"], &manifest["onnxruntime"]), (&Value::from("1.22.0"), &Value::from("1.31.1")));
}

/// Completes, loads and runs one test as the server would; says what is wrong with it.
fn check(folder: &Path, test: &Value) -> Result<(), String> {
    let name = test["name"].as_str().expect("a name");
    let in_test = |error: inference::Error| format!("{name}: {error}");
    let data = Bytes::from(fs::read(folder.join(name).join("data.bin")).expect("prepared"));
    let artifact = artifact_in(folder.join(name).join("1"), ModelSpec::new(name, "onnxruntime"));
    let spec = backend().complete(&artifact).map_err(in_test)?;
    let artifact = ModelArtifact { spec: spec.into(), ..artifact };
    let spec = &artifact.spec;

    // As a client sends them: only inputs that the model declares, in the declared shapes.
    let mut sent = request(Vec::new());
    for given in tensors(&test["inputs"], &data).into_iter().filter(|given| spec.input(&given.name).is_some()) {
        let declared = spec.input(&given.name).expect("filtered");
        let shape = given.tensor.shape();
        let shape =
            to_request_shape(spec.batches(), &declared.dims, declared.reshape.as_ref(), shape).map_err(in_test)?;
        sent.inputs.push(NamedTensor::new(given.name, given.tensor.with_shape(shape).map_err(in_test)?));
    }
    check_request(spec, &sent).map_err(in_test)?;
    for given in &mut sent.inputs {
        let declared = spec.input(&given.name).expect("checked");
        let shape = given.tensor.shape();
        let shape =
            to_model_shape(spec.batches(), &declared.dims, declared.reshape.as_ref(), shape).map_err(in_test)?;
        given.tensor = given.tensor.with_shape(shape).map_err(in_test)?;
    }

    let response = execute(&mut load(&artifact), sent).map_err(in_test)?;
    let expected = tensors(&test["outputs"], &data);
    if response.outputs.len() != expected.len() {
        return Err(format!("{name}: {} outputs instead of {}", response.outputs.len(), expected.len()));
    }
    for (got, want) in response.outputs.iter().zip(&expected) {
        compare(&got.tensor, &want.tensor).map_err(|why| format!("{name}: output '{}' {why}", want.name))?;
    }
    Ok(())
}

/// The tensors that an entry of the manifest lists.
fn tensors(list: &Value, data: &Bytes) -> Vec<NamedTensor> {
    let number = |value: &Value| usize::try_from(value.as_u64().expect("a number")).expect("small");
    let tensor = |entry: &Value| {
        let datatype = DataType::from_name(entry["datatype"].as_str().expect("a type")).expect("KServe's");
        let dims = entry["shape"].as_array().expect("a list").iter().map(|dim| dim.as_i64().expect("a number"));
        let start = number(&entry["offset"]);
        let bytes = data.slice(start..start + number(&entry["length"]));
        let tensor = Tensor::new(datatype, dims.collect::<Shape>(), bytes).expect("a valid tensor");
        NamedTensor::new(entry["name"].as_str().expect("a name"), tensor)
    };
    list.as_array().expect("a list").iter().map(tensor).collect()
}

/// Floats within the tolerance (NaN equals NaN), everything else exactly.
fn compare(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if (got.datatype(), got.shape()) != (want.datatype(), want.shape()) {
        let shapes = (got.shape(), want.shape());
        return Err(format!("is {} {} instead of {} {}", got.datatype(), shapes.0, want.datatype(), shapes.1));
    }
    let (Some(got_values), Some(want_values)) = (floats(got), floats(want)) else {
        return if got.data() == want.data() { Ok(()) } else { Err("differs".to_owned()) };
    };
    let close = |got: f64, want: f64| {
        let tolerance = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * want.abs();
        got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tolerance
    };
    let differing = got_values.iter().zip(&want_values).position(|(got, want)| !close(*got, *want));
    match differing {
        Some(at) => Err(format!("is {} instead of {} at element {at}", got_values[at], want_values[at])),
        None => Ok(()),
    }
}

/// The elements of a floating-point tensor; `None` for other types.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    Some(match tensor.datatype() {
        DataType::Fp64 => tensor.to_elements::<f64>().ok()?.into_owned(),
        DataType::Fp32 => tensor.to_elements::<f32>().ok()?.iter().map(|value| f64::from(*value)).collect(),
        DataType::Fp16 => tensor.to_elements::<f16>().ok()?.iter().map(|value| value.to_f64()).collect(),
        DataType::Bf16 => tensor.to_elements::<bf16>().ok()?.iter().map(|value| value.to_f64()).collect(),
        _ => return None,
    })
}
