//! What copies of a model cost whose weights stay in their file. Alone in its file: it measures the process.

mod fixture;

use fixture::{artifact_in, backend, configured, execute, load, request};
use inference::{Backend, LoadedModel, ModelArtifact, ModelSpec, NamedTensor, Shape, Tensor, Weights};

/// Bytes of memory that the process has for itself.
fn private() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("Linux").lines().count()
}

/// Loads copies that have all answered, and what memory of its own the process takes for them.
fn copies(artifact: &ModelArtifact, count: usize, weights: Weights) -> (Vec<LoadedModel>, u64) {
    let artifact = configured(artifact, |spec| spec.weights = Some(weights));
    let before = private();
    let mut models: Vec<LoadedModel> = (0..count).map(|_| load(&artifact)).collect();
    models.iter_mut().for_each(run);
    (models, private().saturating_sub(before))
}

fn run(model: &mut LoadedModel) {
    let ids = |name: &str| {
        let ids = Tensor::from_vec(Shape::new(&[1, 8]), vec![1i64; 8]).expect("valid");
        NamedTensor::new(name, ids)
    };
    let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(ids).to_vec();
    execute(model, request(inputs)).expect("runs");
}

#[test]
fn twenty_mapped_copies_cost_less_than_two_private_ones() {
    let folder = test_util::artifacts().join("model_repository/minilm/encoder/1");
    let artifact = artifact_in(folder, ModelSpec::new("encoder", "onnxruntime"));
    let spec = backend().complete(&artifact).expect("complete");
    let artifact = ModelArtifact { spec: spec.into(), ..artifact };
    // What a first load and run take once does not count.
    drop(copies(&artifact, 1, Weights::Mapped));

    let maps = mappings();
    let (mapped, of_mapped) = copies(&artifact, 20, Weights::Mapped);
    // The kernel bounds how many there may be, so a model must not take one for each of its weights.
    let maps = mappings() - maps;
    assert!(maps < 20 * 10, "{maps} mappings");
    let (_private, of_private) = copies(&artifact, 2, Weights::Private);
    assert!(of_mapped < of_private, "20 mapped copies take {of_mapped} bytes, 2 private ones {of_private}");

    // What they are said to take, which a budget goes by, is no less and far from what private ones take.
    let said: u64 = mapped.iter().flat_map(|model| model.memory.iter()).map(|(_, bytes)| bytes).sum();
    assert!(said >= of_mapped && said < of_private / 2, "{said} bytes are said, {of_mapped} are taken");
}
