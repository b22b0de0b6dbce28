//! The spans of a request at the front end: the whole of it, getting in, and getting out.

use std::time::Instant;

use http::HeaderMap;
use inference::{InferRequest, InferResponse, ModelKey, NamedTensor, Parameter, Span, Trace};

use super::Tracing;
use crate::status::{Failure, SUCCESS};
use crate::telemetry::Surface;

/// The name of a request's first span, as Triton has it.
const NAME: &str = "InferRequest";

/// The span of a request that is traced.
pub(crate) struct RequestSpan {
    span: Span,
    tensors: bool,
    arrived: Instant,
    /// Open while the answer is written.
    writing: Option<Span>,
    /// Whether it is known what the request ended in; otherwise its client went away.
    ended: bool,
}

impl Tracing {
    /// Begins the span of a request that arrived at `arrived`, if it is to be traced.
    pub(crate) fn begin(
        &self,
        key: &ModelKey,
        headers: &HeaderMap,
        surface: Surface,
        arrived: Instant,
    ) -> Option<RequestSpan> {
        if !self.is_on() {
            return None;
        }
        // As clients name it in trace settings: the archive, wherever there is one.
        let model = key.target.as_ref().map_or_else(|| key.to_string(), |target| target.to_string());
        let (context, level) = self.sample(&model, headers)?;
        let mut span = Trace::begin_request(self.0.recorder.clone(), context, NAME, arrived);
        span.set("triton.model_name", Parameter::String(model));
        span.set("panoply.surface", Parameter::String(surface.label().to_owned()));
        Some(RequestSpan { span, tensors: level.tensors, arrived, writing: None, ended: false })
    }
}

impl RequestSpan {
    /// The request is read, and goes on with its trace.
    pub(crate) fn admit(&mut self, request: &mut InferRequest) {
        let trace = self.inside();
        trace.record("admission", self.arrived, Instant::now());
        if !request.id.is_empty() {
            self.span.set("triton.request_id", Parameter::String(request.id.clone()));
        }
        if self.tensors {
            self.span.set("triton.inputs", tensors(&request.inputs));
        }
        request.trace = Some(trace);
    }

    /// Where spans of what is done for the request begin.
    pub(crate) fn inside(&self) -> Trace {
        self.span.inside()
    }

    /// The models have answered. Of several responses the first is told about, and the writing of all is one span.
    pub(crate) fn answer(&mut self, response: &InferResponse) {
        if self.writing.is_some() {
            return;
        }
        if let Some(cache) = &response.cache {
            self.span.set("panoply.cache", Parameter::String(cache.tier.name().to_owned()));
        }
        if self.tensors {
            self.span.set("triton.outputs", tensors(&response.outputs));
        }
        self.writing = Some(self.inside().begin("response"));
    }

    /// The request has ended.
    pub(crate) fn end(mut self, failure: Option<&Failure>) {
        drop(self.writing.take());
        self.ended = true;
        self.tell(failure.map_or(SUCCESS, |failure| failure.status(false).label));
        if let Some(failure) = failure {
            self.span.fail_with(failure.message());
        }
    }

    fn tell(&mut self, outcome: &str) {
        self.span.set("panoply.outcome", Parameter::String(outcome.to_owned()));
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.tell("cancelled");
        }
    }
}

/// Names, types and shapes.
fn tensors(tensors: &[NamedTensor]) -> Parameter {
    let shown = tensors.iter().map(|NamedTensor { name, tensor }| {
        let (datatype, shape) = (tensor.datatype(), tensor.shape());
        format!("{name} {datatype} {shape}")
    });
    Parameter::String(shown.collect::<Vec<_>>().join("; "))
}
