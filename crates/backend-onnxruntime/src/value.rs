//! Tensors going into and coming out of ONNX Runtime, without copies where memory allows.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use inference::{DataType, Shape, Tensor, encode_bytes_elements};
use ort::memory::{Allocator, MemoryInfo};
use ort::{AsPointer, sys};

use crate::datatype;
use crate::metrics::{CopyCounter, CopyCounters};
use crate::session::LoadedSession;

/// An `OrtValue` that is released when dropped.
pub(crate) struct OwnedValue(NonNull<sys::OrtValue>);

// SAFETY: an OrtValue is a reference-counted handle without thread affinity, and nothing here changes one after it has
// been filled: it is only read, and released once, by its owner.
unsafe impl Send for OwnedValue {}
// SAFETY: as above; reading a value's data from several threads at once is allowed.
unsafe impl Sync for OwnedValue {}

impl Drop for OwnedValue {
    fn drop(&mut self) {
        // SAFETY: this is the only owner, so the value is released exactly once.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

impl OwnedValue {
    /// Takes over a value that ONNX Runtime made.
    ///
    /// # Safety
    /// `value` must be null or a live value that nobody else releases.
    pub(crate) unsafe fn from_raw(value: *mut sys::OrtValue) -> ort::Result<Self> {
        NonNull::new(value).map(OwnedValue).ok_or_else(|| ort::Error::new("ONNX Runtime returned no value"))
    }

    pub(crate) fn as_ptr(&self) -> *const sys::OrtValue {
        self.0.as_ptr()
    }
}

/// An input for one run. The value may point into `bytes`, so it comes first and is dropped first.
pub(crate) struct InputValue {
    pub(crate) value: OwnedValue,
    bytes: Bytes,
}

impl InputValue {
    /// Lends a tensor to ONNX Runtime: its own bytes where they are aligned, a copy of them where they are not. Byte
    /// strings are always copied, because ONNX Runtime keeps them as C++ strings.
    pub(crate) fn new(tensor: &Tensor, memory: &MemoryInfo<'_>, copies: &CopyCounters) -> ort::Result<Self> {
        let Some(size) = tensor.datatype().size() else {
            let value = string_input(tensor)?;
            copies.strings.count(tensor.data().len());
            return Ok(InputValue { value, bytes: Bytes::new() });
        };
        let bytes = align(tensor.data(), size, &copies.alignment);
        let shape = tensor.shape();
        let mut value = ptr::null_mut();
        // SAFETY: `bytes` holds exactly the elements of `shape` (an invariant of Tensor), is aligned for them, and is kept
        // alive beside the value. ONNX Runtime takes a mutable pointer but does not write to a run's inputs.
        unsafe {
            ort::Error::result_from_status((ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                bytes.as_ptr().cast_mut().cast::<c_void>(),
                bytes.len(),
                shape.as_ptr(),
                shape.len(),
                datatype::to_onnx(tensor.datatype()),
                &mut value,
            ))?;
            Ok(InputValue { value: OwnedValue::from_raw(value)?, bytes })
        }
    }

    /// Whether memory at `address` belongs to this input.
    fn holds(&self, address: *const u8) -> bool {
        self.bytes.as_ptr_range().contains(&address)
    }
}

/// The same bytes at an address that is a multiple of the element's size.
fn align(data: &Bytes, element_size: usize, copies: &CopyCounter) -> Bytes {
    if data.as_ptr().addr().is_multiple_of(element_size) {
        return data.clone();
    }
    copies.count(data.len());
    let mut words = vec![0u64; data.len().div_ceil(size_of::<u64>())];
    bytemuck::cast_slice_mut(&mut words)[..data.len()].copy_from_slice(data);
    Bytes::from_owner(Words(words)).slice(..data.len())
}

/// Memory aligned for every element type.
struct Words(Vec<u64>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A string tensor. Lengths are passed along, so elements may hold NUL and need not be UTF-8.
fn string_input(tensor: &Tensor) -> ort::Result<OwnedValue> {
    let api = ort::api();
    let shape = tensor.shape();
    let mut value = ptr::null_mut();
    // SAFETY: the allocator is ONNX Runtime's default one, which is never released; shape pointer and length match.
    let value = unsafe {
        ort::Error::result_from_status((api.CreateTensorAsOrtValue)(
            Allocator::default().ptr().cast_mut(),
            shape.as_ptr(),
            shape.len(),
            datatype::to_onnx(DataType::Bytes),
            &mut value,
        ))?;
        OwnedValue::from_raw(value)?
    };
    let elements = tensor.strings().map_err(|error| ort::Error::new(error.message()))?;
    for (index, element) in elements.enumerate() {
        let mut buffer = ptr::null_mut();
        // SAFETY: the value is a live string tensor with as many elements as the tensor; the buffer that comes back has
        // room for exactly `element.len()` bytes and belongs to the value, which nobody else uses yet.
        unsafe {
            ort::Error::result_from_status((api.GetResizedStringTensorElementBuffer)(
                value.0.as_ptr(),
                index,
                element.len(),
                &mut buffer,
            ))?;
            ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast::<u8>(), element.len());
        }
    }
    Ok(value)
}

/// An output's memory, lent to a [`Tensor`]. Dropped in this order: the value, then what its memory may belong to.
struct OutputMemory {
    _value: OwnedValue,
    data: NonNull<u8>,
    length: usize,
    /// The input whose memory this is, when the model passes an input straight through.
    _input: Option<Bytes>,
    /// The output may come from the session's arena, or be one of its weights.
    _session: Arc<LoadedSession>,
}

// SAFETY: `data` is memory that the value, the input or the session owns; all three are kept here, may be sent and shared,
// and nothing writes to that memory once the run is over.
unsafe impl Send for OutputMemory {}
// SAFETY: as above.
unsafe impl Sync for OutputMemory {}

impl AsRef<[u8]> for OutputMemory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `data` points to `length` initialised bytes that live and stay unchanged as long as `self` does.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.length) }
    }
}

/// The tensor that a run returned: ONNX Runtime's own memory, except for byte strings, which are copied. The memory is the
/// host's: a run without bindings copies what a GPU has computed back.
pub(crate) fn output_tensor(
    value: OwnedValue,
    inputs: &[InputValue],
    session: &Arc<LoadedSession>,
) -> ort::Result<Tensor> {
    let (datatype, shape) = type_and_shape(&value)?;
    let count = shape.element_count().ok_or_else(|| ort::Error::new(format!("an output of shape {shape}")))?;
    let data = match datatype.size() {
        None => {
            let data = string_output(&value, count)?;
            session.copies().strings.count(data.len());
            data
        }
        Some(_) if count == 0 => Bytes::new(),
        Some(size) => {
            let mut data = ptr::null_mut();
            // SAFETY: the value is a live tensor of a type other than strings.
            unsafe {
                ort::Error::result_from_status((ort::api().GetTensorMutableData)(value.0.as_ptr(), &mut data))?;
            }
            let data = NonNull::new(data.cast::<u8>()).ok_or_else(|| ort::Error::new("an output without memory"))?;
            let input = inputs.iter().find(|input| input.holds(data.as_ptr())).map(|input| input.bytes.clone());
            let length = count * size;
            Bytes::from_owner(OutputMemory { _value: value, data, length, _input: input, _session: session.clone() })
        }
    };
    Tensor::new(datatype, shape, data).map_err(|error| ort::Error::new(error.message()))
}

fn type_and_shape(value: &OwnedValue) -> ort::Result<(DataType, Shape)> {
    let api = ort::api();
    let mut info = ptr::null_mut();
    // SAFETY: the value is alive; ONNX Runtime refuses one that is no tensor.
    unsafe { ort::Error::result_from_status((api.GetTensorTypeAndShape)(value.as_ptr(), &mut info))? };
    let mut element = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    let mut dims = Vec::new();
    // SAFETY: `info` was just made, is released once, and is not used afterwards; `dims` has as much room as is said.
    let read = unsafe {
        let mut rank = 0;
        let read = ort::Error::result_from_status((api.GetTensorElementType)(info, &mut element))
            .and_then(|()| ort::Error::result_from_status((api.GetDimensionsCount)(info, &mut rank)))
            .and_then(|()| {
                dims.resize(rank, 0);
                ort::Error::result_from_status((api.GetDimensions)(info, dims.as_mut_ptr(), rank))
            });
        (api.ReleaseTensorTypeAndShapeInfo)(info);
        read
    };
    read?;
    let datatype = datatype::from_onnx(element)
        .ok_or_else(|| ort::Error::new(format!("an output of type {element:?}, which KServe v2 does not have")))?;
    Ok((datatype, Shape::from(dims)))
}

/// A string tensor's elements in the layout of a BYTES tensor.
fn string_output(value: &OwnedValue, count: usize) -> ort::Result<Bytes> {
    let api = ort::api();
    let mut length = 0;
    let mut offsets = vec![0usize; count];
    // SAFETY: the value is a live string tensor of `count` elements; the buffers are as long as ONNX Runtime is told, and
    // it writes to no more than that.
    let content = unsafe {
        ort::Error::result_from_status((api.GetStringTensorDataLength)(value.as_ptr(), &mut length))?;
        let mut content = vec![0u8; length];
        ort::Error::result_from_status((api.GetStringTensorContent)(
            value.as_ptr(),
            content.as_mut_ptr().cast::<c_void>(),
            length,
            offsets.as_mut_ptr(),
            count,
        ))?;
        content
    };
    let end = |index: usize| offsets.get(index + 1).copied().unwrap_or(length);
    Ok(encode_bytes_elements((0..count).map(|index| &content[offsets[index]..end(index)])))
}
