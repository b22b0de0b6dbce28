//! ONNX's element types and KServe's, and how they correspond.

use inference::DataType;
use ort::sys::ONNXTensorElementDataType as Onnx;
use ort::value::TensorElementType;

/// The type of an ONNX tensor's elements; `None` for types that KServe v2 does not have (complex, 8-bit floats, 4 bits).
pub(crate) fn from_onnx(onnx: Onnx) -> Option<DataType> {
    Some(match onnx {
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL => DataType::Bool,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 => DataType::Uint8,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16 => DataType::Uint16,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32 => DataType::Uint32,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64 => DataType::Uint64,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 => DataType::Int8,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16 => DataType::Int16,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 => DataType::Int32,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 => DataType::Int64,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 => DataType::Fp16,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 => DataType::Bf16,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT => DataType::Fp32,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE => DataType::Fp64,
        Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING => DataType::Bytes,
        _ => return None,
    })
}

/// The ONNX type with the same elements.
pub(crate) fn to_onnx(datatype: DataType) -> Onnx {
    match datatype {
        DataType::Bool => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// [`from_onnx`] for the type as the `ort` crate has it.
pub(crate) fn from_element_type(element: TensorElementType) -> Option<DataType> {
    from_onnx(element.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_kserve_round_trips() {
        for datatype in DataType::ALL {
            assert_eq!(from_onnx(to_onnx(datatype)), Some(datatype));
        }
        assert_eq!(from_onnx(Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2), None);
        assert_eq!(from_element_type(TensorElementType::Complex64), None);
    }
}
