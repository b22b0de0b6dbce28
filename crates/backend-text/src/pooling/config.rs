//! What a `pooling` model's configuration asks for; pure.

use inference::{DataType, InputSpec, ModelSpec, Result, TensorName};

use super::reduce::Mode;
use crate::parameters::{Examination, backend_dims};

const PARAMETERS: [&str; 4] = ["mode", "normalize", "embeddings", "mask"];
const EMBEDDINGS: [DataType; 2] = [DataType::Fp32, DataType::Fp16];
const MASK: [DataType; 2] = [DataType::Int64, DataType::Int32];

/// A configuration without contradictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) embeddings: TensorName,
    pub(crate) mask: TensorName,
    pub(crate) output: TensorName,
    pub(crate) mode: Mode,
    pub(crate) normalize: bool,
}

impl Config {
    /// Reads a specification.
    ///
    /// # Errors
    /// InvalidArgument with everything that is wrong.
    pub(crate) fn of(spec: &ModelSpec) -> Result<Self> {
        let mut examination = Examination::new(spec, &PARAMETERS);
        let mode = examination.choice("mode", &[("mean", Mode::Mean), ("cls", Mode::Cls), ("max", Mode::Max)]);
        let normalize = examination.boolean("normalize", false);
        let embeddings = input(&mut examination, "embeddings", &EMBEDDINGS, 3);
        let mask = input(&mut examination, "mask", &MASK, 2);
        if spec.inputs.len() != 2 {
            let count = spec.inputs.len();
            examination.problem(format!("pooling has 2 inputs, the embeddings and their mask; {count} are declared"));
        }
        let output = output(&mut examination, embeddings);
        let config = match (embeddings, mask, output) {
            (Some(embeddings), Some(mask), Some(output)) => {
                let (embeddings, mask) = (embeddings.name.clone(), mask.name.clone());
                Some(Config { embeddings, mask, output, mode, normalize })
            }
            _ => None,
        };
        examination.finish(config)
    }
}

/// The input that the parameter `role` names, or else the only one of a fitting type.
fn input<'s>(examination: &mut Examination<'s>, role: &str, types: &[DataType], rank: usize) -> Option<&'s InputSpec> {
    let spec = examination.spec;
    let found = match examination.get(role) {
        Some(name) => spec.input(name),
        None => spec.inputs.iter().find(|input| types.contains(&input.datatype)),
    };
    let Some(found) = found else {
        let names: Vec<&str> = types.iter().map(|datatype| datatype.name()).collect();
        examination.problem(match examination.get(role) {
            Some(name) => format!("parameter '{role}' names an input '{name}' that is not declared"),
            None => format!("there is no input for the {role}: one of type {}", names.join(" or ")),
        });
        return None;
    };
    if !types.contains(&found.datatype) {
        examination.problem(format!("input '{}' is {}, which the {role} cannot be", found.name, found.datatype));
    }
    if found.optional {
        examination.problem(format!("input '{}' cannot be optional", found.name));
    }
    let dims = backend_dims(spec, &found.dims, found.reshape.as_ref());
    if dims.len() != rank {
        let want = if rank == 3 { "[rows,tokens,width]" } else { "[rows,tokens]" };
        let message = format!("input '{}' is {dims} with its batch dimension, expected {want}", found.name);
        examination.problem(message);
    }
    Some(found)
}

fn output(examination: &mut Examination<'_>, embeddings: Option<&InputSpec>) -> Option<TensorName> {
    let spec = examination.spec;
    let [output] = &*spec.outputs else {
        examination.problem(format!("pooling has 1 output; {} are declared", spec.outputs.len()));
        return None;
    };
    if output.datatype != DataType::Fp32 {
        examination.problem(format!("output '{}' is {}, but pooling makes FP32", output.name, output.datatype));
    }
    let dims = backend_dims(spec, &output.dims, output.reshape.as_ref());
    let width = embeddings.and_then(|input| input.reshape.as_ref().unwrap_or(&input.dims).last().copied());
    let fits = |width: i64| width == -1 || dims.last().is_none_or(|dim| *dim == -1 || *dim == width);
    if dims.len() != 2 || !width.is_none_or(fits) {
        let width = width.unwrap_or(-1);
        examination
            .problem(format!("output '{}' is {dims} with its batch dimension, expected [rows,{width}]", output.name));
    }
    Some(output.name.clone())
}
