//! The run itself: `OrtApi::Run` on a session that several threads may share.

use std::ffi::c_char;
use std::ptr;

use ort::AsPointer;
use ort::session::Session;

use crate::session::{InputSlot, OutputSlot};
use crate::value::{InputValue, OwnedValue};

/// Runs a session on these inputs and returns these outputs, in the order in which they are given.
///
/// The safe API wants the session exclusively, although `Run` is thread-safe; through the raw one, all instances of a model
/// share a session.
///
/// # Errors
/// What ONNX Runtime says.
pub(crate) fn run(
    session: &Session,
    inputs: &[(&InputSlot, &InputValue)],
    outputs: &[&OutputSlot],
) -> ort::Result<Vec<OwnedValue>> {
    let input_names: Vec<*const c_char> = inputs.iter().map(|(slot, _)| slot.c_name.as_ptr()).collect();
    let input_values: Vec<_> = inputs.iter().map(|(_, input)| input.value.as_ptr()).collect();
    let output_names: Vec<*const c_char> = outputs.iter().map(|slot| slot.c_name.as_ptr()).collect();
    let mut results = vec![ptr::null_mut(); outputs.len()];
    // SAFETY: every pointer comes from something borrowed for the length of this call; counts match; the results start as
    // null, which asks ONNX Runtime to allocate them. The C API documents `Run` as safe to call from several threads; it
    // takes the session as mutable only for want of `const`.
    let status = unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            ptr::null(),
            input_names.as_ptr(),
            input_values.as_ptr(),
            inputs.len(),
            output_names.as_ptr(),
            outputs.len(),
            results.as_mut_ptr(),
        )
    };
    // SAFETY: each result is null or a value that ONNX Runtime made for us; each is taken over once.
    let results: Vec<_> = results.into_iter().map(|value| unsafe { OwnedValue::from_raw(value) }).collect();
    // SAFETY: the status comes from the call above and is not used again.
    unsafe { ort::Error::result_from_status(status)? };
    results.into_iter().collect()
}
