//! The one memory arena on the host that all sessions take their activations and outputs from, and what keeps it small.
//!
//! An arena of its own would keep each session's high-water mark for as long as the model is loaded. Measured on MiniLM's
//! encoder (four sessions, one run of 32 × 256 tokens on each): 1004 MB in arenas of their own, 252 MB in a shared one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use inference::{Error, Result};
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{RunOptions, Session, SessionInputs};
use ort::{AsPointer, sys};
use parking_lot::Mutex;

use crate::memory;

/// Memory that the arena may keep unused, so that ordinary runs find theirs at once. What is above it goes back to the
/// system after a run.
const KEPT_BYTES: u64 = 256 << 20;
/// A shorter run cannot have filled that much memory, and is spared the look at the arena.
const SHORTEST_CHECKED_RUN: Duration = Duration::from_millis(5);
/// An ONNX model (IR version 8, opset 13) of one node, `y = Constant(value_int: 0)`, as protocol buffer fields. ONNX Runtime
/// trims an arena only at the end of a run, so there must be something to run.
const TRIM_MODEL: &[u8] = b"\x08\x08\x12\x00\x3a\x31\
    \x0a\x1f\x12\x01y\x22\x08Constant\x2a\x10\x0a\x09value_int\x18\x00\xa0\x01\x02\
    \x12\x01g\
    \x62\x0b\x0a\x01y\x12\x06\x0a\x04\x08\x07\x12\x00\
    \x42\x04\x0a\x00\x10\x0d";

/// Registers the arena; once, before the first session.
///
/// # Errors
/// Internal when ONNX Runtime refuses.
pub(crate) fn register(environment: &Environment) -> Result<()> {
    let registered = || -> ort::Result<()> {
        let info = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
        let api = ort::api();
        let mut config: *mut sys::OrtArenaCfg = std::ptr::null_mut();
        // SAFETY: the environment and the memory's description are alive; the configuration is made, used and released
        // here once. 0 and -1 mean ONNX Runtime's defaults.
        unsafe {
            ort::Error::result_from_status((api.CreateArenaCfg)(0, -1, -1, -1, &mut config))?;
            let status = (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), info.ptr(), config);
            (api.ReleaseArenaCfg)(config);
            ort::Error::result_from_status(status)
        }
    };
    registered().map_err(|error| Error::internal(format!("ONNX Runtime's shared memory arena: {error}")))
}

/// Watches over the arena.
pub(crate) struct Arena {
    trimmer: Mutex<Trimmer>,
    activity: Activity,
}

/// A session that does nothing but trim.
struct Trimmer {
    session: Session,
    options: RunOptions,
}

impl Arena {
    /// # Errors
    /// Internal when ONNX Runtime refuses.
    pub(crate) fn new(environment: &Environment) -> Result<Arc<Self>> {
        let trimmer = || -> ort::Result<Trimmer> {
            let session = Session::builder(environment)?.with_env_allocators()?.commit_from_memory(TRIM_MODEL)?;
            let mut options = RunOptions::new()?;
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
            Ok(Trimmer { session, options })
        };
        let trimmer =
            trimmer().map_err(|error| Error::internal(format!("ONNX Runtime's shared memory arena: {error}")))?;
        Ok(Arc::new(Arena { trimmer: Mutex::new(trimmer), activity: Activity::default() }))
    }

    /// Notes that something uses the arena until the returned guard is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.activity.enter()
    }

    /// Bytes that sessions have been given: outputs that are still alive, and weights that are not in files.
    pub(crate) fn in_use(&self) -> u64 {
        memory::of_arena(&self.trimmer.lock().session).map_or(0, |arena| arena.in_use)
    }

    /// Gives unused memory back after a run that took so long, where there is much of it.
    pub(crate) fn after_run(&self, took: Duration) {
        if took < SHORTEST_CHECKED_RUN {
            return;
        }
        // Whoever trims already does it for this run as well.
        let Some(mut trimmer) = self.trimmer.try_lock() else { return };
        if memory::of_arena(&trimmer.session).is_none_or(|arena| arena.unused() <= KEPT_BYTES) {
            return;
        }
        let Trimmer { session, options } = &mut *trimmer;
        if let Err(error) = session.run_with_options(SessionInputs::<0>::ValueSlice(&[]), options) {
            tracing::warn!(%error, "ONNX Runtime does not give unused memory back");
        }
    }
}

/// Tells whether anything else was under way during a stretch of time.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Activity {
    fn enter(&self) -> Entered<'_> {
        // What ended is read first: something that ends between the two reads then counts as still under way.
        let ended = self.ended.load(Ordering::SeqCst);
        let before = self.begun.fetch_add(1, Ordering::SeqCst);
        Entered { activity: self, alone: (before == ended).then_some(before + 1) }
    }
}

/// One use of the arena; dropping it ends the use.
pub(crate) struct Entered<'a> {
    activity: &'a Activity,
    /// How many uses had begun with this one, where no other was under way then.
    alone: Option<u64>,
}

impl Entered<'_> {
    /// Whether nothing else has used the arena since this use began.
    pub(crate) fn was_alone(&self) -> bool {
        self.alone == Some(self.activity.begun.load(Ordering::SeqCst))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.activity.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_use_that_overlaps_no_other_was_alone() {
        let activity = Activity::default();
        let first = activity.enter();
        assert!(first.was_alone());
        let second = activity.enter();
        assert!(!first.was_alone() && !second.was_alone());
        drop(first);
        assert!(!second.was_alone());
        drop(second);
        assert!(activity.enter().was_alone());
    }
}
