//! Compressed bodies, both ways.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use frontend::{FrontendConfig, ServeConfig};

use super::fake::{Reply, request, start, start_with};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory takes it")
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory takes it")
}

/// The answer's body, out of the compression that its head names.
fn plain(reply: &Reply) -> Vec<u8> {
    let mut body = Vec::new();
    match reply.header("content-encoding") {
        "gzip" => GzDecoder::new(&reply.body[..]).read_to_end(&mut body),
        "deflate" => ZlibDecoder::new(&reply.body[..]).read_to_end(&mut body),
        _ => (&reply.body[..]).read_to_end(&mut body),
    }
    .expect("it is what its head says");
    body
}

#[tokio::test]
async fn every_surface_reads_and_writes_compressed_bodies() {
    let server = start().await;
    let body = request(&[0.5; 2000]);
    let target = ("X-Amzn-SageMaker-Target-Model", "x.tar.gz");
    for (address, path) in [
        (server.http, "/v2/models/identity/infer"),
        (server.http, "/invocations"),
        (server.http, "/endpoints/e/invocations"),
        (server.sagemaker, "/invocations"),
    ] {
        let expected = server.call(address, "POST", path, &[target], body.clone()).await;
        assert_eq!((expected.status, expected.header("content-encoding")), (200, ""), "{path}");
        for (name, compressed) in [("gzip", gzip(body.as_bytes())), ("deflate", deflate(body.as_bytes()))] {
            let headers = [target, ("content-encoding", name), ("accept-encoding", name)];
            let reply = server.call(address, "POST", path, &headers, compressed).await;
            assert_eq!((reply.status, reply.header("content-encoding")), (200, name), "{path}: {}", reply.text());
            assert!(reply.body.len() < expected.body.len() / 4, "{path}");
            assert_eq!(plain(&reply), expected.body, "{path} {name}");
        }
    }
}

#[tokio::test]
async fn binary_tensors_and_their_lengths_are_of_the_plain_body() {
    let server = start().await;
    let tensor = vec![7u8; 400_000];
    let json = r#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"INPUT0","shape":[1,100000],"datatype":"FP32","parameters":{"binary_data_size":400000}}]}"#;
    let length = json.len().to_string();
    let body = [json.as_bytes(), &tensor].concat();
    let headers = [
        ("Inference-Header-Content-Length", length.as_str()),
        ("content-encoding", "deflate"),
        ("accept-encoding", "gzip"),
    ];
    let reply = server.post("/v2/models/identity/infer", &headers, deflate(&body)).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, "gzip"), "{}", reply.text());
    let json_length: usize = reply.header("inference-header-content-length").parse().expect("a number");
    assert_eq!(plain(&reply)[json_length..], tensor);
    let given = server.fake.last_request().inputs[0].tensor.clone();
    assert_eq!(given.data().as_ptr().addr() % 64, 0, "aligned");
    super::fake::until(|| server.fake.unwritten() == 0).await;
}

#[tokio::test]
async fn what_gains_nothing_is_not_compressed() {
    let server = start().await;
    let accept = ("accept-encoding", "gzip");
    let reply = server.post("/v2/models/identity/infer", &[accept], request(&[1.0])).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, ""), "too small");
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let noise: Vec<u8> = noise.take(40_000).collect();
    let headers = [accept, ("Inference-Header-Content-Length", "0")];
    let reply = server.post("/v2/models/identity/infer", &headers, noise.clone()).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, ""), "it does not shrink");
    assert!(reply.body.ends_with(&noise));
}

#[tokio::test]
async fn what_cannot_be_decompressed_is_refused() {
    let config = FrontendConfig { max_request_size: 1 << 20, ..FrontendConfig::default() };
    let server = start_with(config, ServeConfig::default()).await;
    let whole = gzip(request(&[1.0; 500]).as_bytes());
    let cases = [
        ("br", whole.clone(), 415, "send gzip, deflate, or the body uncompressed"),
        ("gzip", whole[..whole.len() / 2].to_vec(), 400, "it ends too early"),
        ("gzip", request(&[1.0]).into_bytes(), 400, "the request's body is not in the encoding 'gzip'"),
        ("deflate", whole, 400, "the request's body is not in the encoding 'deflate'"),
        ("gzip", gzip(&vec![0; 256 << 20]), 413, "1048576 bytes that --max-request-size allows"),
    ];
    for (encoding, body, status, text) in cases {
        let reply = server.post("/v2/models/identity/infer", &[("content-encoding", encoding)], body).await;
        assert_eq!(reply.status, status, "{}", reply.text());
        assert!(reply.text().contains(text), "{}", reply.text());
        assert_eq!(reply.header("accept-encoding"), if status == 415 { "gzip, deflate" } else { "" });
    }
}
