//! What models have done so far, as messages.

use inference::{BatchStatistics, Device, InferStatistics, ModelStatistics, ResponseStatistics, StatisticDuration};
use protocol::grpc_service::{
    InferBatchStatistics, InferResponseStatistics, InferStatistics as InferMessage, MemoryUsage,
    ModelStatistics as ModelMessage, ModelStatisticsResponse, StatisticDuration as DurationMessage,
};

use crate::http::{nanoseconds, place};

pub(super) fn statistics(of: Vec<ModelStatistics>) -> ModelStatisticsResponse {
    ModelStatisticsResponse { model_stats: of.into_iter().map(model).collect() }
}

fn model(of: ModelStatistics) -> ModelMessage {
    ModelMessage {
        name: of.name,
        version: of.version.to_string(),
        last_inference: of.last_inference_ms,
        inference_count: of.inference_count,
        execution_count: of.execution_count,
        inference_stats: Some(inference(&of.inference)),
        batch_stats: of.batches.iter().map(batch).collect(),
        memory_usage: of.memory.iter().map(memory).collect(),
        response_stats: of.responses.iter().map(|(place, of)| (place.to_string(), response(of))).collect(),
    }
}

fn inference(of: &InferStatistics) -> InferMessage {
    InferMessage {
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

fn batch(of: &BatchStatistics) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size: of.batch_size,
        compute_input: timed(of.compute_input),
        compute_infer: timed(of.compute_infer),
        compute_output: timed(of.compute_output),
    }
}

fn response(of: &ResponseStatistics) -> InferResponseStatistics {
    InferResponseStatistics {
        compute_infer: timed(of.compute_infer),
        compute_output: timed(of.compute_output),
        success: timed(of.success),
        fail: timed(of.fail),
        empty_response: timed(of.empty_response),
        cancel: timed(of.cancel),
    }
}

fn memory((device, byte_size): (Device, u64)) -> MemoryUsage {
    let (r#type, id) = place(device);
    MemoryUsage { r#type: r#type.to_owned(), id: i64::from(id), byte_size }
}

#[expect(clippy::unnecessary_wraps, reason = "messages within messages are optional")]
fn timed(of: StatisticDuration) -> Option<DurationMessage> {
    Some(DurationMessage { count: of.count, ns: nanoseconds(of) })
}
