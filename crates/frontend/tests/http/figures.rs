//! Statistics in which every figure is another one.

use std::time::Duration;

use inference::{
    BatchStatistics, Device, InferStatistics, MemoryUsage, ModelStatistics, ResponseStatistics, StatisticDuration,
};

/// So many, of so many microseconds altogether.
fn timed(count: u64) -> StatisticDuration {
    StatisticDuration { count, total: Duration::from_micros(count) }
}

/// The statistics of a model of this name.
pub fn of(name: &str) -> ModelStatistics {
    let mut memory = MemoryUsage::on(Device::Host, 4096);
    memory.add(Device::Gpu(1), 8192);
    let inference = InferStatistics {
        success: timed(1),
        fail: timed(2),
        queue: timed(3),
        compute_input: timed(4),
        compute_infer: timed(5),
        compute_output: timed(6),
        cache_hit: timed(7),
        cache_miss: timed(8),
    };
    let batch = BatchStatistics {
        batch_size: 16,
        compute_input: timed(9),
        compute_infer: timed(10),
        compute_output: timed(11),
    };
    let response = ResponseStatistics {
        compute_infer: timed(12),
        compute_output: timed(13),
        success: timed(14),
        fail: timed(15),
        empty_response: timed(16),
        cancel: timed(17),
    };
    ModelStatistics {
        name: name.to_owned(),
        version: 3,
        last_inference_ms: 1_795_320_048_910,
        inference_count: 18,
        execution_count: 19,
        inference,
        batches: vec![batch],
        responses: [(0, response)].into(),
        memory,
    }
}
