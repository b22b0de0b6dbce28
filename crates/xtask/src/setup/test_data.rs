//! What only the tests need: client libraries, reference figures, small test models, ONNX's own node tests.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{
    Setup,
    archives::{MINILM_FILES, script},
    key::Key,
    packages::MINILM,
};
use crate::{process, workspace};

/// Folders made by a script that a crate's tests bring along: (product, script), called with the output folder.
const GENERATED: [(&str, &str); 2] = [
    ("test-models", "crates/backend-onnxruntime/tests/make_models.py"),
    ("onnx-node-tests", "crates/backend-onnxruntime/tests/prepare_node_tests.py"),
];

/// Makes all of it.
pub(super) fn make_all(setup: &Setup) -> Result<()> {
    let python = setup.environment("venv", "test")?;
    make_reference(setup, &python)?;
    for (product, path) in GENERATED {
        let generator = workspace::root().join(path);
        let key = Key::new().file(&workspace::python("requirements/test.txt"))?.file(&generator)?;
        setup.bench.make(product, &key, |site| {
            fs::create_dir(&site.out)?;
            process::capture(Command::new(&python).arg("-B").arg(&generator).arg(&site.out)).map(drop)
        })?;
    }
    Ok(())
}

/// `reference/minilm.json`: the embeddings as numpy computes them from the package's weights.
fn make_reference(setup: &Setup, python: &Path) -> Result<()> {
    let mut key = Key::new().package(&MINILM).file(&workspace::python("requirements/test.txt"))?;
    for file in ["minilm_reference.py", "safetensors_file.py", "wordpiece.py", "reference_texts.json"] {
        key = key.file(&workspace::python(file))?;
    }
    setup.bench.make("reference", &key, |site| {
        setup.extract(&MINILM, MINILM_FILES, &site.scratch)?;
        fs::create_dir(&site.out)?;
        script(python, "minilm_reference.py", &[&site.scratch, &site.out.join("minilm.json")])
    })
}
