//! `LogSettings`.

use inference::Result;
use protocol::grpc_service::log_settings_request::setting_value::ParameterChoice as Asked;
use protocol::grpc_service::log_settings_response::SettingValue;
use protocol::grpc_service::log_settings_response::setting_value::ParameterChoice as Told;
use protocol::grpc_service::{LogSettingsRequest, LogSettingsResponse};

use crate::logging::{self, LogControl, LogSettings, Value, Wording};

/// Changes what the request names, and tells what the log is like then.
pub(super) fn settings(log: &dyn LogControl, request: LogSettingsRequest) -> Result<LogSettingsResponse> {
    let asked = request.settings.into_iter().map(|(name, value)| {
        let value = match value.parameter_choice {
            Some(Asked::BoolParam(value)) => Value::Bool(value),
            Some(Asked::Uint32Param(value)) => Value::Unsigned(value),
            Some(Asked::StringParam(value)) => Value::String(value),
            None => Value::Other,
        };
        (name, value)
    });
    log.change(logging::change(asked, &Wording::Grpc)?);
    let LogSettings { info, warning, error, verbose_level, time } = log.settings();
    let told = [
        // The log goes to standard error.
        ("log_file", Told::StringParam(String::new())),
        ("log_info", Told::BoolParam(info)),
        ("log_warning", Told::BoolParam(warning)),
        ("log_error", Told::BoolParam(error)),
        ("log_verbose_level", Told::Uint32Param(verbose_level)),
        ("log_format", Told::StringParam(time.name().to_owned())),
    ];
    let settings = told.map(|(name, value)| (name.to_owned(), SettingValue { parameter_choice: Some(value) }));
    Ok(LogSettingsResponse { settings: settings.into() })
}
