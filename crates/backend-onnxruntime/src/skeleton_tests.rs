//! What is read of models, sound and not.

use proptest::prelude::*;

use super::*;
use crate::wire::put_varint;

const WEIGHTS: [u8; 2048] = [7; 2048];

fn message(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// An initializer of FP32 with these dimensions, and more.
fn initializer(name: &str, dims: &[u64], more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(|out| {
        dims.iter().for_each(|dim| put_number(out, tensor::DIMS, *dim));
        put_number(out, tensor::DATA_TYPE, 1);
        put_bytes(out, tensor::NAME, name.as_bytes());
        more(out);
    })
}

fn entry(key: &str, value: &str) -> Vec<u8> {
    message(|out| {
        put_bytes(out, 1, key.as_bytes());
        put_bytes(out, 2, value.as_bytes());
    })
}

fn external(name: &str, entries: &[(&str, &str)]) -> Vec<u8> {
    initializer(name, &[512], |out| {
        entries.iter().for_each(|(key, value)| put_bytes(out, tensor::EXTERNAL_DATA, &entry(key, value)));
        put_number(out, tensor::DATA_LOCATION, tensor::EXTERNAL);
    })
}

fn model_of(initializers: &[Vec<u8>]) -> Vec<u8> {
    let graph = message(|out| {
        put_bytes(out, 2, b"graph");
        initializers.iter().for_each(|tensor| put_bytes(out, graph::INITIALIZER, tensor));
    });
    message(|out| {
        put_number(out, 1, 10);
        put_bytes(out, model::GRAPH, &graph);
        put_bytes(out, 2, b"producer");
    })
}

fn raw(name: &str, dims: &[u64]) -> Vec<u8> {
    initializer(name, dims, |out| put_bytes(out, tensor::RAW_DATA, &WEIGHTS))
}

fn found(file: &[u8]) -> Vec<Weight> {
    Skeleton::of(file, "m.onnx").expect("a model").weights
}

#[test]
fn weights_are_found_where_they_are_and_left_out() {
    let file = model_of(&[raw("w", &[16, 32]), raw("b", &[512])]);
    let skeleton = Skeleton::of(&file, "m.onnx").expect("a model");
    let names: Vec<_> = skeleton.weights.iter().map(|weight| (&*weight.name, &*weight.dims)).collect();
    assert_eq!(names, [("w", &[16, 32][..]), ("b", &[512])]);
    for weight in &skeleton.weights {
        let range = weight.offset as usize..(weight.offset + weight.length) as usize;
        assert_eq!((&file[range], weight.datatype, &weight.file), (&WEIGHTS[..], DataType::Fp32, &None));
    }
    assert_eq!(skeleton.mapped_bytes(), 4096);
    assert!(skeleton.model.len() < 300, "{} bytes", skeleton.model.len());
    // Read as a model of its own, it has the same weights, in the file that it names.
    let again = found(&skeleton.model);
    let expected = skeleton.weights.into_iter().map(|weight| Weight { file: Some("m.onnx".to_owned()), ..weight });
    assert_eq!(again, expected.collect::<Vec<_>>());
}

#[test]
fn external_data_is_left_as_it_is() {
    let file = model_of(&[external("w", &[("location", "w.bin"), ("offset", "64"), ("length", "2048")])]);
    let skeleton = Skeleton::of(&file, "m.onnx").expect("a model");
    assert_eq!(skeleton.model, file);
    let weight = &skeleton.weights[0];
    assert_eq!((weight.file.as_deref(), weight.offset, weight.length), (Some("w.bin"), 64, 2048));
    let whole = found(&model_of(&[external("w", &[("location", "w.bin")])]));
    assert_eq!((whole[0].offset, whole[0].length), (0, 2048));
}

#[test]
fn what_cannot_be_used_in_place_stays_in_the_model() {
    let odd = [
        raw("small", &[8]),
        raw("of another length", &[511]),
        initializer("segment", &[512], |out| {
            put_bytes(out, tensor::RAW_DATA, &WEIGHTS);
            put_bytes(out, 3, &[]);
        }),
        initializer("twice", &[512], |out| {
            put_bytes(out, tensor::RAW_DATA, &WEIGHTS);
            put_bytes(out, tensor::RAW_DATA, &WEIGHTS);
        }),
        message(|out| put_bytes(out, tensor::RAW_DATA, &WEIGHTS)),
        external("too long", &[("location", "w.bin"), ("length", "2049")]),
        external("unknown", &[("location", "w.bin"), ("compression", "zip")]),
        external("nowhere", &[]),
        raw("overflow", &[u64::MAX, 2]),
    ];
    for tensor in odd {
        let file = model_of(&[tensor]);
        let skeleton = Skeleton::of(&file, "m.onnx").expect("a model");
        assert_eq!((skeleton.weights, skeleton.model), (vec![], file));
    }
}

#[test]
fn what_constants_make_of_constants_counts_as_folded() {
    let node = |inputs: &[&str], output: &str| {
        message(|out| {
            inputs.iter().for_each(|name| put_bytes(out, node::INPUT, name.as_bytes()));
            put_bytes(out, node::OUTPUT, output.as_bytes());
        })
    };
    let graph = message(|out| {
        put_bytes(out, graph::NODE, &node(&["w", "scale"], "dequantised"));
        put_bytes(out, graph::NODE, &node(&["dequantised", ""], "turned"));
        put_bytes(out, graph::NODE, &node(&["x", "turned"], "y"));
        put_bytes(out, graph::NODE, &node(&["y", "w"], "z"));
        put_bytes(out, graph::INITIALIZER, &raw("w", &[512]));
        put_bytes(out, graph::INITIALIZER, &raw("scale", &[8]));
    });
    let file = message(|out| put_bytes(out, model::GRAPH, &graph));
    assert_eq!(Skeleton::of(&file, "m.onnx").expect("a model").folded_bytes, 2 * 512 * 4);
}

#[test]
fn what_is_no_model_is_refused() {
    let graph = model_of(&[]);
    let two = [graph.clone(), graph].concat();
    for file in [&b""[..], b"\x08\x0a", b"not a model at all", &two] {
        assert!(Skeleton::of(file, "m.onnx").is_err(), "{file:?}");
    }
}

proptest! {
    #[test]
    fn weights_lie_within_the_file_whatever_it_holds(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut file = model_of(&[raw("w", &[512]), external("e", &[("location", "e"), ("offset", "1")])]);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        for file in [&file[..], &file[..cut.index(file.len())]] {
            let Ok(skeleton) = Skeleton::of(file, "m.onnx") else { continue };
            for weight in skeleton.weights.iter().filter(|weight| weight.file.is_none()) {
                prop_assert!(weight.offset + weight.length <= file.len() as u64);
            }
        }
    }

    #[test]
    fn numbers_of_any_size_are_read_as_written(number in any::<u64>()) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, number);
        prop_assert_eq!(varint(&mut &*bytes), Ok(number));
    }
}
