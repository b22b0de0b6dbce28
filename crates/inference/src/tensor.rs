//! Tensors: a type, a shape, and reference-counted bytes that are not copied on their way through the server.

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::Pod;
use bytes::Bytes;

use crate::{BytesElements, DataType, Error, Result, Shape};

/// The name of a model's input or output; cheap to clone.
pub type TensorName = Arc<str>;

/// A dense tensor.
///
/// `data` holds the elements in row-major order, little-endian, without padding (KServe v2, "Raw Data"); its address may
/// have any alignment. For [`DataType::Bytes`] each element is a 4-byte little-endian length followed by that many bytes.
/// Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    datatype: DataType,
    shape: Shape,
    data: Bytes,
}

/// A tensor under the name of an input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The input's or output's name.
    pub name: TensorName,
    /// Its value.
    pub tensor: Tensor,
}

impl NamedTensor {
    /// Pairs a name with a tensor.
    pub fn new(name: impl Into<TensorName>, tensor: Tensor) -> Self {
        NamedTensor { name: name.into(), tensor }
    }
}

/// Rust types whose vectors can become a tensor's bytes without a copy.
pub trait Element: Pod + Send + Sync {
    /// The tensor type with this memory layout.
    const DATATYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $datatype:ident),* $(,)?) => {
        $(impl Element for $rust { const DATATYPE: DataType = DataType::$datatype; })*
    };
}
elements!(u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    half::f16 => Fp16, half::bf16 => Bf16, f32 => Fp32, f64 => Fp64);

/// Keeps a typed vector alive (and aligned) behind [`Bytes`].
struct OwnedElements<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for OwnedElements<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Tensor {
    /// A tensor over existing bytes.
    ///
    /// # Errors
    /// InvalidArgument when the shape has a negative dimension or overflows, or when `data` does not hold exactly the
    /// shape's elements.
    pub fn new(datatype: DataType, shape: Shape, data: Bytes) -> Result<Self> {
        let count = shape.element_count().ok_or_else(|| {
            Error::invalid_argument(format!(
                "shape {shape} is negative or causes total element count to exceed maximum size of {}",
                usize::MAX
            ))
        })?;
        match datatype.size() {
            Some(size) => {
                let want = count.checked_mul(size).ok_or_else(|| {
                    Error::invalid_argument(format!(
                        "shape {shape} causes total byte size to exceed maximum size of {}",
                        usize::MAX
                    ))
                })?;
                if data.len() != want {
                    let got = data.len();
                    return Err(Error::invalid_argument(format!(
                        "got {got} bytes of data, expected {want} bytes for datatype {datatype} and shape {shape}"
                    )));
                }
            }
            None => BytesElements::check(&data, count)?,
        }
        Ok(Tensor { datatype, shape, data })
    }

    /// A tensor that takes over a vector's memory, so that its bytes are aligned for `T`.
    ///
    /// # Errors
    /// InvalidArgument when the shape does not hold exactly `elements.len()` elements.
    pub fn from_vec<T: Element>(shape: Shape, elements: Vec<T>) -> Result<Self> {
        Self::from_vec_as(T::DATATYPE, shape, elements)
    }

    /// Like [`Tensor::from_vec`], for types that share a layout: a BOOL tensor from `Vec<u8>`, an FP16 one from `Vec<u16>`.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_vec_as<T: Element>(datatype: DataType, shape: Shape, elements: Vec<T>) -> Result<Self> {
        Self::new(datatype, shape, Bytes::from_owner(OwnedElements(elements)))
    }

    /// A BYTES tensor from its elements.
    ///
    /// # Errors
    /// InvalidArgument when the shape does not hold exactly as many elements as given.
    pub fn from_strings<S: AsRef<[u8]>>(shape: Shape, elements: &[S]) -> Result<Self> {
        let data = crate::encode_bytes_elements(elements.iter().map(AsRef::as_ref));
        Self::new(DataType::Bytes, shape, data)
    }

    /// The element type.
    pub fn datatype(&self) -> DataType {
        self.datatype
    }

    /// The shape, batch dimension included where the model batches.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements' bytes, as described on [`Tensor`].
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// How many elements there are.
    pub fn element_count(&self) -> usize {
        self.shape.element_count().expect("invariant: checked when the tensor was made")
    }

    /// The same bytes under another shape with as many elements.
    ///
    /// # Errors
    /// InvalidArgument when the element counts differ.
    pub fn with_shape(&self, shape: Shape) -> Result<Self> {
        if shape.element_count() != Some(self.element_count()) {
            return Err(Error::invalid_argument(format!("cannot view a tensor of shape {} as {shape}", self.shape)));
        }
        Ok(Tensor { datatype: self.datatype, shape, data: self.data.clone() })
    }

    /// The elements as a slice: borrowed where the bytes are aligned for `T`, copied where they are not.
    ///
    /// # Errors
    /// InvalidArgument when `T` does not have this tensor's element size.
    pub fn to_elements<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        if self.datatype.size() != Some(size_of::<T>()) {
            return Err(Error::invalid_argument(format!(
                "a {} tensor cannot be read as {}",
                self.datatype,
                T::DATATYPE
            )));
        }
        Ok(match bytemuck::try_cast_slice(&self.data) {
            Ok(elements) => Cow::Borrowed(elements),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(&self.data)),
        })
    }

    /// The elements of a BYTES tensor, in row-major order.
    ///
    /// # Errors
    /// InvalidArgument for any other type.
    pub fn strings(&self) -> Result<BytesElements<'_>> {
        if self.datatype != DataType::Bytes {
            return Err(Error::invalid_argument(format!("a {} tensor holds no byte strings", self.datatype)));
        }
        Ok(BytesElements::new(&self.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_becomes_a_tensor_without_a_copy() {
        let elements = vec![1.0f32, 2.0];
        let address = elements.as_ptr().addr();
        let tensor = Tensor::from_vec(Shape::from([2]), elements).expect("valid");
        assert_eq!(tensor.data().as_ptr().addr(), address);
        assert_eq!(tensor.to_elements::<f32>().expect("typed").as_ref(), &[1.0, 2.0]);
    }

    #[test]
    fn misaligned_bytes_are_read_right() {
        let mut raw = vec![0u8];
        raw.extend_from_slice(&7i32.to_le_bytes());
        raw.extend_from_slice(&(-1i32).to_le_bytes());
        let data = Bytes::from(raw).slice(1..);
        let tensor = Tensor::new(DataType::Int32, Shape::from([2]), data).expect("valid");
        assert_eq!(tensor.to_elements::<i32>().expect("typed").as_ref(), &[7, -1]);
    }

    #[test]
    fn a_wrong_length_says_what_was_expected() {
        let error = Tensor::new(DataType::Fp32, Shape::from([2]), Bytes::from_static(&[0; 7])).expect_err("7 bytes");
        assert_eq!(error.message(), "got 7 bytes of data, expected 8 bytes for datatype FP32 and shape [2]");
    }

    #[test]
    fn strings_round_trip() {
        let tensor = Tensor::from_strings(Shape::from([2, 1]), &["a", "bc"]).expect("valid");
        let strings: Vec<&[u8]> = tensor.strings().expect("BYTES").collect();
        assert_eq!(strings, [b"a".as_slice(), b"bc"]);
        assert!(Tensor::from_strings(Shape::from([3]), &["a"]).is_err());
    }
}
