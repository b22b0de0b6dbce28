//! Spans of a request that is traced: what was done for it, from when to when, and within what.
//!
//! A request that is not traced carries `None`, and pays for one branch where a span would begin.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::{Error, Parameter};

/// Where ended spans go. Called on threads that carry requests, so it must neither block nor fail.
pub trait SpanRecorder: Send + Sync {
    /// An identifier for a new span; never 0, and random as W3C's Trace Context wants it.
    fn new_id(&self) -> u64;

    /// Takes over a span that has ended.
    fn record(&self, span: EndedSpan);
}

/// Who asked for what is traced here: the caller's span, as W3C's Trace Context passes it on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace that this is part of; 0 for a new one.
    pub trace_id: u128,
    /// The caller's span; 0 for none.
    pub parent: u64,
    /// The header `tracestate` as it came.
    pub state: Arc<str>,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct EndedSpan {
    /// The trace that it is part of; the parent is remote where this is the request's first span.
    pub context: TraceContext,
    /// Its identifier.
    pub id: u64,
    /// Whether it is the request's first span here.
    pub is_root: bool,
    /// What was done.
    pub name: Cow<'static, str>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What can be told about it.
    pub attributes: Vec<(&'static str, Parameter)>,
    /// What it ended in, when it failed.
    pub error: Option<String>,
}

/// A place in a request's trace: spans begun here are within one span. Cloning it is cheap.
#[derive(Clone)]
pub struct Trace {
    shared: Arc<Shared>,
    parent: u64,
}

struct Shared {
    recorder: Arc<dyn SpanRecorder>,
    trace_id: u128,
    state: Arc<str>,
    /// The same moment on both clocks.
    began: (Instant, SystemTime),
}

impl Trace {
    /// Begins the trace of a request that arrived at `arrived`, with its first span. A trace without an identifier gets one.
    pub fn begin_request(
        recorder: Arc<dyn SpanRecorder>,
        context: TraceContext,
        name: impl Into<Cow<'static, str>>,
        arrived: Instant,
    ) -> Span {
        let trace_id = match context.trace_id {
            0 => (u128::from(recorder.new_id()) << 64) | u128::from(recorder.new_id()),
            given => given,
        };
        let shared = Shared { recorder, trace_id, state: context.state, began: (Instant::now(), SystemTime::now()) };
        let trace = Trace { shared: Arc::new(shared), parent: context.parent };
        let mut span = trace.begin_at(name, arrived);
        span.is_root = true;
        span
    }

    /// Begins a span now.
    #[must_use]
    pub fn begin(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.begin_at(name, Instant::now())
    }

    /// A span that has begun already.
    #[must_use]
    pub fn begin_at(&self, name: impl Into<Cow<'static, str>>, start: Instant) -> Span {
        let id = self.shared.recorder.new_id();
        let name = name.into();
        Span { trace: self.clone(), id, is_root: false, name, start, end: None, attributes: Vec::new(), error: None }
    }

    /// Records what is over already.
    pub fn record(&self, name: &'static str, start: Instant, end: Instant) {
        self.begin_at(name, start).end_at(end);
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:032x}, {:016x})", self.shared.trace_id, self.parent)
    }
}

impl Shared {
    fn time_of(&self, instant: Instant) -> SystemTime {
        let (monotonic, wall) = self.began;
        match instant.checked_duration_since(monotonic) {
            Some(later) => wall + later,
            None => wall - (monotonic - instant),
        }
    }
}

/// A span under way. It ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    trace: Trace,
    id: u64,
    is_root: bool,
    name: Cow<'static, str>,
    start: Instant,
    end: Option<Instant>,
    attributes: Vec<(&'static str, Parameter)>,
    error: Option<String>,
}

impl Span {
    /// Where spans within this one begin.
    pub fn inside(&self) -> Trace {
        Trace { shared: self.trace.shared.clone(), parent: self.id }
    }

    /// Tells something about the span.
    pub fn set(&mut self, name: &'static str, value: Parameter) {
        self.attributes.push((name, value));
    }

    /// The span fails with this error.
    pub fn fail(&mut self, error: &Error) {
        self.fail_with(error.message());
    }

    /// The span fails for this reason.
    pub fn fail_with(&mut self, message: &str) {
        self.error = Some(message.to_owned());
    }

    /// Ends the span as of `end`.
    pub fn end_at(mut self, end: Instant) {
        self.end = Some(end);
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let shared = &self.trace.shared;
        let (trace_id, parent, state) = (shared.trace_id, self.trace.parent, shared.state.clone());
        let end = self.end.unwrap_or_else(Instant::now).max(self.start);
        shared.recorder.record(EndedSpan {
            context: TraceContext { trace_id, parent, state },
            id: self.id,
            is_root: self.is_root,
            name: std::mem::take(&mut self.name),
            start: shared.time_of(self.start),
            end: shared.time_of(end),
            attributes: std::mem::take(&mut self.attributes),
            error: self.error.take(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Kept {
        ids: AtomicU64,
        spans: Mutex<Vec<EndedSpan>>,
    }

    impl SpanRecorder for Kept {
        fn new_id(&self) -> u64 {
            1 + self.ids.fetch_add(1, Ordering::Relaxed)
        }

        fn record(&self, span: EndedSpan) {
            self.spans.lock().expect("no panic").push(span);
        }
    }

    #[test]
    fn spans_lie_within_each_other_and_in_time() {
        let kept = Arc::new(Kept::default());
        let context = TraceContext { trace_id: 7, parent: 9, state: "a=b".into() };
        let arrived = Instant::now();
        let mut root = Trace::begin_request(kept.clone(), context.clone(), "request", arrived);
        let step = root.inside().begin("step");
        step.inside().record("part", arrived, arrived + Duration::from_millis(5));
        drop(step);
        root.set("model", Parameter::String("m".to_owned()));
        root.fail(&Error::internal("boom"));
        drop(root);
        let spans = kept.spans.lock().expect("no panic");
        let [part, step, root] = &spans[..] else { panic!("three: {spans:?}") };
        assert_eq!((part.context.parent, step.context.parent, root.context.clone()), (step.id, root.id, context));
        assert!(root.is_root && !step.is_root && root.start <= step.start && step.end <= root.end);
        assert_eq!(part.end.duration_since(part.start).expect("in order"), Duration::from_millis(5));
        assert_eq!(root.error.as_deref(), Some("boom"));
    }

    #[test]
    fn a_trace_without_an_identifier_gets_one() {
        let kept = Arc::new(Kept::default());
        drop(Trace::begin_request(kept.clone(), TraceContext::default(), "request", Instant::now()));
        let spans = kept.spans.lock().expect("no panic");
        assert_ne!((spans[0].context.trace_id, spans[0].context.parent), (0, 1));
    }
}
