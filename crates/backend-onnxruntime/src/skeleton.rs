//! An ONNX model without its weights: where they are in its files, and a model that refers to them there. Pure.

use std::collections::HashMap;

use inference::DataType;
use ort::sys::ONNXTensorElementDataType as Onnx;

use crate::datatype;
use crate::wire::{Fields, Malformed, Value, put_bytes, put_number, varint};

/// Tensors of fewer bytes stay in the model: they are mostly shapes and scales, which optimisation folds into the graph.
const SMALLEST: u64 = 1024;

/// The numbers of the fields that matter, by message.
mod model {
    pub(super) const GRAPH: u64 = 7;
}
mod graph {
    pub(super) const NODE: u64 = 1;
    pub(super) const INITIALIZER: u64 = 5;
}
mod node {
    pub(super) const INPUT: u64 = 1;
    pub(super) const OUTPUT: u64 = 2;
}
mod tensor {
    pub(super) const DIMS: u64 = 1;
    pub(super) const DATA_TYPE: u64 = 2;
    pub(super) const NAME: u64 = 8;
    pub(super) const RAW_DATA: u64 = 9;
    pub(super) const DOC_STRING: u64 = 12;
    pub(super) const EXTERNAL_DATA: u64 = 13;
    pub(super) const DATA_LOCATION: u64 = 14;
    pub(super) const EXTERNAL: u64 = 1;
}

/// A model whose large initializers are references.
pub(crate) struct Skeleton {
    /// The model, in which every tensor of `weights` is external data.
    pub(crate) model: Vec<u8>,
    /// Those tensors.
    pub(crate) weights: Vec<Weight>,
    /// Bytes of tensors that optimisation is expected to compute from constants alone, as 32-bit numbers: quantised weights
    /// that are dequantised first, say. They are no longer in any file.
    pub(crate) folded_bytes: u64,
}

/// A tensor that can be used where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) name: String,
    pub(crate) datatype: DataType,
    pub(crate) dims: Vec<i64>,
    /// The file beside the model; `None` for the model's own.
    pub(crate) file: Option<String>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Skeleton {
    /// Reads a model file of this name. Tensors that cannot be used in place stay in the model as they are.
    ///
    /// # Errors
    /// Malformed for what is no ONNX model.
    pub(crate) fn of(file: &[u8], file_name: &str) -> Result<Skeleton, Malformed> {
        let mut skeleton = Skeleton { model: Vec::new(), weights: Vec::new(), folded_bytes: 0 };
        let mut graphs = 0;
        for field in Fields::of(file) {
            let field = field?;
            match field.value {
                Value::Bytes(graph) if field.number == model::GRAPH => {
                    graphs += 1;
                    let graph = skeleton.graph(file, graph, file_name)?;
                    put_bytes(&mut skeleton.model, model::GRAPH, &graph);
                }
                _ => skeleton.model.extend_from_slice(field.whole),
            }
        }
        // A message may come in parts, which no exporter makes use of.
        if graphs == 1 { Ok(skeleton) } else { Err(Malformed) }
    }

    /// Bytes of weights that stay in files.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.weights.iter().map(|weight| weight.length).sum()
    }

    fn graph(&mut self, file: &[u8], graph: &[u8], file_name: &str) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        for field in Fields::of(graph) {
            let field = field?;
            let found = match field.value {
                Value::Bytes(tensor) if field.number == graph::INITIALIZER => Tensor::read(tensor)?.weight(file),
                _ => None,
            };
            match &found {
                Some(weight) if weight.file.is_none() => {
                    put_bytes(&mut out, graph::INITIALIZER, &reference(weight, file_name));
                }
                _ => out.extend_from_slice(field.whole),
            }
            self.weights.extend(found);
        }
        self.folded_bytes = self.folded(graph)?;
        Ok(out)
    }

    /// Walks the nodes in their order, which ONNX wants topological. Small constants are folded too, and do not matter.
    fn folded(&self, graph: &[u8]) -> Result<u64, Malformed> {
        let weights = self.weights.iter().filter_map(|weight| {
            let elements = weight.length / weight.datatype.size()? as u64;
            Some((weight.name.as_bytes(), elements))
        });
        let mut constants: HashMap<&[u8], u64> = weights.collect();
        for field in Fields::of(graph) {
            let field = field?;
            match field.value {
                Value::Bytes(initializer) if field.number == graph::INITIALIZER => {
                    let name = strings(initializer, tensor::NAME).next().unwrap_or_default();
                    constants.entry(name).or_default();
                }
                _ => {}
            }
        }
        let mut bytes = 0u64;
        for field in Fields::of(graph).flatten() {
            let Value::Bytes(node) = field.value else { continue };
            if field.number != graph::NODE {
                continue;
            }
            let inputs = strings(node, node::INPUT).filter(|name| !name.is_empty());
            let inputs: Option<Vec<u64>> = inputs.map(|name| constants.get(name).copied()).collect();
            // An input that is no constant makes it none.
            let Some(inputs) = inputs else { continue };
            let elements = inputs.into_iter().max().unwrap_or(0);
            bytes = bytes.saturating_add(elements.saturating_mul(4));
            constants.extend(strings(node, node::OUTPUT).map(|name| (name, elements)));
        }
        Ok(bytes)
    }
}

/// The tensor as external data of the model's own file.
fn reference(weight: &Weight, file_name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    weight.dims.iter().for_each(|dim| put_number(&mut out, tensor::DIMS, dim.cast_unsigned()));
    put_number(&mut out, tensor::DATA_TYPE, number(datatype::to_onnx(weight.datatype)));
    put_bytes(&mut out, tensor::NAME, weight.name.as_bytes());
    let (offset, length) = (weight.offset.to_string(), weight.length.to_string());
    for (key, value) in [("location", file_name), ("offset", &offset), ("length", &length)] {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(&mut out, tensor::EXTERNAL_DATA, &entry);
    }
    put_number(&mut out, tensor::DATA_LOCATION, tensor::EXTERNAL);
    out
}

/// The strings that a message has in a field.
fn strings(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    Fields::of(message).flatten().filter(move |field| field.number == number).filter_map(|field| match field.value {
        Value::Bytes(text) => Some(text),
        _ => None,
    })
}

/// What a TensorProto says.
#[derive(Default)]
struct Tensor<'a> {
    name: Option<&'a str>,
    data_type: u64,
    dims: Vec<i64>,
    raw: Option<&'a [u8]>,
    external: bool,
    location: Option<&'a str>,
    offset: Option<u64>,
    length: Option<u64>,
    /// Something that is not understood here.
    odd: bool,
}

impl<'a> Tensor<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut this = Tensor::default();
        for field in Fields::of(message) {
            let field = field?;
            match (field.number, field.value) {
                (tensor::DIMS, Value::Varint(dim)) => this.dims.push(dim.cast_signed()),
                (tensor::DIMS, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        this.dims.push(varint(&mut packed)?.cast_signed());
                    }
                }
                (tensor::DATA_TYPE, Value::Varint(number)) => this.data_type = number,
                (tensor::NAME, Value::Bytes(name)) => this.name = str::from_utf8(name).ok(),
                (tensor::RAW_DATA, Value::Bytes(raw)) => this.odd |= this.raw.replace(raw).is_some(),
                (tensor::DOC_STRING, _) => {}
                (tensor::EXTERNAL_DATA, Value::Bytes(entry)) => this.external_entry(entry)?,
                (tensor::DATA_LOCATION, Value::Varint(place)) => this.external = place == tensor::EXTERNAL,
                _ => this.odd = true,
            }
        }
        Ok(this)
    }

    fn external_entry(&mut self, entry: &'a [u8]) -> Result<(), Malformed> {
        let (mut key, mut value) = ("", "");
        for field in Fields::of(entry) {
            match field? {
                field @ crate::wire::Field { value: Value::Bytes(text), .. } if matches!(field.number, 1 | 2) => {
                    let text = str::from_utf8(text).map_err(|_| Malformed)?;
                    *(if field.number == 1 { &mut key } else { &mut value }) = text;
                }
                _ => self.odd = true,
            }
        }
        match key {
            "location" => self.location = Some(value),
            "offset" => self.offset = Some(value.parse().map_err(|_| Malformed)?),
            "length" => self.length = Some(value.parse().map_err(|_| Malformed)?),
            // Not needed to find the bytes.
            "checksum" | "basepath" => {}
            _ => self.odd = true,
        }
        Ok(())
    }

    /// The tensor as it lies in a file, if it can be used there.
    fn weight(self, file: &[u8]) -> Option<Weight> {
        if self.odd || self.external != self.location.is_some() || self.external == self.raw.is_some() {
            return None;
        }
        let (datatype, length) = (element(self.data_type)?, byte_length(self.data_type, &self.dims)?);
        let offset = match self.raw {
            Some(raw) => (raw.as_ptr().addr() - file.as_ptr().addr()) as u64,
            None => self.offset.unwrap_or(0),
        };
        let stated = self.raw.map(|raw| raw.len() as u64).or(self.length).unwrap_or(length);
        let usable = stated == length && length >= SMALLEST;
        let file = self.location.map(str::to_owned);
        usable.then_some(Weight { name: self.name?.to_owned(), datatype, dims: self.dims, file, offset, length })
    }
}

/// The type of a TensorProto's elements, where they have whole bytes of a fixed number. ONNX Runtime numbers them alike.
fn element(data_type: u64) -> Option<DataType> {
    let known = [DataType::Fp32, DataType::Uint8, DataType::Int8, DataType::Uint16, DataType::Int16, DataType::Int32];
    let more = [DataType::Int64, DataType::Bool, DataType::Fp16, DataType::Fp64, DataType::Uint32, DataType::Uint64];
    let all = known.into_iter().chain(more).chain([DataType::Bf16]);
    all.into_iter().find(|datatype| number(datatype::to_onnx(*datatype)) == data_type)
}

fn number(onnx: Onnx) -> u64 {
    onnx as u64
}

fn byte_length(data_type: u64, dims: &[i64]) -> Option<u64> {
    let size = element(data_type)?.size()? as u64;
    dims.iter().try_fold(size, |length, dim| length.checked_mul(u64::try_from(*dim).ok()?))
}

#[cfg(test)]
#[path = "skeleton_tests.rs"]
mod tests;
