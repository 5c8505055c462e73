//! What elements of a tensor are: the protocol's names, their sizes, and Triton's names for the same. Pure.

use mobula_proto::oip::DataType;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// 8 bits without a sign.
    Uint8,
    /// 16 bits without a sign.
    Uint16,
    /// 32 bits without a sign.
    Uint32,
    /// 64 bits without a sign.
    Uint64,
    /// 8 bits.
    Int8,
    /// 16 bits.
    Int16,
    /// 32 bits.
    Int32,
    /// 64 bits.
    Int64,
    /// Half precision.
    Fp16,
    /// Single precision.
    Fp32,
    /// Double precision.
    Fp64,
    /// Single precision without its lower half.
    Bf16,
    /// Bytes of any number.
    Bytes,
}

impl Datatype {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bf16,
        Self::Bytes,
    ];

    /// The type of a name.
    pub(crate) fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// The protocol's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::Bytes => "BYTES",
        }
    }

    /// The name of it in a model's configuration.
    pub(crate) fn configured(self) -> DataType {
        match self {
            Self::Bool => DataType::TypeBool,
            Self::Uint8 => DataType::TypeUint8,
            Self::Uint16 => DataType::TypeUint16,
            Self::Uint32 => DataType::TypeUint32,
            Self::Uint64 => DataType::TypeUint64,
            Self::Int8 => DataType::TypeInt8,
            Self::Int16 => DataType::TypeInt16,
            Self::Int32 => DataType::TypeInt32,
            Self::Int64 => DataType::TypeInt64,
            Self::Fp16 => DataType::TypeFp16,
            Self::Fp32 => DataType::TypeFp32,
            Self::Fp64 => DataType::TypeFp64,
            Self::Bf16 => DataType::TypeBf16,
            Self::Bytes => DataType::TypeString,
        }
    }

    /// Bytes of an element; none where they differ from one to the next.
    pub(crate) fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_by_its_name_and_no_other() {
        for datatype in Datatype::ALL {
            assert_eq!(Datatype::read(datatype.name()), Some(datatype));
            let configured = datatype.configured().as_str_name().strip_prefix("TYPE_");
            let same = configured == Some(datatype.name());
            assert!(same || datatype == Datatype::Bytes, "{configured:?}");
        }
        for name in ["", "fp32", "STRING", "FP8"] {
            assert_eq!(Datatype::read(name), None, "{name}");
        }
    }
}
