//! The spans of a model that serves a traced request: the model, and within it the queue and the computation.

use std::time::Instant;

use inference::{InferRequest, InferResponse, ModelInfo, Parameter, Result, Span, Trace};

use crate::metric::Served;

/// Begins the model's span, if the request is traced; what is done for the request goes on within it.
pub(crate) fn begin(info: &ModelInfo, request: &mut InferRequest) -> Option<Span> {
    let trace = request.trace.take()?;
    let mut span = trace.begin(info.spec.name.to_string());
    span.set("triton.model_name", Parameter::String(info.spec.name.to_string()));
    span.set("triton.model_version", Parameter::Int64(i64::try_from(info.version).unwrap_or(i64::MAX)));
    request.trace = Some(span.inside());
    Some(span)
}

/// Ends the span of a model that has run a request which arrived at `arrived`.
pub(crate) fn end(mut span: Span, arrived: Instant, served: &Result<(InferResponse, Served)>) {
    let (trace, ended) = (span.inside(), Instant::now());
    match served {
        Ok((_, served)) => {
            let began = arrived + served.queued;
            trace.record("queue", arrived, began);
            span.set("panoply.batch_size", Parameter::Int64(i64::try_from(served.batch_size).unwrap_or(i64::MAX)));
            compute(&trace, began, ended, served);
        }
        Err(error) => span.fail(error),
    }
    span.end_at(ended);
}

/// The computation, in the parts that the backend tells apart, one after the other.
fn compute(trace: &Trace, began: Instant, ended: Instant, served: &Served) {
    let span = trace.begin_at("compute", began);
    let parts = span.inside();
    let mut at = began;
    let timing = served.compute;
    let named = [("compute.input", timing.input), ("compute.infer", timing.infer), ("compute.output", timing.output)];
    for (name, duration) in named.into_iter().filter(|(_, duration)| !duration.is_zero()) {
        parts.record(name, at, at + duration);
        at += duration;
    }
    span.end_at(ended);
}
