//! What a call that takes exactly one answer says when it meets a decoupled model, in Triton's words for each API.

use inference::{Error, ErrorKind, ModelKey};

use crate::App;

/// The calls' names for themselves.
pub(crate) const HTTP: &str = "HTTP end point";
pub(crate) const GRPC: &str = "ModelInfer RPC";

/// The error that `call` tells, where a model refused it for being decoupled.
pub(crate) fn explain(app: &App, key: &ModelKey, call: &str, error: Error) -> Error {
    if error.kind() != ErrorKind::Unsupported || app.services.control.is_decoupled(key) != Some(true) {
        return error;
    }
    let message = format!(
        "{call} doesn't support models with decoupled transaction policy; use ModelStreamInfer of gRPC or generate_stream of \
         HTTP"
    );
    let model = error.model().unwrap_or_default().to_owned();
    let explained = Error::unsupported(message).with_model(model);
    match error.version() {
        Some(version) => explained.with_version(version),
        None => explained,
    }
}
