//! Restricted APIs and the log's settings, with Triton's own clients against the real log.

use e2e::{FolderStore, Store, echo, python};

use crate::ask_echo;

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_shows_its_keys() {
    let store = FolderStore::new();
    store.put("echo.tar.gz", &echo());
    let launch = store
        .launch()
        .flag("--http-restricted-api=inference,model-config:infer-key=open sesame")
        .flag("--http-restricted-api=logging:admin-key=a=b")
        .flag("--grpc-restricted-protocol=inference:infer-key=open sesame");
    let server = launch.start().await;
    let output = python("triton_restricted.py", &[&server.address(), &server.grpc_address()]).await;
    assert_eq!(output.trim_end(), "all right");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_changes_the_log() {
    let store = FolderStore::new();
    for name in ["a.tar.gz", "b.tar.gz", "c.tar.gz", "d.tar.gz"] {
        store.put(name, &echo());
    }
    let server = store.launch().start().await;
    let change = async |protocol: &str, settings: &str| {
        let address = if protocol == "http" { server.address() } else { server.grpc_address() };
        let output = python("triton_logging.py", &[protocol, &address, settings]).await;
        assert_eq!(output.trim_end(), "all right");
    };
    ask_echo(&server, "a.tar.gz", &[1.0]).await.ok();
    assert_eq!((server.log_lines_with(&["loaded", "a.tar.gz"]), server.log_lines_with(&["DEBUG"])), (1, 0));
    change("http", r#"{"log_info": false}"#).await;
    ask_echo(&server, "b.tar.gz", &[1.0]).await.ok();
    assert_eq!(server.log_lines_with(&["b.tar.gz"]), 0);
    change("grpc", r#"{"log_info": true, "log_verbose_level": 1, "log_format": "ISO8601"}"#).await;
    ask_echo(&server, "c.tar.gz", &[1.0]).await.ok();
    ask_echo(&server, "nope.tar.gz", &[1.0]).await;
    assert!(
        server.log_lines_with(&["loaded", "c.tar.gz"]) == 1 && server.log_lines_with(&["DEBUG", "nope.tar.gz"]) > 0
    );
    change("grpc", r#"{"log_verbose_level": 0, "log_format": "default"}"#).await;
    let before = server.log_lines_with(&["DEBUG"]);
    ask_echo(&server, "nope2.tar.gz", &[1.0]).await;
    assert_eq!(server.log_lines_with(&["DEBUG"]), before);
    server.stop().await;
}
