//! The demo archives against references that share nothing with them.

use std::fs;

use e2e::{Answer, Launch, Server, infer, texts};
use http::Method;
use serde_json::Value;

fn prepared(path: &str) -> Vec<u8> {
    let file = test_util::artifacts().join(path);
    fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}

async fn serve() -> Server {
    Launch::folder(&test_util::artifacts().join("demo-store")).start().await
}

/// A set of the reference: its texts and their embeddings.
fn reference(set: &str) -> (Vec<String>, Vec<Vec<f64>>) {
    let reference: Value = serde_json::from_slice(&prepared("reference/minilm.json")).expect("JSON");
    let set = &reference["sets"][set];
    let texts = serde_json::from_value(set["texts"].clone()).expect("texts");
    (texts, serde_json::from_value(set["embeddings"].clone()).expect("embeddings"))
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Embeds both sets, each as one batch, and each text of the demo alone.
async fn embeddings_match(target: &str, least: f64) {
    let server = serve().await;
    for (set, count) in [("demo", 2), ("batch", 16)] {
        let (sentences, expected) = reference(set);
        assert_eq!((sentences.len(), expected.len()), (count, count));
        let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
        let whole = server.invoke(target, &infer(&[texts("TEXT", &sentences)])).await.ok();
        assert_eq!(whole.output("EMBEDDING")["shape"], serde_json::json!([count, 384]));
        let whole = whole.numbers("EMBEDDING");
        for (index, (text, expected)) in sentences.iter().zip(&expected).enumerate() {
            let got = &whole[index * 384..(index + 1) * 384];
            let similarity = cosine(got, expected);
            assert!(similarity >= least, "cosine {similarity} for {text:?} in the set '{set}'");
            let length: f64 = got.iter().map(|number| number * number).sum::<f64>().sqrt();
            assert!((length - 1.0).abs() < 1e-3, "{text:?} has length {length}");
            if set == "demo" {
                let alone = server.invoke(target, &infer(&[texts("TEXT", &[text])])).await.ok().numbers("EMBEDDING");
                let similarity = cosine(&alone, expected);
                assert!(similarity >= least, "cosine {similarity} for {text:?} alone");
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minilm_embeds_as_the_reference_does() {
    embeddings_match("minilm.tar.gz", 0.9999).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minilm_with_int8_weights_embeds_almost_as_the_reference_does() {
    embeddings_match("minilm-int8.tar.gz", 0.98).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mobilenet_sees_an_espresso() {
    let server = serve().await;
    let json_length = prepared("demo-requests/photo.json").len().to_string();
    let headers = [
        ("inference-header-content-length", json_length.as_str()),
        ("x-amzn-sagemaker-target-model", "mobilenet.tar.gz"),
    ];
    let body = prepared("demo-requests/photo.body");
    let answer: Answer = server.http().send(Method::POST, &server.url("/invocations"), &headers, body).await.ok();
    let classes = answer.strings("probabilities");
    assert_eq!(classes.len(), 5, "{classes:?}");
    let parsed: Vec<(f64, usize, &str)> = classes
        .iter()
        .map(|class| {
            let mut parts = class.splitn(3, ':');
            let mut next = || parts.next().unwrap_or_else(|| panic!("{class} is not probability:index:label"));
            (next().parse().expect("a probability"), next().parse().expect("an index"), next())
        })
        .collect();
    let (probability, index, label) = parsed[0];
    assert_eq!((index, label), (968, "espresso"), "{classes:?}");
    assert!(probability > 0.9, "{classes:?}");
    assert!(parsed.is_sorted_by(|a, b| a.0 >= b.0), "{classes:?}");
    assert!(parsed.iter().map(|class| class.0).sum::<f64>() <= 1.001, "{classes:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profanity_takes_strings() {
    let server = serve().await;
    let remarks = ["Thank you for your help!", "I like cats", "you are an idiot", "Grüße aus Köln 👋"];
    let answer = server.invoke("profanity.tar.gz", &infer(&[texts("text", &remarks)])).await.ok();
    assert_eq!(answer.numbers("label"), [0.0, 0.0, 1.0, 0.0]);
    assert_eq!(answer.output("label")["shape"], serde_json::json!([4, 1]), "reshape gives the dimension back");
    let probabilities = answer.numbers("probabilities");
    for (pair, offensive) in probabilities.chunks(2).zip([false, false, true, false]) {
        assert!((pair[0] + pair[1] - 1.0).abs() < 1e-5, "{probabilities:?}");
        assert_eq!(pair[1] > 0.5, offensive, "{probabilities:?}");
    }
    server.stop().await;
}
