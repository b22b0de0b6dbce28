//! Reads a session's inputs and outputs into a [`Signature`].

use std::ptr;

use inference::Shape;
use ort::session::Session;
use ort::value::{Outlet, ValueType};
use ort::{AsPointer, sys};

use crate::datatype;
use crate::signature::{Port, PortKind, Signature};

/// The inputs and outputs of the model that a session has loaded.
pub(crate) fn signature(session: &Session) -> Signature {
    let api = ort::api();
    Signature {
        inputs: ports(session, session.inputs(), api.SessionGetInputTypeInfo),
        outputs: ports(session, session.outputs(), api.SessionGetOutputTypeInfo),
        optional_inputs: session
            .overridable_initializers()
            .iter()
            .map(|initializer| Port { name: initializer.name().to_owned(), kind: kind(initializer.dtype(), || true) })
            .collect(),
    }
}

type GetTypeInfo =
    unsafe extern "system" fn(*const sys::OrtSession, usize, *mut *mut sys::OrtTypeInfo) -> sys::OrtStatusPtr;

fn ports(session: &Session, outlets: &[Outlet], get: GetTypeInfo) -> Vec<Port> {
    let port = |(index, outlet): (usize, &Outlet)| Port {
        name: outlet.name().to_owned(),
        kind: kind(outlet.dtype(), || has_rank(session, index, get)),
    };
    outlets.iter().enumerate().map(port).collect()
}

fn kind(value: &ValueType, has_rank: impl FnOnce() -> bool) -> PortKind {
    match value {
        ValueType::Tensor { ty, shape, .. } => match datatype::from_element_type(*ty) {
            Some(datatype) => {
                // An unknown rank reads as no dimensions, like a scalar.
                let known = !shape.is_empty() || has_rank();
                PortKind::Tensor { datatype, shape: known.then(|| Shape::new(shape)) }
            }
            None => PortKind::Other(format!("a tensor of {ty:?}")),
        },
        ValueType::Sequence(_) => PortKind::Other("a sequence".to_owned()),
        ValueType::Map { .. } => PortKind::Other("a map".to_owned()),
        ValueType::Optional(_) => PortKind::Other("an optional value".to_owned()),
    }
}

/// Whether the model gives the rank of a tensor; yes when ONNX Runtime cannot tell.
fn has_rank(session: &Session, index: usize, get: GetTypeInfo) -> bool {
    let api = ort::api();
    let mut info = ptr::null_mut();
    // SAFETY: `session` is alive, `index` counts its inputs or outputs, and `info` is a place for the result.
    let status = unsafe { get(session.ptr(), index, &mut info) };
    // SAFETY: the status comes from the call above and is not used again.
    if unsafe { ort::Error::result_from_status(status) }.is_err() || info.is_null() {
        return true;
    }
    let mut tensor = ptr::null();
    // SAFETY: `info` was just made; the tensor's information lives as long as it does. Both are used before it is
    // released, which happens once.
    unsafe {
        let cast = ort::Error::result_from_status((api.CastTypeInfoToTensorInfo)(info, &mut tensor));
        let has_rank = cast.is_err() || tensor.is_null() || (api.TensorTypeAndShape_HasShape)(tensor);
        (api.ReleaseTypeInfo)(info);
        has_rank
    }
}
