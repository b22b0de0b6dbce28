//! Tensors whose elements travel as lists of numbers (`InferTensorContents`) rather than as raw bytes.

use bytes::Bytes;
use inference::{DataType, Element, Error, Result, Shape, Tensor};
use protocol::grpc_service::InferTensorContents;

/// Reads the list that goes with `datatype`; the others must be empty.
///
/// # Errors
/// InvalidArgument, in Triton's words, when the data is in another list, in several, or is not as long as the shape says;
/// and when a number does not fit into the type.
pub(super) fn tensor(
    input: &str,
    model: &str,
    datatype: DataType,
    shape: Shape,
    contents: InferTensorContents,
) -> Result<Tensor> {
    let given = given(&contents, datatype);
    let what = || format!("unexpected explicit tensor data for input tensor '{input}' for model '{model}'");
    match given.as_slice() {
        [] => return Tensor::new(datatype, shape, Bytes::new()).map_err(|error| named(input, error)),
        [given] if *given == datatype => {}
        [given] => {
            let message = format!("{} of type '{given}', expected datatype '{datatype}'", what());
            return Err(Error::invalid_argument(message));
        }
        _ => return Err(Error::invalid_argument(format!("{}, binary data was already supplied.", what()))),
    }
    let tensor = match datatype {
        DataType::Bool => {
            let bools: Vec<u8> = contents.bool_contents.into_iter().map(u8::from).collect();
            Tensor::from_vec_as(DataType::Bool, shape, bools)
        }
        DataType::Int8 => narrow::<i32, i8>(shape, contents.int_contents),
        DataType::Int16 => narrow::<i32, i16>(shape, contents.int_contents),
        DataType::Int32 => Tensor::from_vec(shape, contents.int_contents),
        DataType::Int64 => Tensor::from_vec(shape, contents.int64_contents),
        DataType::Uint8 => narrow::<u32, u8>(shape, contents.uint_contents),
        DataType::Uint16 => narrow::<u32, u16>(shape, contents.uint_contents),
        DataType::Uint32 => Tensor::from_vec(shape, contents.uint_contents),
        DataType::Uint64 => Tensor::from_vec(shape, contents.uint64_contents),
        DataType::Fp32 => Tensor::from_vec(shape, contents.fp32_contents),
        DataType::Fp64 => Tensor::from_vec(shape, contents.fp64_contents),
        DataType::Bytes => Tensor::from_strings(shape, &contents.bytes_contents),
        DataType::Fp16 | DataType::Bf16 => {
            Err(Error::internal("invariant: no list goes with this type, so that it cannot be the one that was given"))
        }
    };
    tensor.map_err(|error| named(input, error))
}

fn named(input: &str, error: Error) -> Error {
    error.context(format!("input '{input}'"))
}

/// The types of the lists that are not empty; one that serves several types counts as `datatype` where that is one of them.
fn given(contents: &InferTensorContents, datatype: DataType) -> Vec<DataType> {
    let one_of = |types: &[DataType], widest| if types.contains(&datatype) { datatype } else { widest };
    let lists = [
        (contents.bool_contents.is_empty(), DataType::Bool),
        (contents.int_contents.is_empty(), one_of(&[DataType::Int8, DataType::Int16], DataType::Int32)),
        (contents.int64_contents.is_empty(), DataType::Int64),
        (contents.uint_contents.is_empty(), one_of(&[DataType::Uint8, DataType::Uint16], DataType::Uint32)),
        (contents.uint64_contents.is_empty(), DataType::Uint64),
        (contents.fp32_contents.is_empty(), DataType::Fp32),
        (contents.fp64_contents.is_empty(), DataType::Fp64),
        (contents.bytes_contents.is_empty(), DataType::Bytes),
    ];
    lists.into_iter().filter(|(is_empty, _)| !is_empty).map(|(_, datatype)| datatype).collect()
}

fn narrow<Wide, Narrow>(shape: Shape, elements: Vec<Wide>) -> Result<Tensor>
where
    Wide: Copy + std::fmt::Display,
    Narrow: Element + TryFrom<Wide>,
{
    let narrow = |(position, value): (usize, Wide)| {
        Narrow::try_from(value).map_err(|_| {
            Error::invalid_argument(format!("element {position} is {value}, which {} cannot hold", Narrow::DATATYPE))
        })
    };
    let elements: Vec<Narrow> = elements.into_iter().enumerate().map(narrow).collect::<Result<_>>()?;
    Tensor::from_vec(shape, elements)
}
