//! Opens sessions on the host, with weights of their own or with weights that stay in their files.

use std::path::Path;

use inference::{ModelArtifact, ModelSpec, Result, Weights};
use ort::session::Session;

use crate::environment::Runtime;
use crate::mapping::{MappableModel, MappedWeights};
use crate::session::{Purpose, open, open_mapped};
use crate::{memory, providers};

/// A session on the host, and what it takes there.
pub(crate) struct Opened {
    pub(crate) session: Session,
    pub(crate) weights: Option<MappedWeights>,
    pub(crate) bytes: u64,
}

/// Where a model's weights are to be: as it says itself, or else as the server does. Files that may change are not mapped: one
/// that is made shorter would take the process down.
pub(crate) fn wanted(model: &ModelArtifact, default: Weights) -> Weights {
    let wanted = model.spec.weights.unwrap_or(default);
    if model.immutable { wanted } else { Weights::Private }
}

/// Opens a model, its weights in memory of its own.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_private(runtime: &Runtime, spec: &ModelSpec, file: &Path, file_bytes: u64) -> Result<Opened> {
    let (session, added) =
        counted(runtime, || open(&runtime.environment, spec, file, &providers::host(spec), Purpose::Run))?;
    Ok(Opened { session, weights: None, bytes: memory::of_session(added, file_bytes) })
}

/// Opens a model, its weights in its files where that can be done, or else in memory of its own.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_in_files(runtime: &Runtime, spec: &ModelSpec, file: &Path, file_bytes: u64) -> Result<Opened> {
    let why = match MappableModel::open(file) {
        Err(why) => why,
        Ok(model) => {
            let expected = expected(&model).min(memory::of_session(None, file_bytes));
            let opened = counted(runtime, || open_mapped(&runtime.environment, spec, model, &providers::host(spec)));
            match opened {
                Ok(((session, weights), added)) => {
                    let bytes = added.map_or(0, memory::of_mapped_session).max(expected);
                    return Ok(Opened { session, weights: Some(weights), bytes });
                }
                Err(error) => error.message().to_owned(),
            }
        }
    };
    tracing::info!(model = &*spec.name, why, "the model's weights are not mapped");
    open_private(runtime, spec, file, file_bytes)
}

/// What a model is expected to take whose weights stay in their files; `None` where they cannot.
pub(crate) fn estimate_in_files(file: &Path) -> Option<u64> {
    let model = MappableModel::open(file).ok()?;
    Some(expected(&model))
}

/// What a session is expected to take that is made of this.
pub(crate) fn expected(model: &MappableModel) -> u64 {
    let skeleton = model.skeleton();
    memory::of_mapped_graph(skeleton.model.len() as u64, skeleton.folded_bytes)
}

/// Makes a session, and tells what the arena handed out for it, where that can be known.
fn counted<T>(runtime: &Runtime, make: impl FnOnce() -> Result<T>) -> Result<(T, Option<u64>)> {
    let arena = &runtime.arena;
    let entered = arena.enter();
    let before = arena.in_use();
    let made = make()?;
    let added = arena.in_use().saturating_sub(before);
    Ok((made, entered.was_alone().then_some(added)))
}
