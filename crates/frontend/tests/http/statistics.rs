//! `GET …/stats` in all its forms.

use serde_json::{Value, json};

use crate::fake::start;

fn timed(count: u64) -> Value {
    json!({"count": count, "ns": count * 1000})
}

#[tokio::test]
async fn every_figure_has_its_place() {
    let server = start().await;
    let of = |name: &str| {
        json!({"model_stats": [{
            "name": name, "version": "3", "last_inference": 1_795_320_048_910_u64,
            "inference_count": 18, "execution_count": 19,
            "inference_stats": {
                "success": timed(1), "fail": timed(2), "queue": timed(3), "compute_input": timed(4),
                "compute_infer": timed(5), "compute_output": timed(6), "cache_hit": timed(7), "cache_miss": timed(8),
            },
            "response_stats": {"0": {
                "compute_infer": timed(12), "compute_output": timed(13), "success": timed(14), "fail": timed(15),
                "empty_response": timed(16), "cancel": timed(17),
            }},
            "batch_stats": [{
                "batch_size": 16, "compute_input": timed(9), "compute_infer": timed(10), "compute_output": timed(11),
            }],
            "memory_usage": [
                {"type": "CPU", "id": 0, "byte_size": 4096}, {"type": "GPU", "id": 1, "byte_size": 8192},
            ],
        }]})
    };
    for path in ["/v2/models/stats", "/v2/models/identity/stats", "/v2/models/identity/versions/3/stats"] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.json()), (200, of("identity")), "{path}");
    }
    let target = [("X-Amzn-SageMaker-Target-Model", "team/x.tar.gz")];
    let reply = server.call(server.http, "GET", "/v2/models/inner/stats", &target, String::new()).await;
    assert_eq!(reply.json(), of("team/x.tar.gz"), "a model inside an archive");
    for (path, status) in [("/v2/models/nope/stats", 404), ("/v2/models/identity/versions/x/stats", 400)] {
        assert_eq!(server.get(path).await.status, status, "{path}");
    }
    let bad = [("X-Amzn-SageMaker-Target-Model", "../x")];
    for path in ["/v2/models/stats", "/v2/models/inner/stats", "/v2/models/inner/config"] {
        assert_eq!(server.call(server.http, "GET", path, &bad, String::new()).await.status, 400, "{path}");
    }
}
