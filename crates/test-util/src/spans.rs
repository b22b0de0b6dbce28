//! Where spans end up in tests.

use std::sync::atomic::{AtomicU64, Ordering};

use inference::{EndedSpan, SpanRecorder};
use parking_lot::Mutex;

/// Keeps every span that has ended, in the order of their ends.
#[derive(Debug, Default)]
pub struct KeptSpans {
    ids: AtomicU64,
    spans: Mutex<Vec<EndedSpan>>,
}

impl KeptSpans {
    /// Whether a request's first span has ended, and with it the request.
    pub fn has_root(&self) -> bool {
        self.spans.lock().iter().any(|span| span.is_root)
    }

    /// Takes out what has been kept so far.
    pub fn take(&self) -> Vec<EndedSpan> {
        std::mem::take(&mut *self.spans.lock())
    }
}

impl SpanRecorder for KeptSpans {
    fn new_id(&self) -> u64 {
        1 + self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn record(&self, span: EndedSpan) {
        self.spans.lock().push(span);
    }
}
