//! `backend` and `platform`: two names for what runs a model, of which either is enough.

use inference::ModelSpec;

/// Triton's platform names, and the backend that each stands for.
const PLATFORMS: [(&str, &str); 9] = [
    ("onnxruntime_onnx", "onnxruntime"),
    ("ensemble", ModelSpec::ENSEMBLE),
    ("tensorflow_graphdef", "tensorflow"),
    ("tensorflow_savedmodel", "tensorflow"),
    ("pytorch_libtorch", "pytorch"),
    ("pytorch_python", "pytorch"),
    ("tensorrt_plan", "tensorrt"),
    ("openvino_model", "openvino"),
    ("python", "python"),
];

/// The model file that each platform has by default: what tells them apart where a configuration names neither.
const FILES: [(&str, &str); 5] = [
    ("model.onnx", "onnxruntime_onnx"),
    ("model.graphdef", "tensorflow_graphdef"),
    ("model.savedmodel", "tensorflow_savedmodel"),
    ("model.plan", "tensorrt_plan"),
    ("model.py", "python"),
];

/// Backends whose models may consist of a configuration alone.
const WITHOUT_FILES: [&str; 4] = [ModelSpec::ENSEMBLE, "identity", "tokenizer", "pooling"];

/// What runs a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Platform {
    pub(super) backend: String,
    pub(super) platform: String,
}

/// Decides from what the configuration says and, where it says nothing, from whether it is an ensemble and from the names
/// of the files in its version directories. The error is a field and what is wrong with it.
pub(super) fn resolve(
    (backend, platform): (&str, &str),
    is_ensemble: bool,
    files: &[String],
) -> Result<Platform, (&'static str, String)> {
    let of_platform = backend_of(platform);
    match (backend, platform) {
        ("", "") if is_ensemble => Ok(named(ModelSpec::ENSEMBLE, "ensemble")),
        ("", "") => {
            let known =
                |(file, platform): &(&str, &'static str)| files.iter().any(|name| name == file).then_some(*platform);
            let platform = FILES.iter().find_map(known).ok_or_else(|| {
                let message = "`backend` is missing, and no version directory holds a file that tells it";
                ("backend", message.to_owned())
            })?;
            Ok(named(backend_of(platform).unwrap_or(platform), platform))
        }
        ("", platform) => Ok(named(of_platform.unwrap_or(platform), platform)),
        (backend, "") => Ok(named(backend, platform_of(backend, files).unwrap_or(backend))),
        (backend, platform) if of_platform.is_some_and(|other| other != backend) => {
            let other = of_platform.unwrap_or_default();
            Err((
                "platform",
                format!("`platform` \"{platform}\" means backend \"{other}\", but `backend` is \"{backend}\""),
            ))
        }
        (backend, platform) => Ok(named(backend, platform)),
    }
}

/// Stands for a platform that could not be resolved.
pub(super) fn unresolved(is_ensemble: bool) -> Platform {
    let name = if is_ensemble { ModelSpec::ENSEMBLE } else { "" };
    named(name, name)
}

/// Whether a model of this backend may do without a version directory.
pub(super) fn needs_no_file(backend: &str) -> bool {
    WITHOUT_FILES.contains(&backend)
}

fn named(backend: &str, platform: &str) -> Platform {
    Platform { backend: backend.to_owned(), platform: platform.to_owned() }
}

fn backend_of(platform: &str) -> Option<&'static str> {
    PLATFORMS.iter().find(|(name, _)| *name == platform).map(|(_, backend)| *backend)
}

/// The platform of a backend: the only one, or else the one whose file is there.
fn platform_of(backend: &str, files: &[String]) -> Option<&'static str> {
    let platforms: Vec<_> = PLATFORMS.iter().filter(|(_, other)| *other == backend).map(|(name, _)| *name).collect();
    match platforms[..] {
        [only] => Some(only),
        _ => {
            let there = |(file, platform): &&(&str, &str)| {
                platforms.contains(platform) && files.iter().any(|name| name == file)
            };
            FILES.iter().find(there).map(|(_, platform)| *platform)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_name_gives_the_other() {
        let cases = [
            (("onnxruntime", ""), false, "", "onnxruntime onnxruntime_onnx"),
            (("", "onnxruntime_onnx"), false, "", "onnxruntime onnxruntime_onnx"),
            (("", "ensemble"), true, "", "ensemble ensemble"),
            (("", ""), true, "model.onnx", "ensemble ensemble"),
            (("", ""), false, "model.onnx", "onnxruntime onnxruntime_onnx"),
            (("", ""), false, "model.py", "python python"),
            (("tensorflow", ""), false, "model.savedmodel", "tensorflow tensorflow_savedmodel"),
            (("tensorflow", ""), false, "other", "tensorflow tensorflow"),
            (("", "custom"), false, "", "custom custom"),
            (("identity", ""), false, "", "identity identity"),
            (("pytorch", "torch_aoti"), false, "", "pytorch torch_aoti"),
        ];
        for (names, is_ensemble, file, expected) in cases {
            let platform = resolve(names, is_ensemble, &[file.to_owned()]).expect("known");
            assert_eq!(format!("{} {}", platform.backend, platform.platform), expected, "{names:?} {file}");
        }
    }

    #[test]
    fn contradictions_and_nothing_at_all_are_refused() {
        let (field, message) = resolve(("python", "onnxruntime_onnx"), false, &[]).expect_err("contradiction");
        assert_eq!((field, message.contains("means backend \"onnxruntime\"")), ("platform", true), "{message}");
        assert_eq!(resolve(("", ""), false, &["readme.md".to_owned()]).expect_err("nothing").0, "backend");
    }
}
