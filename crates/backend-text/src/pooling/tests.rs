//! Pooling against a plain reference, and the configurations that it refuses.

use std::path::PathBuf;
use std::sync::Arc;

use half::f16;
use inference::{InputSpec, ModelSpec, OutputSpec};
use proptest::prelude::*;

use super::reduce::Mode;
use super::*;

fn spec(parameters: &[(&str, &str)], embeddings: DataType, mask: DataType) -> ModelSpec {
    let input = |name: &str, datatype, dims: &[i64]| InputSpec {
        name: name.into(),
        datatype,
        dims: Shape::new(dims),
        reshape: None,
        optional: false,
    };
    let dims = Shape::from([-1]);
    let output =
        OutputSpec { name: "vector".into(), datatype: DataType::Fp32, dims, reshape: None, label_filename: None };
    ModelSpec {
        max_batch_size: 8,
        inputs: vec![input("m", mask, &[-1]), input("e", embeddings, &[-1, -1])],
        outputs: vec![output],
        parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..ModelSpec::new("pool", PoolingBackend::NAME)
    }
}

fn load(spec: ModelSpec) -> Result<LoadedModel> {
    let (directory, version_directory) = (PathBuf::new(), PathBuf::new());
    let artifact = ModelArtifact { spec: Arc::new(spec), version: 1, directory, version_directory, immutable: false };
    PoolingBackend.load(&artifact, &Placement::on_host(1))
}

fn run(model: &mut LoadedModel, embeddings: Tensor, mask: Tensor) -> Result<Tensor> {
    let inputs = vec![NamedTensor::new("e", embeddings), NamedTensor::new("m", mask)];
    let requests = vec![InferRequest { inputs, ..InferRequest::default() }];
    let result = model.instances[0].execute(Batch::new(requests)).pop().expect("one result");
    result.map(|response| response.output("vector").expect("returned").clone())
}

/// The same in the obvious way, in f64.
fn reference(mode: Mode, normalized: bool, embeddings: &[f32], mask: &[i64], tokens: usize, width: usize) -> Vec<f64> {
    let mut vectors = Vec::new();
    for (text, mask) in embeddings.chunks(tokens * width).zip(mask.chunks(tokens)) {
        let kept: Vec<&[f32]> = text.chunks(width).zip(mask).filter(|(_, m)| **m != 0).map(|(t, _)| t).collect();
        let component = |index: usize| {
            let mut values = kept.iter().map(|token| f64::from(token[index]));
            match mode {
                Mode::Mean => values.sum::<f64>() / kept.len().max(1) as f64,
                Mode::Cls => values.next().unwrap_or(0.0),
                Mode::Max => values.reduce(f64::max).unwrap_or(0.0),
            }
        };
        let vector: Vec<f64> = (0..width).map(component).collect();
        let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
        let scale = if normalized { length.max(1e-12) } else { 1.0 };
        vectors.extend(vector.iter().map(|value| value / scale));
    }
    vectors
}

fn modes() -> impl Strategy<Value = (&'static str, Mode)> {
    prop_oneof![Just(("mean", Mode::Mean)), Just(("cls", Mode::Cls)), Just(("max", Mode::Max))]
}

/// Rows, tokens, width; embeddings and a mask for them.
fn texts() -> impl Strategy<Value = ([usize; 3], Vec<f32>, Vec<i64>)> {
    (1..4usize, 1..6usize, 1..20usize).prop_flat_map(|(rows, tokens, width)| {
        let embeddings = proptest::collection::vec(-4f32..4.0, rows * tokens * width);
        let mask = proptest::collection::vec(0..2i64, rows * tokens);
        (Just([rows, tokens, width]), embeddings, mask)
    })
}

proptest! {
    #[test]
    fn equals_the_reference(
        (name, mode) in modes(),
        normalized in any::<bool>(),
        half in any::<bool>(),
        ([rows, tokens, width], embeddings, mask) in texts(),
    ) {
        let normalize = if normalized { "true" } else { "false" };
        let [b, s, h] = [rows, tokens, width].map(|size| size as i64);
        let halves: Vec<f16> = embeddings.iter().map(|value| f16::from_f32(*value)).collect();
        let (datatype, expected_from, tensor) = match half {
            true => {
                let widened = halves.iter().map(|value| value.to_f32()).collect();
                (DataType::Fp16, widened, Tensor::from_vec(Shape::from([b, s, h]), halves))
            }
            false => (DataType::Fp32, embeddings.clone(), Tensor::from_vec(Shape::from([b, s, h]), embeddings)),
        };
        let expected = reference(mode, normalized, &expected_from, &mask, tokens, width);
        let small: Vec<i32> = mask.iter().map(|counts| *counts as i32).collect();
        let masks = [
            (DataType::Int64, Tensor::from_vec(Shape::from([b, s]), mask)),
            (DataType::Int32, Tensor::from_vec(Shape::from([b, s]), small)),
        ];
        for (mask_type, mask) in masks {
            let mut model = load(spec(&[("mode", name), ("normalize", normalize)], datatype, mask_type)).expect("loads");
            let got = run(&mut model, tensor.clone().expect("fits"), mask.expect("fits")).expect("pools");
            prop_assert_eq!(got.shape(), &Shape::from([b, h]));
            for (got, want) in got.to_elements::<f32>().expect("FP32").iter().zip(&expected) {
                prop_assert!((f64::from(*got) - want).abs() < 1e-5, "{} {}", got, want);
            }
        }
    }
}

#[test]
fn misaligned_bytes_are_read_right() {
    let mut raw = vec![0u8];
    [1f32, 2.0, 3.0, 6.0].iter().for_each(|value| raw.extend_from_slice(&value.to_le_bytes()));
    let data = Tensor::from_vec(Shape::from([17]), raw).expect("fits").data().slice(1..);
    let embeddings = Tensor::new(DataType::Fp32, Shape::from([1, 2, 2]), data).expect("fits");
    let mask = Tensor::from_vec(Shape::from([1, 2]), vec![1i64, 1]).expect("fits");
    let mut model = load(spec(&[], DataType::Fp32, DataType::Int64)).expect("loads");
    let got = run(&mut model, embeddings, mask).expect("pools");
    assert_eq!(got.to_elements::<f32>().expect("FP32").as_ref(), [2.0, 4.0]);
}

#[test]
fn shapes_that_do_not_fit_each_other_are_refused() {
    let mut model = load(spec(&[], DataType::Fp32, DataType::Int64)).expect("loads");
    let embeddings = |dims: [i64; 3]| {
        let shape = Shape::from(dims);
        let count = shape.element_count().expect("small");
        Tensor::from_vec(shape, vec![0f32; count]).expect("fits")
    };
    let mask = |rows: i64, tokens: i64| {
        Tensor::from_vec(Shape::from([rows, tokens]), vec![1i64; (rows * tokens) as usize]).expect("fits")
    };
    let error = run(&mut model, embeddings([1, 2, 3]), mask(1, 3)).expect_err("refused");
    assert!(error.message().contains("shape [1,2,3] and a mask of shape [1,3] do not fit"), "{error}");
    let error = run(&mut model, embeddings([1 << 40, 0, 1 << 20]), mask(1 << 40, 0)).expect_err("refused");
    assert!(error.message().contains("no tokens"), "{error}");
}

#[test]
fn all_problems_of_a_configuration_come_at_once() {
    let mut bad = spec(&[("mode", "median"), ("normalize", "l2"), ("mask", "q")], DataType::Fp32, DataType::Int64);
    bad.inputs[1].dims = Shape::from([384]);
    bad.outputs[0].datatype = DataType::Fp16;
    bad.outputs[0].dims = Shape::from([383]);
    let error = load(bad).err().expect("refused");
    let parts = [
        "model 'pool'",
        "'mode' is 'median', expected one of [\"mean\", \"cls\", \"max\"]",
        "'normalize' is 'l2'",
        "parameter 'mask' names an input 'q' that is not declared",
        "input 'e' is [-1,384] with its batch dimension, expected [rows,tokens,width]",
        "output 'vector' is FP16, but pooling makes FP32",
        "output 'vector' is [-1,383] with its batch dimension, expected [rows,384]",
    ];
    for part in parts {
        assert!(error.message().contains(part), "{error}\nshould contain\n{part}");
    }
    let mut named = spec(&[("embeddings", "e"), ("mask", "m")], DataType::Fp32, DataType::Int64);
    assert!(load(named.clone()).is_ok());
    named.inputs.truncate(1);
    assert!(load(named).is_err());
}
