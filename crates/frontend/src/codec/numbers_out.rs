//! Writes a tensor's elements as JSON: integers plainly, floats with the fewest digits that read back as the same value and
//! always with a point or an exponent (`1.0`, as Triton), values that are no number as `NaN`, `Infinity`, `-Infinity`.
//!
//! Those three are not in JSON's grammar. Triton and Python's `json` write and read them; refusing the whole answer for one
//! of them would lose all the others. Clients that need strict JSON ask for binary data.

use bytemuck::Pod;
use half::{bf16, f16};
use inference::{DataType, Error, Result, Tensor};

/// How many elements are written between two looks at the size.
const STRIDE: usize = 4096;

/// Appends the elements, separated by commas. `false` when `text` grew past `limit` bytes.
pub(super) fn write(text: &mut Vec<u8>, tensor: &Tensor, limit: usize) -> Result<bool> {
    let within = match tensor.datatype() {
        DataType::Bool => each(text, tensor, limit, |text, value: u8| {
            text.extend_from_slice(if value == 0 { b"false" } else { b"true" });
        }),
        DataType::Uint8 => integers::<u8>(text, tensor, limit),
        DataType::Uint16 => integers::<u16>(text, tensor, limit),
        DataType::Uint32 => integers::<u32>(text, tensor, limit),
        DataType::Uint64 => integers::<u64>(text, tensor, limit),
        DataType::Int8 => integers::<i8>(text, tensor, limit),
        DataType::Int16 => integers::<i16>(text, tensor, limit),
        DataType::Int32 => integers::<i32>(text, tensor, limit),
        DataType::Int64 => integers::<i64>(text, tensor, limit),
        DataType::Fp16 => each(text, tensor, limit, |text, value: f16| float(text, value.to_f32())),
        DataType::Bf16 => each(text, tensor, limit, |text, value: bf16| float(text, value.to_f32())),
        DataType::Fp32 => each(text, tensor, limit, float::<f32>),
        DataType::Fp64 => each(text, tensor, limit, float::<f64>),
        DataType::Bytes => return strings(text, tensor, limit),
    };
    Ok(within)
}

/// Appends a string with its quotes and escapes.
pub(super) fn write_string(text: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(text, value).expect("invariant: writing to memory does not fail");
}

fn integers<T: Pod + itoa::Integer>(text: &mut Vec<u8>, tensor: &Tensor, limit: usize) -> bool {
    let mut buffer = itoa::Buffer::new();
    each(text, tensor, limit, |text, value: T| text.extend_from_slice(buffer.format(value).as_bytes()))
}

/// The two types that `ryu` writes.
trait ShortestFloat: ryu::Float + Into<f64> + Copy {}
impl ShortestFloat for f32 {}
impl ShortestFloat for f64 {}

fn float<T: ShortestFloat>(text: &mut Vec<u8>, value: T) {
    let wide: f64 = value.into();
    let special = match wide {
        _ if wide.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => return text.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes()),
    };
    text.extend_from_slice(special.as_bytes());
}

fn each<T: Pod>(text: &mut Vec<u8>, tensor: &Tensor, limit: usize, mut write: impl FnMut(&mut Vec<u8>, T)) -> bool {
    let mut first = true;
    for stride in tensor.data().chunks(STRIDE * size_of::<T>()) {
        for element in stride.chunks_exact(size_of::<T>()) {
            if !std::mem::take(&mut first) {
                text.push(b',');
            }
            write(text, bytemuck::pod_read_unaligned(element));
        }
        if text.len() > limit {
            return false;
        }
    }
    true
}

fn strings(text: &mut Vec<u8>, tensor: &Tensor, limit: usize) -> Result<bool> {
    for (position, element) in tensor.strings()?.enumerate() {
        if position > 0 {
            text.push(b',');
        }
        let element = std::str::from_utf8(element).map_err(|_| {
            Error::invalid_argument(format!(
                "element {position} is not UTF-8 and cannot be JSON; ask for binary data (parameter 'binary_data')"
            ))
        })?;
        write_string(text, element);
        if text.len() > limit {
            return Ok(false);
        }
    }
    Ok(true)
}
