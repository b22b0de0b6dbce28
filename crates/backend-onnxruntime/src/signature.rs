//! What a model file says of its inputs and outputs, free of any runtime type.

use inference::{DataType, Shape};

/// The inputs and outputs that a model file declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Inputs that every run must be given, in the file's order.
    pub(crate) inputs: Vec<Port>,
    /// Inputs that have an initializer, which a run may override.
    pub(crate) optional_inputs: Vec<Port>,
    /// Outputs, in the file's order.
    pub(crate) outputs: Vec<Port>,
}

/// One input or output of a model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) kind: PortKind,
}

/// What goes through a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortKind {
    /// A tensor of a type that KServe v2 has.
    Tensor {
        /// The element type.
        datatype: DataType,
        /// The full shape, -1 for symbolic or unknown dimensions; `None` when not even the rank is known.
        shape: Option<Shape>,
    },
    /// Anything else, described for messages: `a sequence`, `a tensor of Complex64`.
    Other(String),
}

impl Port {
    /// Whether the first dimension is there and of any size.
    pub(crate) fn has_batch_dimension(&self) -> bool {
        matches!(&self.kind, PortKind::Tensor { shape: Some(shape), .. } if shape.first() == Some(&-1))
    }
}

impl Signature {
    /// The input of this name, required or not.
    pub(crate) fn input(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().chain(&self.optional_inputs).find(|port| port.name == name)
    }

    /// The output of this name.
    pub(crate) fn output(&self, name: &str) -> Option<&Port> {
        self.outputs.iter().find(|port| port.name == name)
    }

    /// Whether every required input and every output has a first dimension of any size.
    pub(crate) fn can_batch(&self) -> bool {
        let mut ports = self.inputs.iter().chain(&self.outputs);
        !self.inputs.is_empty() && ports.all(Port::has_batch_dimension)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn port(name: &str, datatype: DataType, dims: &[i64]) -> Port {
        Port { name: name.to_owned(), kind: PortKind::Tensor { datatype, shape: Some(Shape::new(dims)) } }
    }

    #[test]
    fn a_batch_dimension_must_be_everywhere() {
        let batched = port("x", DataType::Fp32, &[-1, 3]);
        let fixed = port("y", DataType::Fp32, &[1, 3]);
        let scalar = port("z", DataType::Fp32, &[]);
        let can_batch = |inputs: &[&Port], outputs: &[&Port]| {
            let owned = |ports: &[&Port]| ports.iter().copied().cloned().collect();
            Signature { inputs: owned(inputs), outputs: owned(outputs), ..Signature::default() }.can_batch()
        };
        assert!(can_batch(&[&batched], &[&batched, &batched]));
        assert!(!can_batch(&[&batched], &[&fixed]));
        assert!(!can_batch(&[&batched, &scalar], &[&batched]));
        assert!(!can_batch(&[], &[&batched]));
    }
}
