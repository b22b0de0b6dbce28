//! The run itself: `OrtApi::Run` on a session that several threads may share.

use std::ffi::c_char;
use std::ptr;
use std::sync::Arc;

use inference::{Cancellation, Interrupt};
use ort::AsPointer;
use ort::session::{RunOptions, Session};

use crate::session::{InputSlot, OutputSlot};
use crate::value::{InputValue, OwnedValue};

/// The options of one instance's runs, through which the one that is under way is ended. ONNX Runtime looks at them between
/// the nodes of a graph, and of the graphs within it (each round of a loop): a single node always runs to its end.
pub(crate) struct InstanceRuns {
    options: Arc<Options>,
    interrupt: Arc<dyn Interrupt>,
}

struct Options(RunOptions);

impl Interrupt for Options {
    fn interrupt(&self) {
        if let Err(error) = self.0.terminate() {
            tracing::error!(%error, "ONNX Runtime does not end a run that nobody waits for");
        }
    }
}

impl InstanceRuns {
    /// # Errors
    /// What ONNX Runtime says.
    pub(crate) fn new() -> ort::Result<Self> {
        let options = Arc::new(Options(RunOptions::new()?));
        Ok(InstanceRuns { interrupt: options.clone(), options })
    }

    /// Does `work` with options that end a run once it is cancelled.
    pub(crate) fn interruptible<T>(&mut self, cancellation: &Cancellation, work: impl FnOnce(&RunOptions) -> T) -> T {
        let interrupting = cancellation.interrupts(&self.interrupt);
        let result = work(&self.options.0);
        drop(interrupting);
        // Nobody interrupts from here on; what was said stays until it is taken back.
        if cancellation.cause().is_some()
            && let Err(error) = self.options.0.unterminate()
        {
            tracing::error!(%error, "ONNX Runtime does not forget that a run was ended");
        }
        result
    }
}

/// Runs a session on these inputs and returns these outputs, in the order in which they are given.
///
/// The safe API wants the session exclusively, although `Run` is thread-safe; through the raw one, all instances of a model
/// share a session.
///
/// # Errors
/// What ONNX Runtime says.
pub(crate) fn run(
    session: &Session,
    options: &RunOptions,
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
            options.ptr(),
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
