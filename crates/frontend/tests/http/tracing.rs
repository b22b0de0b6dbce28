//! Spans of the front end itself, on every port and for every kind of answer.

use std::sync::Arc;

use frontend::{Admission, FrontendConfig, ServeConfig, TraceLevel, TraceSettings, Tracing};
use inference::{EndedSpan, Parameter};
use test_util::KeptSpans;

use super::fake::{request, start_tracing, until};

/// The spans of one request, which has ended or is about to.
async fn take(kept: &KeptSpans) -> Vec<EndedSpan> {
    until(|| kept.has_root()).await;
    kept.take()
}

#[tokio::test]
async fn every_answer_has_its_spans() {
    let kept = Arc::new(KeptSpans::default());
    let level = TraceLevel { timestamps: true, tensors: true };
    let tracing = Tracing::new(kept.clone(), TraceSettings { level, rate: 1, count: None }, Vec::new());
    let server = start_tracing(tracing, Admission::default(), FrontendConfig::default(), ServeConfig::default()).await;
    let target = ("X-Amzn-SageMaker-Target-Model", "cold.tar.gz");
    let raw = [target, ("Inference-Header-Content-Length", "0")];
    let (flat, tensors) = (r#"{"INPUT0":1}"#.to_owned(), request(&[1.0]));
    let data = "\0\0\0\0".to_owned();
    let cold = "/v2/models/cold.tar.gz";
    let stream = "/endpoints/e/invocations-response-stream";
    // Where reading the request takes knowing the model, it is loaded then.
    let cases = [
        (format!("{cold}/infer"), &raw[1..], data.clone(), "store"),
        (format!("{cold}/infer"), &[], tensors.clone(), "memory"),
        (format!("{cold}/generate"), &[], flat.clone(), "store"),
        (format!("{cold}/generate_stream"), &[], flat, "store"),
        ("/invocations".to_owned(), &raw[..], data.clone(), "store"),
        (stream.to_owned(), &raw[..], data, "store"),
        (stream.to_owned(), &raw[..1], tensors, "memory"),
    ];
    for (path, headers, body, tier) in cases {
        let reply = server.post(&path, headers, body).await;
        assert_eq!((reply.status, reply.header("x-panoply-cache")), (200, tier), "{path}: {}", reply.text());
        let spans = take(&kept).await;
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        let mut expected = vec!["admission", "response", "InferRequest"];
        if tier == "store" {
            expected.insert(0, "archive");
        }
        assert_eq!(names, expected, "{path}");
        let root = spans.last().expect("the request");
        assert!(spans.iter().all(|span| span.is_root || span.context.parent == root.id), "{path}");
        let told = |name: &str| root.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        let text = |text: &str| Parameter::String(text.to_owned());
        assert_eq!(told("panoply.cache"), Some(&text(tier)), "{path}");
        assert_eq!(told("triton.outputs"), Some(&text("OUTPUT0 FP32 [1,1]")), "{path}");
        assert_eq!(told("panoply.outcome"), Some(&text("success")), "{path}");
    }
}

#[tokio::test]
async fn all_of_a_streams_answers_are_one_response() {
    let kept = Arc::new(KeptSpans::default());
    let level = TraceLevel { timestamps: true, tensors: false };
    let tracing = Tracing::new(kept.clone(), TraceSettings { level, rate: 1, count: None }, Vec::new());
    let server = start_tracing(tracing, Admission::default(), FrontendConfig::default(), ServeConfig::default()).await;
    let target = [("X-Amzn-SageMaker-Target-Model", "repeat")];
    let cases = [
        ("/v2/models/repeat/generate_stream", &[][..], r#"{"INPUT0":3}"#.to_owned()),
        ("/endpoints/e/invocations-response-stream", &target, request(&[3.0])),
    ];
    for (path, headers, body) in cases {
        assert_eq!(server.post(path, headers, body).await.status, 200, "{path}");
        let spans = take(&kept).await;
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["admission", "response", "InferRequest"], "{path}");
    }
}
