//! The parameters of loading and unloading by name, and what is said about them, whichever wire format they came in.

use inference::Error;

/// The parameter that holds a configuration.
pub(crate) const CONFIG: &str = "config";
/// What the names of parameters begin with that hold files.
pub(crate) const FILE: &str = "file:";
/// The parameter that says whether a target model stays in memory until it is unloaded by name.
pub(crate) const PIN: &str = "panoply_pin";
/// The parameter of an unload that takes composing models along.
pub(crate) const UNLOAD_DEPENDENTS: &str = "unload_dependents";

/// Triton's own answer: no server of it has ever known repositories by name.
pub(crate) fn in_repository() -> Error {
    Error::unsupported("'repository_name' specification is not supported")
}

/// A parameter of a load or an unload that is not of its type.
pub(crate) fn wrong_type(name: &str, expected: &str, found: &str) -> Error {
    Error::invalid_argument(format!("the parameter '{name}' must be {expected}, found {found}"))
}

/// A parameter that a load does not know.
pub(crate) fn unknown_load_parameter(name: &str) -> Error {
    Error::invalid_argument(format!(
        "unrecognized load parameter '{name}'; known are '{CONFIG}', '{FILE}<path>' and '{PIN}'"
    ))
}

/// A parameter that an unload does not know.
pub(crate) fn unknown_unload_parameter(name: &str) -> Error {
    Error::invalid_argument(format!("unrecognized unload parameter '{name}'; known is '{UNLOAD_DEPENDENTS}'"))
}
