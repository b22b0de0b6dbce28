//! `TraceSetting`.

use inference::Result;
use protocol::grpc_service::trace_setting_response::SettingValue;
use protocol::grpc_service::{TraceSettingRequest, TraceSettingResponse};

use crate::trace::{TraceEdit, Tracing, Value};

/// Changes the settings that the message names, and tells all of them.
///
/// # Errors
/// InvalidArgument, Unsupported, Overloaded.
pub(super) fn setting(tracing: &Tracing, request: TraceSettingRequest) -> Result<TraceSettingResponse> {
    let mut edit = TraceEdit::default();
    for (name, values) in &request.settings {
        edit.add(name, &values.value)?;
    }
    let settings = match request.settings.is_empty() {
        true => tracing.settings(&request.model_name),
        false => tracing.update(&request.model_name, &edit)?,
    };
    let value = |value| match value {
        Value::One(value) => SettingValue { value: vec![value] },
        Value::List(value) => SettingValue { value },
    };
    Ok(TraceSettingResponse { settings: settings.into_iter().map(|(name, one)| (name, value(one))).collect() })
}
