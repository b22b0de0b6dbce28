//! Which target models are in memory from the start: `--load-target-model` and what goes with it.

use inference::TargetModel;

use crate::args::ModelArgs;

/// Target models that are loaded at start.
#[derive(Clone, Debug, Default)]
pub(crate) struct AtStart {
    /// Those that stay, the most important first.
    pub(crate) kept: Vec<TargetModel>,
    /// The server is ready only when they are there.
    pub(crate) are_awaited: bool,
    /// And those that were in memory when the server stopped.
    pub(crate) is_restored: bool,
}

impl AtStart {
    /// What the arguments say, and what is wrong with them.
    pub(super) fn of(args: &ModelArgs) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        if !args.load_target_model.is_empty() && args.model_store.is_none() {
            problems.push("--load-target-model needs --model-store".to_owned());
        }
        let read = |key: &String| {
            let target = TargetModel::new(key);
            target.map_err(|error| problems.push(format!("--load-target-model: {}", error.message()))).ok()
        };
        let kept = args.load_target_model.iter().filter_map(read).collect();
        let (are_awaited, is_restored) = (args.await_target_models, args.restore_resident);
        (AtStart { kept, are_awaited, is_restored }, problems)
    }
}
