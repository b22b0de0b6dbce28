//! Triton's `generate` extension: the exchanges were captured from Triton.

use std::time::Duration;

use frontend::{Admission, FrontendConfig, ServeConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fake::{Running, start, start_admitting, start_with, until};

const GENERATE: &str = "/v2/models/identity/generate";
const REPEAT: &str = "/v2/models/repeat/generate_stream";

#[tokio::test]
async fn one_flat_answer() {
    let server = start().await;
    let reply = server.post(GENERATE, &[], r#"{"INPUT0":[1,2,3],"id":"7","temperature":0.5}"#).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{}", reply.text());
    let expected = r#"{"OUTPUT0":[1.0,2.0,3.0],"id":"7","model_name":"identity","model_version":"1"}"#;
    assert_eq!(reply.text(), expected);
    let seen = server.fake.last_request();
    assert_eq!((seen.id.as_str(), seen.inputs[0].tensor.shape().to_vec()), ("7", vec![1, 3]));
    assert_eq!(seen.parameters.get("temperature"), Some(&inference::Parameter::Double(0.5)));
    let reply = server.post("/v2/models/team/x.tar.gz/versions/1/generate", &[], r#"{"INPUT0":1}"#).await;
    assert_eq!(reply.text(), r#"{"OUTPUT0":1.0,"model_name":"team/x.tar.gz","model_version":"1"}"#);
    assert_eq!(reply.header("x-panoply-cache"), "store");
}

#[tokio::test]
async fn failures_of_generate() {
    let server = start().await;
    let not_one = "generate expects model to produce exactly 1 response, use generate stream for model that";
    let cases = [
        ("identity", "[1]", 400, "expected the request as a JSON object"),
        ("identity", r#"{"INPUT0":"a"}"#, 400, "input 'INPUT0': expected a number"),
        ("identity", r#"{"OTHER":[1]}"#, 400, "parameter 'OTHER' has invalid type"),
        ("nope", "{}", 404, "Request for unknown model: 'nope' is not found"),
        ("repeat", r#"{"INPUT0":0}"#, 501, not_one),
        ("repeat", r#"{"INPUT0":2}"#, 501, not_one),
        ("repeat", r#"{"INPUT0":0,"then":"fail"}"#, 503, "no luck"),
        ("repeat", r#"{"INPUT0":1,"then":"fail"}"#, 503, "no luck"),
    ];
    for (model, body, status, text) in cases {
        for verb in ["generate", "generate_stream"] {
            if model == "repeat" && verb == "generate_stream" {
                continue;
            }
            let reply = server.post(&format!("/v2/models/{model}/{verb}"), &[], body).await;
            assert_eq!((reply.status, reply.header("content-type")), (status, "application/json"), "{model} {body}");
            assert!(reply.text().contains(text), "{model} {body}: {}", reply.text());
        }
    }
    let reply = server.post("/v2/models/repeat/generate", &[], r#"{"INPUT0":1}"#).await;
    assert_eq!(reply.text(), r#"{"OUTPUT0":0.0,"model_name":"repeat","model_version":"1"}"#);
}

#[tokio::test]
async fn events_until_the_model_has_said_all() {
    let server = start().await;
    let event =
        |number: u32| format!("data: {{\"OUTPUT0\":{number}.0,\"model_name\":\"repeat\",\"model_version\":\"1\"}}\n\n");
    let failed = "data: {\"error\":\"no luck with 'repeat'\"}\n\n";
    let panicked =
        "data: {\"error\":\"internal error: the request's handler panicked; the server's log has more\"}\n\n";
    let cases = [
        (r#"{"INPUT0":3}"#, 200, [event(0), event(1), event(2)].concat()),
        (r#"{"INPUT0":0}"#, 200, String::new()),
        (r#"{"INPUT0":1,"then":"fail"}"#, 200, event(0) + failed),
        (r#"{"INPUT0":0,"then":"fail"}"#, 503, failed.to_owned()),
        (r#"{"INPUT0":1,"then":"panic"}"#, 200, event(0) + panicked),
        (r#"{"INPUT0":0,"then":"panic"}"#, 500, panicked.to_owned()),
    ];
    for (body, status, events) in cases {
        let reply = server.post(REPEAT, &[], body).await;
        assert_eq!((reply.status, reply.text()), (status, events), "{body}");
        assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!(reply.header("retry-after").is_empty(), status != 503);
    }
    // A model that answers once needs no stream behind it.
    let reply = server.post("/v2/models/identity/generate_stream", &[], r#"{"INPUT0":[1,2]}"#).await;
    assert_eq!(reply.text(), "data: {\"OUTPUT0\":[1.0,2.0],\"model_name\":\"identity\",\"model_version\":\"1\"}\n\n");
}

#[tokio::test]
async fn every_event_is_bounded() {
    let config = FrontendConfig { max_response_size: 40, ..FrontendConfig::default() };
    let server = start_with(config, ServeConfig::default()).await;
    let reply = server.post(REPEAT, &[], r#"{"INPUT0":3}"#).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("the 40 bytes that --max-response-size allows"), "{}", reply.text());
}

async fn post_raw(server: &Running, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.http).await.expect("connects");
    let head = format!("POST {REPEAT} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.expect("writes");
    stream
}

#[tokio::test]
async fn events_come_at_once_and_a_client_that_goes_away_cancels() {
    let admission = Admission::new(1, 1 << 30);
    let server = start_admitting(admission, FrontendConfig::default(), ServeConfig::default()).await;
    let mut stream = post_raw(&server, r#"{"INPUT0":2,"then":"wait"}"#).await;
    let mut text = String::new();
    while text.matches("data: ").count() < 2 {
        let mut buffer = [0; 1000];
        let read = stream.read(&mut buffer).await.expect("readable");
        assert!(read > 0, "{text}");
        text += &String::from_utf8_lossy(&buffer[..read]);
    }
    assert_eq!(server.post(REPEAT, &[], r#"{"INPUT0":1}"#).await.status, 503, "the stream counts as a request");
    drop(stream);
    until(|| server.fake.abandoned.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    assert_eq!(server.post(REPEAT, &[], r#"{"INPUT0":1}"#).await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_events_is_cut_off() {
    let serve = ServeConfig { write_timeout: Duration::from_millis(400), ..ServeConfig::default() };
    let server = start_admitting(Admission::new(1, 1 << 30), FrontendConfig::default(), serve).await;
    let stream = post_raw(&server, r#"{"INPUT0":4000000000}"#).await;
    server.fake.wait_for_requests(1).await;
    assert_eq!(server.post(REPEAT, &[], r#"{"INPUT0":1}"#).await.status, 503);
    let began = std::time::Instant::now();
    while server.post(REPEAT, &[], r#"{"INPUT0":1}"#).await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "the stream goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(stream);
}
