//! The element types of KServe v2 and of Triton's model configuration.

use std::fmt;

/// The type of a tensor's elements, as KServe v2 names them (`FP32`) and as `config.pbtxt` does (`TYPE_FP32`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 1 byte.
    Uint8,
    /// Unsigned, 2 bytes.
    Uint16,
    /// Unsigned, 4 bytes.
    Uint32,
    /// Unsigned, 8 bytes.
    Uint64,
    /// Signed, 1 byte.
    Int8,
    /// Signed, 2 bytes.
    Int16,
    /// Signed, 4 bytes.
    Int32,
    /// Signed, 8 bytes.
    Int64,
    /// IEEE 754 binary16.
    Fp16,
    /// The upper half of a binary32.
    Bf16,
    /// IEEE 754 binary32.
    Fp32,
    /// IEEE 754 binary64.
    Fp64,
    /// Byte strings of any length (`TYPE_STRING` in `config.pbtxt`).
    Bytes,
}

impl DataType {
    /// Every type, in the order of Triton's enumeration.
    pub const ALL: [DataType; 14] = [
        DataType::Bool,
        DataType::Uint8,
        DataType::Uint16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Fp16,
        DataType::Fp32,
        DataType::Fp64,
        DataType::Bytes,
        DataType::Bf16,
    ];

    /// The name on the wire: `FP32`, `BYTES`, … (KServe v2, "Tensor Data Types").
    pub const fn name(self) -> &'static str {
        match self {
            DataType::Bool => "BOOL",
            DataType::Uint8 => "UINT8",
            DataType::Uint16 => "UINT16",
            DataType::Uint32 => "UINT32",
            DataType::Uint64 => "UINT64",
            DataType::Int8 => "INT8",
            DataType::Int16 => "INT16",
            DataType::Int32 => "INT32",
            DataType::Int64 => "INT64",
            DataType::Fp16 => "FP16",
            DataType::Bf16 => "BF16",
            DataType::Fp32 => "FP32",
            DataType::Fp64 => "FP64",
            DataType::Bytes => "BYTES",
        }
    }

    /// The type that a name on the wire stands for, if any.
    pub fn from_name(name: &str) -> Option<DataType> {
        DataType::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// The number in Triton's `DataType` enumeration (`TYPE_BOOL` = 1 … `TYPE_BF16` = 14).
    pub fn config_number(self) -> i32 {
        let position = DataType::ALL.iter().position(|datatype| *datatype == self);
        position.map_or(0, |position| position as i32 + 1)
    }

    /// The type with this number in Triton's `DataType` enumeration; `None` for `TYPE_INVALID` and unknown numbers.
    pub fn from_config_number(number: i32) -> Option<DataType> {
        let position = usize::try_from(number).ok()?.checked_sub(1)?;
        DataType::ALL.get(position).copied()
    }

    /// Bytes per element; `None` for [`DataType::Bytes`], whose elements have lengths of their own.
    pub const fn size(self) -> Option<usize> {
        match self {
            DataType::Bool | DataType::Uint8 | DataType::Int8 => Some(1),
            DataType::Uint16 | DataType::Int16 | DataType::Fp16 | DataType::Bf16 => Some(2),
            DataType::Uint32 | DataType::Int32 | DataType::Fp32 => Some(4),
            DataType::Uint64 | DataType::Int64 | DataType::Fp64 => Some(8),
            DataType::Bytes => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for datatype in DataType::ALL {
            assert_eq!(DataType::from_name(datatype.name()), Some(datatype));
            assert_eq!(DataType::from_config_number(datatype.config_number()), Some(datatype));
        }
        assert_eq!(DataType::from_name("FP8"), None);
        assert_eq!(DataType::from_config_number(0), None);
        assert_eq!(DataType::from_config_number(15), None);
        assert_eq!(DataType::Fp32.config_number(), 11);
        assert_eq!(DataType::Bf16.config_number(), 14);
    }
}
