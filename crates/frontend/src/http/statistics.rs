//! What models have done so far: `GET /v2/models/stats` and its forms for one model.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use inference::{
    BatchStatistics, Device, InferStatistics, ModelKey, ModelStatistics, ResponseStatistics, StatisticDuration,
};
use serde::Serialize;

use super::describe::refuse;
use super::path::TargetedPath;
use crate::{Shared, infer, reply};

#[derive(Serialize)]
struct Answer {
    model_stats: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    name: String,
    version: String,
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: Inference,
    response_stats: BTreeMap<u64, OfResponse>,
    batch_stats: Vec<Batch>,
    memory_usage: Vec<Memory>,
}

#[derive(Serialize)]
struct Timed {
    count: u64,
    ns: u64,
}

#[derive(Serialize)]
struct Inference {
    success: Timed,
    fail: Timed,
    queue: Timed,
    compute_input: Timed,
    compute_infer: Timed,
    compute_output: Timed,
    cache_hit: Timed,
    cache_miss: Timed,
}

#[derive(Serialize)]
struct Batch {
    batch_size: u64,
    compute_input: Timed,
    compute_infer: Timed,
    compute_output: Timed,
}

#[derive(Serialize)]
struct OfResponse {
    compute_infer: Timed,
    compute_output: Timed,
    success: Timed,
    fail: Timed,
    empty_response: Timed,
    cancel: Timed,
}

#[derive(Serialize)]
struct Memory {
    r#type: &'static str,
    id: u32,
    byte_size: u64,
}

/// `GET /v2/models/stats`.
pub(super) async fn all(State(app): State<Shared>, headers: HeaderMap) -> Response {
    match infer::target(&headers) {
        Ok(target) => answer(&app, &ModelKey { target, ..ModelKey::default() }),
        Err(error) => refuse(&ModelKey::default(), error.into()),
    }
}

/// `GET /v2/models/{name}[/versions/{version}]/stats`.
pub(super) async fn one(State(app): State<Shared>, path: TargetedPath) -> Response {
    infer::with_version(&app, &path.key, answer(&app, &path.key))
}

fn answer(app: &Shared, key: &ModelKey) -> Response {
    match app.services.control.statistics(key) {
        Ok(statistics) => reply::json(&Answer { model_stats: statistics.into_iter().map(model).collect() }),
        Err(error) => refuse(key, error.into()),
    }
}

fn model(of: ModelStatistics) -> Model {
    let memory = of.memory.iter().map(|(device, byte_size)| {
        let (r#type, id) = place(device);
        Memory { r#type, id, byte_size }
    });
    Model {
        version: of.version.to_string(),
        last_inference: of.last_inference_ms,
        inference_count: of.inference_count,
        execution_count: of.execution_count,
        inference_stats: inference(&of.inference),
        response_stats: of.responses.iter().map(|(place, of)| (*place, response(of))).collect(),
        batch_stats: of.batches.iter().map(batch).collect(),
        memory_usage: memory.collect(),
        name: of.name,
    }
}

fn inference(of: &InferStatistics) -> Inference {
    Inference {
        success: timed(of.success),
        fail: timed(of.fail),
        queue: timed(of.queue),
        compute_input: timed(of.compute_input),
        compute_infer: timed(of.compute_infer),
        compute_output: timed(of.compute_output),
        cache_hit: timed(of.cache_hit),
        cache_miss: timed(of.cache_miss),
    }
}

fn batch(of: &BatchStatistics) -> Batch {
    Batch {
        batch_size: of.batch_size,
        compute_input: timed(of.compute_input),
        compute_infer: timed(of.compute_infer),
        compute_output: timed(of.compute_output),
    }
}

fn response(of: &ResponseStatistics) -> OfResponse {
    OfResponse {
        compute_infer: timed(of.compute_infer),
        compute_output: timed(of.compute_output),
        success: timed(of.success),
        fail: timed(of.fail),
        empty_response: timed(of.empty_response),
        cancel: timed(of.cancel),
    }
}

fn timed(of: StatisticDuration) -> Timed {
    Timed { count: of.count, ns: nanoseconds(of) }
}

pub(crate) fn nanoseconds(of: StatisticDuration) -> u64 {
    u64::try_from(of.total.as_nanos()).unwrap_or(u64::MAX)
}

/// A device's type and number, as Triton has them.
pub(crate) fn place(device: Device) -> (&'static str, u32) {
    match device {
        Device::Host => ("CPU", 0),
        Device::Gpu(ordinal) => ("GPU", ordinal),
    }
}
