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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use inference::{ComputeTiming, EndedSpan, Error, TraceContext};
    use test_util::KeptSpans;

    use super::*;

    /// The spans of a model that ended so, by name: their parents' names and their lengths.
    fn spans_of(served: Result<(InferResponse, Served)>, ago: Duration) -> Vec<(String, String, Duration)> {
        let kept = Arc::new(KeptSpans::default());
        let arrived = Instant::now().checked_sub(ago).expect("the machine runs for longer");
        let span = Trace::begin_request(kept.clone(), TraceContext::default(), "m", arrived);
        end(span, arrived, &served);
        let spans = kept.take();
        let name = |id: u64| spans.iter().find(|span| span.id == id).map_or("", |span| &span.name).to_owned();
        let length = |span: &EndedSpan| span.end.duration_since(span.start).expect("in order");
        let told = spans.iter().map(|span| (span.name.to_string(), name(span.context.parent), length(span)));
        let mut told: Vec<_> = told.collect();
        assert_eq!(spans.iter().any(|span| span.error.is_some()), served.is_err());
        told.sort();
        told
    }

    #[test]
    fn waiting_comes_before_computing_and_parts_lie_within() {
        let ms = Duration::from_millis;
        let compute = ComputeTiming { input: ms(1), infer: ms(20), output: Duration::ZERO };
        let served = Served { batch_size: 4, queued: ms(10), compute };
        let told = spans_of(Ok((InferResponse::default(), served)), ms(40));
        let names: Vec<_> = told.iter().map(|(name, parent, _)| (name.as_str(), parent.as_str())).collect();
        let expected =
            [("compute", "m"), ("compute.infer", "compute"), ("compute.input", "compute"), ("m", ""), ("queue", "m")];
        assert_eq!(names, expected);
        let lengths: Vec<Duration> = told.iter().map(|(.., length)| *length).collect();
        assert!(lengths[0] >= ms(30) && lengths[3] >= ms(40), "{told:?}");
        assert_eq!([lengths[1], lengths[2], lengths[4]], [ms(20), ms(1), ms(10)]);
    }

    #[test]
    fn a_model_that_fails_says_why() {
        let told = spans_of(Err(Error::internal("boom")), Duration::ZERO);
        assert_eq!(told.len(), 1, "{told:?}");
    }
}
