//! This backend's metrics: forced copies of tensor bytes, and models that could not run on their GPU.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

const COPIES: &str = "panoply_tensor_copies_total";
const COPIED_BYTES: &str = "panoply_tensor_copied_bytes_total";
const MAPPED_WEIGHTS: &str = "panoply_mapped_weights_bytes";
const WEIGHT_MOVES: &str = "panoply_weight_moves_total";
const GPU_FALLBACKS: &str = "panoply_gpu_fallbacks_total";

/// Describes every metric that this crate emits.
pub fn describe_metrics() {
    describe_counter!(COPIES, Unit::Count, "Tensors that had to be copied, by reason (alignment, strings)");
    describe_counter!(
        COPIED_BYTES,
        Unit::Bytes,
        "Bytes of tensors that had to be copied, by reason (alignment, strings)"
    );
    describe_gauge!(
        MAPPED_WEIGHTS,
        Unit::Bytes,
        "Bytes of weights that loaded models leave in their files; they count towards no budget"
    );
    describe_counter!(
        WEIGHT_MOVES,
        Unit::Count,
        "Models whose weights were taken into memory for their use, or left to their file again (to: memory, file)"
    );
    describe_counter!(GPU_FALLBACKS, Unit::Count, "Loads of models meant for a GPU that run on the host instead");
}

/// The counters of forced copies. Taken anew at each load, because a recorder may forget series that are idle.
pub(crate) struct CopyCounters {
    pub(crate) alignment: CopyCounter,
    pub(crate) strings: CopyCounter,
}

/// Copies for one reason.
pub(crate) struct CopyCounter {
    copies: Counter,
    bytes: Counter,
}

impl CopyCounters {
    pub(crate) fn new() -> Self {
        CopyCounters { alignment: CopyCounter::new("alignment"), strings: CopyCounter::new("strings") }
    }
}

impl CopyCounter {
    fn new(reason: &'static str) -> Self {
        CopyCounter { copies: counter!(COPIES, "reason" => reason), bytes: counter!(COPIED_BYTES, "reason" => reason) }
    }

    /// Counts one copy of so many bytes.
    pub(crate) fn count(&self, bytes: usize) {
        self.copies.increment(1);
        self.bytes.increment(bytes as u64);
    }
}

/// Counts a load that fell back to the host.
pub(crate) fn count_gpu_fallback() {
    counter!(GPU_FALLBACKS).increment(1);
}

/// Counts a model that was given weights of its own for its use.
pub(crate) fn count_promotion() {
    counter!(WEIGHT_MOVES, "to" => "memory").increment(1);
}

/// Counts a model whose weights are in its file only again.
pub(crate) fn count_demotion() {
    counter!(WEIGHT_MOVES, "to" => "file").increment(1);
}

/// Counts mapped weights for as long as it exists.
pub(crate) struct MappedBytes {
    total: Gauge,
    bytes: f64,
}

impl MappedBytes {
    pub(crate) fn new(bytes: u64) -> Self {
        let (total, bytes) = (gauge!(MAPPED_WEIGHTS), bytes as f64);
        total.increment(bytes);
        MappedBytes { total, bytes }
    }
}

impl Drop for MappedBytes {
    fn drop(&mut self) {
        self.total.decrement(self.bytes);
    }
}
