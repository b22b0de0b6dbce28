//! Reads one element of `inputs` (KServe v2 "Request Input"), whose data stands in the JSON or behind it.

use std::collections::HashSet;

use bytes::Bytes;
use inference::{DataType, Error, NamedTensor, Result, Shape, Tensor, TensorName};

use super::cursor::{Cursor, Mark};
use super::data;
use super::request::{check_count, count, placed};
use crate::shared_memory::{Place, PlaceParts, SharedInput};

/// The most dimensions of a shape: as many as NumPy's arrays may have, and more than models take.
pub(super) const MAX_DIMENSIONS: usize = 64;

/// An input whose data may still have to be taken from behind the JSON.
pub(super) struct Pending {
    name: TensorName,
    datatype: DataType,
    shape: Shape,
    data: Data,
}

enum Data {
    InJson(Tensor),
    Binary(u64),
    Shared(Place),
}

/// What has been read of an input so far.
#[derive(Default)]
struct Parts {
    name: Option<TensorName>,
    datatype: Option<DataType>,
    shape: Option<Shape>,
    tensor: Option<Tensor>,
    /// Where data stands that came before its type or shape.
    later: Option<Mark>,
    binary_size: Option<u64>,
    place: PlaceParts,
}

impl Parts {
    fn label(&self, position: usize) -> String {
        self.name.as_ref().map_or_else(|| format!("inputs[{position}]"), |name| format!("input '{name}'"))
    }
}

/// Reads `inputs`.
pub(super) fn read_all(cursor: &mut Cursor<'_>) -> Result<Vec<Pending>> {
    let mut inputs: Vec<Pending> = Vec::new();
    let mut seen = HashSet::new();
    cursor.array("'inputs' as an array", |cursor, position| {
        check_count(cursor, "inputs", position)?;
        let mut parts = Parts::default();
        let input = read(cursor, &mut parts).map_err(|error| error.context(parts.label(position)))?;
        if !seen.insert(input.name.clone()) {
            return Err(cursor.fault(&format!("input '{}' is given twice", input.name)));
        }
        inputs.push(input);
        Ok(())
    })?;
    Ok(inputs)
}

fn read(cursor: &mut Cursor<'_>, parts: &mut Parts) -> Result<Pending> {
    cursor.object("an input as an object", |cursor, key| member(cursor, key, parts))?;
    let missing = |what: &str| cursor.fault(&format!("unable to parse the input: it has no member '{what}'"));
    let name = parts.name.clone().ok_or_else(|| missing("name"))?;
    let shape = parts.shape.take().ok_or_else(|| missing("shape"))?;
    let datatype = parts.datatype.ok_or_else(|| missing("datatype"))?;
    if let Some(mark) = parts.later {
        parts.tensor = Some(data::read(&mut cursor.back_at(mark), datatype, &shape)?);
    }
    let place = std::mem::take(&mut parts.place).place(&name)?;
    let data = match (parts.tensor.take(), parts.binary_size, place) {
        (Some(tensor), None, None) => Data::InJson(tensor),
        (None, Some(size), None) => Data::Binary(size),
        (None, None, Some(place)) => Data::Shared(place),
        (None, None, None) => {
            return Err(cursor.fault(
                "the input has neither 'data' nor the parameter 'binary_data_size' or 'shared_memory_region'; expected one \
                 of them",
            ));
        }
        (Some(_), Some(_), None) => {
            return Err(
                cursor.fault("the input has both 'data' and the parameter 'binary_data_size'; expected one of them")
            );
        }
        (_, _, Some(_)) => {
            return Err(cursor.fault("the input has data of its own and the parameter 'shared_memory_region'"));
        }
    };
    Ok(Pending { name, datatype, shape, data })
}

fn member(cursor: &mut Cursor<'_>, key: &str, parts: &mut Parts) -> Result<()> {
    match key {
        "name" => parts.name = Some(TensorName::from(&*cursor.string("'name' as a string")?)),
        "shape" => parts.shape = Some(shape(cursor)?),
        "datatype" => parts.datatype = Some(datatype(cursor)?),
        "data" => match (parts.datatype, &parts.shape) {
            (Some(datatype), Some(shape)) => {
                parts.later = None;
                parts.tensor = Some(data::read(cursor, datatype, shape)?);
            }
            // Read in a second pass, once the type and the shape are known.
            _ => {
                parts.later = Some(cursor.mark());
                cursor.skip()?;
            }
        },
        "parameters" => cursor.object("'parameters' as an object", |cursor, key| {
            match key {
                "binary_data_size" => parts.binary_size = Some(count(cursor, key)?),
                _ => placed(cursor, key, &mut parts.place)?,
            }
            Ok(())
        })?,
        _ => cursor.skip()?,
    }
    Ok(())
}

fn shape(cursor: &mut Cursor<'_>) -> Result<Shape> {
    let mut dims = Vec::new();
    cursor.array("'shape' as an array of integers", |cursor, position| {
        if position == MAX_DIMENSIONS {
            return Err(
                cursor.fault(&format!("'shape' has more than the {MAX_DIMENSIONS} dimensions that one may have"))
            );
        }
        let dim = cursor.integer().map_err(|error| error.context("'shape'"))?;
        if dim < 0 {
            return Err(cursor.fault(&format!("'shape' holds {dim}; expected sizes of 0 or more")));
        }
        dims.push(dim);
        Ok(())
    })?;
    Ok(Shape::from(dims))
}

fn datatype(cursor: &mut Cursor<'_>) -> Result<DataType> {
    let name = cursor.string("'datatype' as a string")?;
    DataType::from_name(&name).ok_or_else(|| {
        let known: Vec<&str> = DataType::ALL.iter().map(|datatype| datatype.name()).collect();
        cursor.fault(&format!("'datatype' is '{name}'; expected one of {}", known.join(", ")))
    })
}

/// Hands the bytes behind the JSON to the inputs that asked for some, in order; each gets a slice, nothing is copied. Inputs
/// in shared memory come second.
pub(super) fn attach(pending: Vec<Pending>, mut rest: Bytes) -> Result<(Vec<NamedTensor>, Vec<SharedInput>)> {
    let (mut inputs, mut shared) = (Vec::with_capacity(pending.len()), Vec::new());
    for input in pending {
        let tensor = match input.data {
            Data::InJson(tensor) => tensor,
            Data::Shared(place) => {
                let Pending { name, datatype, shape, .. } = input;
                shared.push(SharedInput { name, datatype, shape, place });
                continue;
            }
            Data::Binary(size) => {
                let size = usize::try_from(size).ok().filter(|size| *size <= rest.len()).ok_or_else(|| {
                    Error::invalid_argument(format!(
                        "input '{}' has binary_data_size {size}, but only {} bytes are left in the body",
                        input.name,
                        rest.len()
                    ))
                })?;
                let data = rest.split_to(size);
                Tensor::new(input.datatype, input.shape, data)
                    .map_err(|error| error.context(format!("input '{}'", input.name)))?
            }
        };
        inputs.push(NamedTensor::new(input.name, tensor));
    }
    if !rest.is_empty() {
        return Err(Error::invalid_argument(format!(
            "unexpected additional input data: {} bytes of the body belong to no input; check binary_data_size and the \
             length of the JSON",
            rest.len()
        )));
    }
    Ok((inputs, shared))
}
