//! Restricted APIs, forwarded headers, and the log's settings.

use frontend::{FrontendConfig, HeaderForward, Restrictions, ServeConfig};
use inference::Parameter;
use serde_json::json;

use super::fake::{request, start, start_with};

#[tokio::test]
async fn a_restricted_api_wants_its_header_on_every_route() {
    let groups = "health,metadata,inference,shared-memory,model-config,model-repository,statistics,trace,logging";
    let rules = [format!("{groups}:Panoply-Key=open sesame")];
    let http_restrictions = Restrictions::of_http(&rules).expect("valid");
    let config = FrontendConfig { http_restrictions, ..FrontendConfig::default() };
    let server = start_with(config, ServeConfig::default()).await;
    let routes = [
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/logging"),
        ("GET", "/v2/models/identity"),
        ("GET", "/v2/models/identity/versions/1"),
        ("GET", "/v2/models/identity/ready"),
        ("GET", "/v2/models/identity/config"),
        ("POST", "/v2/models/identity/infer"),
        ("POST", "/v2/models/identity/versions/1/generate"),
        ("POST", "/v2/models/team/x.tar.gz/infer"),
        ("POST", "/v2/models/identity/generate_stream"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/region/r/unregister"),
        ("POST", "/invocations"),
        ("POST", "/endpoints/e/invocations"),
        ("POST", "/endpoints/e/invocations-response-stream"),
    ];
    for (method, path) in routes {
        for headers in [&[][..], &[("panoply-key", "open")]] {
            let refused = server.call(server.http, method, path, headers, request(&[0.0; 20_000])).await;
            assert_eq!(refused.status, 403, "{path}: {}", refused.text());
            assert_eq!(refused.text(), r#"{"error":"This API is restricted, expecting header 'panoply-key'"}"#);
        }
        let key = [("Panoply-Key", "open sesame")];
        let reply = server.call(server.http, method, path, &key, request(&[1.0])).await;
        assert_ne!(reply.status, 403, "{path}");
    }
    assert_eq!(server.get("/nope").await.status, 404);
    let reply = server.call(server.sagemaker, "GET", "/ping", &[], "").await;
    assert_eq!(reply.status, 200, "the platform's own port is its own");
}

#[tokio::test]
async fn every_group_has_its_routes_and_no_others() {
    let routes = [
        ("health", "GET", "/v2/health/live"),
        ("health", "GET", "/v2/models/identity/versions/1/ready"),
        ("metadata", "GET", "/v2"),
        ("metadata", "GET", "/v2/models/identity"),
        ("inference", "POST", "/v2/models/identity/versions/1/infer"),
        ("inference", "POST", "/v2/models/identity/generate"),
        ("inference", "POST", "/endpoints/e/async-invocations"),
        ("shared-memory", "GET", "/v2/systemsharedmemory/status"),
        ("model-config", "GET", "/v2/models/identity/config"),
        ("model-repository", "POST", "/v2/repository/index"),
        ("model-repository", "POST", "/v2/repository/models/team/x.tar.gz/load"),
        ("statistics", "GET", "/v2/models/stats"),
        ("statistics", "GET", "/v2/models/identity/versions/1/stats"),
        ("trace", "GET", "/v2/trace/setting"),
        ("trace", "POST", "/v2/models/identity/trace/setting"),
        ("logging", "POST", "/v2/logging"),
    ];
    let mut groups = routes.map(|(group, ..)| group).to_vec();
    groups.dedup();
    assert_eq!(groups.len(), 9);
    for restricted in groups {
        let http_restrictions = Restrictions::of_http(&[format!("{restricted}:key=secret")]).expect("valid");
        let config = FrontendConfig { http_restrictions, ..FrontendConfig::default() };
        let server = start_with(config, ServeConfig::default()).await;
        for (group, method, path) in routes {
            let reply = server.call(server.http, method, path, &[], "{}").await;
            assert_eq!(reply.status == 403, group == restricted, "{path} without the key of {restricted}");
        }
    }
}

#[tokio::test]
async fn headers_become_parameters() {
    let http_header_forward = Some(HeaderForward::new("x-user.*|timeout").expect("valid"));
    let config = FrontendConfig { http_header_forward, ..FrontendConfig::default() };
    let server = start_with(config, ServeConfig::default()).await;
    let headers = [("X-User-Id", "u7"), ("X-Users", "no"), ("timeout", "5"), ("x-other", "z")];
    let body = request(&[1.0]).replacen('{', r#"{"parameters":{"x-users":3},"#, 1);
    let generate = r#"{"INPUT0":1,"x-users":3}"#.to_owned();
    let target = [&headers[..], &[("x-amzn-sagemaker-target-model", "identity")]].concat();
    for (path, headers, body) in [
        ("/v2/models/identity/infer", &headers[..], body.clone()),
        ("/v2/models/identity/generate", &headers, generate.clone()),
        ("/v2/models/identity/generate_stream", &headers, generate),
        ("/endpoints/e/invocations-response-stream", &target, body),
    ] {
        assert_eq!(server.post(path, headers, body).await.status, 200, "{path}");
        let expected = [("x-user-id", Parameter::String("u7".to_owned())), ("x-users", Parameter::Int64(3))];
        let seen = server.fake.last_request().parameters;
        assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value)).into(), "{path}");
    }
}

#[tokio::test]
async fn the_logs_settings_as_triton_has_them() {
    let server = start().await;
    let first = r#"{"log_file":"","log_info":true,"log_warning":true,"log_error":true,"log_verbose_level":0,"log_format":"default"}"#;
    let reply = server.get("/v2/logging").await;
    assert_eq!((reply.text().as_str(), reply.header("content-type")), (first, "application/json"));
    let change = json!({"log_info": false, "log_verbose_level": 2, "log_format": "ISO8601", "log_file": null});
    let changed = server.post("/v2/logging", &[], change.to_string()).await.json();
    assert_eq!(changed["log_info"], false);
    assert_eq!((&changed["log_verbose_level"], &changed["log_format"]), (&json!(2), &json!("ISO8601")));
    for (change, status, text) in [
        (json!({"log_file": "x.log"}), 501, "log file location can not be updated through network protocol"),
        (json!({"log_warning": 1}), 400, "attempt to access JSON non-boolean as boolean"),
        (json!({"log_verbose_level": -1}), 400, "attempt to access JSON non-unsigned-integer as unsigned-integer"),
        (json!({"log_format": 3}), 400, "attempt to access JSON non-string as string"),
        (json!({"log_info": true, "log_format": "x"}), 400, "invalid argument for log_format, got: x"),
        (json!({"log_colour": true}), 400, "unknown log setting 'log_colour'"),
        (json!([]), 400, "not an object of log settings"),
    ] {
        let refused = server.post("/v2/logging", &[], change.to_string()).await;
        assert_eq!(refused.status, status, "{change}: {}", refused.text());
        assert!(refused.text().contains(text), "{change}: {}", refused.text());
    }
    assert_eq!(server.get("/v2/logging").await.json(), changed, "what was refused has changed nothing");
    assert_eq!(server.call(server.http, "PUT", "/v2/logging", &[], "").await.status, 405);
}
