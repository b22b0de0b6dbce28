//! Loading and unloading by name, as Triton's clients ask for it.

use frontend::{Admission, FrontendConfig, ServeConfig};

use crate::fake::{start, start_admitting};

#[tokio::test]
async fn models_are_loaded_and_unloaded_by_name() {
    let server = start().await;
    let load = r#"{"parameters":{"config":"{}","file:1/model.onnx":"AQID"}}"#;
    let cases = [
        ("/v2/repository/models/m/load", ""),
        ("/v2/repository/models/team/x.tar.gz/load", "{}"),
        ("/v2/repository/models/team%2Fx.tar.gz/load", load),
        ("/v2/repository/models/m/unload", ""),
        ("/v2/repository/models/team/x.tar.gz/unload", r#"{"parameters":{"unload_dependents":true}}"#),
    ];
    for (path, body) in cases {
        let reply = server.post(path, &[], body.to_owned()).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, ""), "{path}");
        assert_eq!(reply.header("content-type"), "application/json", "{path}");
    }
    let calls = server.fake.control_calls.lock().expect("not poisoned").clone();
    let names: Vec<_> =
        calls.iter().map(|(name, given, dependents)| (name.as_str(), given.is_some(), *dependents)).collect();
    let target = "team/x.tar.gz";
    let expected =
        [("m", true, false), (target, true, false), (target, true, false), ("m", false, false), (target, false, true)];
    assert_eq!(names, expected);
    let given = calls[2].1.as_ref().expect("a load");
    assert_eq!((given.config.as_deref(), &given.files["1/model.onnx"][..]), (Some("{}"), &[1, 2, 3][..]));
    assert!(calls[0].1.as_ref().expect("a load").is_empty());
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told_in_tritons_words() {
    let server = start().await;
    let cases = [
        ("/v2/repository/models/nope/load", "{}", 404, "failed to load 'nope', failed to poll from model repository"),
        ("/v2/repository/models/m/load", "{", 400, "expected a member's name in quotes"),
        ("/v2/repository/models/m/load", r#"{"parameters":{"x":"y"}}"#, 400, "unrecognized load parameter 'x'"),
        ("/v2/repository/models/m/unload", r#"{"parameters":{"x":"y"}}"#, 400, "unrecognized unload parameter 'x'"),
        ("/v2/repository/here/index", "", 501, "'repository_name' specification is not supported"),
        ("/v2/repository/here/models/m/load", "", 501, "'repository_name' specification is not supported"),
        ("/v2/repository/models/m/reload", "", 404, "Not Found"),
    ];
    for (path, body, status, part) in cases {
        let reply = server.post(path, &[], body.to_owned()).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        assert!(
            reply.json()["error"].as_str().is_some_and(|error| error.starts_with(part)),
            "{path}: {}",
            reply.text()
        );
    }
    assert_eq!(server.get("/v2/repository/models/m/load").await.status, 405);
}

#[tokio::test]
async fn what_a_large_load_takes_is_counted_and_given_back() {
    let admission = Admission::new(10, 6 << 20);
    let server = start_admitting(admission, FrontendConfig::default(), ServeConfig::default()).await;
    let load = |length: usize| format!(r#"{{"parameters":{{"file:1/x":"{}"}}}}"#, "A".repeat(length));
    for _ in 0..3 {
        let reply = server.post("/v2/repository/models/m/load", &[], load(3 << 20)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        // Its text alone would fit.
        let reply = server.post("/v2/repository/models/m/load", &[], load(4 << 20)).await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains("--max-buffered-bytes"), "{}", reply.text());
    }
    let calls = server.fake.control_calls.lock().expect("not poisoned");
    let sizes: Vec<_> = calls.iter().map(|(_, given, _)| given.as_ref().expect("a load").files["1/x"].len()).collect();
    assert_eq!(sizes, [(3 << 20) / 4 * 3; 3]);
}
