//! `ModelStatistics`.

use protocol::grpc_service::{InferBatchStatistics, InferStatistics, ModelStatisticsRequest, StatisticDuration};
use tonic::{Code, Request};

use crate::start;

#[tokio::test]
async fn every_figure_has_its_place() {
    let mut server = start().await;
    let ask = |name: &str, version: &str| ModelStatisticsRequest { name: name.to_owned(), version: version.to_owned() };
    let timed = |count| Some(StatisticDuration { count, ns: count * 1000 });
    for (name, version) in [("", ""), ("identity", ""), ("identity", "3")] {
        let answer = server.client.model_statistics(ask(name, version)).await.expect("told").into_inner();
        let [model] = &answer.model_stats[..] else { panic!("{answer:?}") };
        assert_eq!((model.name.as_str(), model.version.as_str()), ("identity", "3"));
        assert_eq!((model.last_inference, model.inference_count, model.execution_count), (1_795_320_048_910, 18, 19));
        let expected = InferStatistics {
            success: timed(1),
            fail: timed(2),
            queue: timed(3),
            compute_input: timed(4),
            compute_infer: timed(5),
            compute_output: timed(6),
            cache_hit: timed(7),
            cache_miss: timed(8),
        };
        assert_eq!(model.inference_stats, Some(expected));
        let (compute_input, compute_infer, compute_output) = (timed(9), timed(10), timed(11));
        let batch = InferBatchStatistics { batch_size: 16, compute_input, compute_infer, compute_output };
        assert_eq!(model.batch_stats, [batch]);
        let memory: Vec<_> = model.memory_usage.iter().map(|of| (of.r#type.as_str(), of.id, of.byte_size)).collect();
        assert_eq!(memory, [("CPU", 0, 4096), ("GPU", 1, 8192)]);
        let response = &model.response_stats["0"];
        assert_eq!([response.compute_infer, response.compute_output, response.success], [12, 13, 14].map(timed));
        assert_eq!([response.fail, response.empty_response, response.cancel], [15, 16, 17].map(timed));
    }
    let mut inside = Request::new(ask("inner", ""));
    inside.metadata_mut().insert("x-amzn-sagemaker-target-model", "team/x.tar.gz".parse().expect("ASCII"));
    let answer = server.client.model_statistics(inside).await.expect("told").into_inner();
    assert_eq!(answer.model_stats[0].name, "team/x.tar.gz");
    let status = server.client.model_statistics(ask("nope", "")).await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound);
}
