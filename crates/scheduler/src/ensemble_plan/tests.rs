//! Plans and their problems, as a table of edits to an ensemble that is right.

use std::collections::BTreeMap;

use inference::{DataType, EnsembleSpec, InputSpec, ModelSpec, OutputSpec, Shape, StepSpec};

use super::*;

fn input(name: &str, datatype: DataType, dims: &[i64]) -> InputSpec {
    InputSpec { name: name.into(), datatype, dims: Shape::new(dims), reshape: None, optional: false }
}

fn output(name: &str, datatype: DataType, dims: &[i64]) -> OutputSpec {
    OutputSpec { name: name.into(), datatype, dims: Shape::new(dims), reshape: None, label_filename: None }
}

fn model(name: &str, inputs: Vec<InputSpec>, outputs: Vec<OutputSpec>) -> ModelSpec {
    ModelSpec { max_batch_size: 8, inputs, outputs, ..ModelSpec::new(name, "identity") }
}

fn step(model: &str, inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> StepSpec {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    StepSpec { model: model.into(), version: None, inputs: map(inputs), outputs: map(outputs) }
}

/// An ensemble and what is beside it.
struct Repository {
    ensemble: ModelSpec,
    models: BTreeMap<String, ModelSpec>,
}

impl Repository {
    /// `text` → tokenize → ids, mask → encode → hidden; pool(hidden, mask) → `vector`.
    fn right() -> Self {
        let mut ensemble =
            model("e", vec![input("text", DataType::Bytes, &[1])], vec![output("vector", DataType::Fp32, &[4])]);
        ensemble.ensemble = Some(EnsembleSpec::new(vec![
            step("pool", &[("h", "hidden"), ("m", "mask")], &[("v", "vector")]),
            step("encode", &[("i", "ids"), ("m", "mask")], &[("h", "hidden")]),
            step("tokenize", &[("t", "text")], &[("i", "ids"), ("m", "mask")]),
        ]));
        let (int, float) = (DataType::Int64, DataType::Fp32);
        let models = [
            model(
                "tokenize",
                vec![input("t", DataType::Bytes, &[1])],
                vec![output("i", int, &[-1]), output("m", int, &[-1])],
            ),
            model("encode", vec![input("i", int, &[-1]), input("m", int, &[-1])], vec![output("h", float, &[-1, 4])]),
            model("pool", vec![input("h", float, &[-1, 4]), input("m", int, &[-1])], vec![output("v", float, &[4])]),
        ];
        let models = models.into_iter().map(|model| (model.name.to_string(), model)).collect();
        Repository { ensemble, models }
    }

    fn steps(&mut self) -> &mut Vec<StepSpec> {
        &mut self.ensemble.ensemble.as_mut().expect("an ensemble").steps
    }

    fn model(&mut self, name: &str) -> &mut ModelSpec {
        self.models.get_mut(name).expect("a model of the table")
    }

    fn plan(&self) -> Result<EnsemblePlan, Vec<PlanProblem>> {
        plan(&self.ensemble, |name, version| {
            self.models.get(name).filter(|_| version.is_none_or(|version| version == 1))
        })
    }

    /// `path: message` of each problem.
    fn problems(&self) -> Vec<String> {
        let problems = self.plan().err().unwrap_or_default();
        problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }
}

/// An edit, and for each problem that it makes the begin of a line that tells it.
type Case<'a> = (fn(&mut Repository), &'a [&'a str]);

fn check(cases: &[Case<'_>]) {
    for (number, (edit, expected)) in cases.iter().enumerate() {
        let mut repository = Repository::right();
        edit(&mut repository);
        let got = repository.problems();
        let as_expected =
            got.len() == expected.len() && got.iter().zip(*expected).all(|(got, want)| got.starts_with(want));
        assert!(as_expected, "case {number}: got {got:#?}\nexpected {expected:#?}");
    }
}

#[test]
fn models_that_cannot_be_steps() {
    check(&[
        (|_| {}, &[]),
        (
            |r| drop(r.models.remove("encode")),
            &["ensemble_scheduling.step[1].model_name: there is no model 'encode' beside ensemble 'e'"],
        ),
        (
            |r| r.steps()[1].version = Some(7),
            &["ensemble_scheduling.step[1].model_version: model 'encode' has no version 7"],
        ),
        (|r| r.steps()[1].version = Some(1), &[]),
        (
            |r| r.steps()[1].model = "e".into(),
            &["ensemble_scheduling.step[1].model_name: ensemble 'e' cannot be a step of itself"],
        ),
        (
            |r| r.model("encode").ensemble = Some(EnsembleSpec::new(vec![step("e", &[], &[])])),
            &[
                "ensemble_scheduling.step[1].model_name: ensemble 'e' cannot be a step of itself, but 'encode' leads back",
            ],
        ),
        (
            |r| {
                r.steps().clear();
                r.ensemble.inputs.clear();
                r.ensemble.outputs.clear();
            },
            &["ensemble_scheduling: an ensemble needs at least one step"],
        ),
        (|r| r.ensemble.max_batch_size = 9, &["max_batch_size: the ensemble allows batches of 9"; 3]),
        (
            |r| r.ensemble.inputs[0].reshape = Some(Shape::from([])),
            &["input[0].reshape: an ensemble cannot have 'reshape'"],
        ),
    ]);
}

#[test]
fn tensors_that_are_wired_wrongly() {
    check(&[
        (
            |r| drop(r.steps()[2].inputs.insert("x".into(), "text".into())),
            &[
                "ensemble_scheduling.step[2].input_map[\"x\"]: model 'tokenize' has no input 'x'; its inputs are [\"t\"]",
            ],
        ),
        (
            |r| drop(r.steps()[2].outputs.insert("x".into(), "more".into())),
            &["ensemble_scheduling.step[2].output_map[\"x\"]: model 'tokenize' has no output 'x'"],
        ),
        (
            |r| drop(r.steps()[1].inputs.remove("m")),
            &["ensemble_scheduling.step[1].input_map: required input 'm' of model 'encode' is not mapped"],
        ),
        (
            |r| drop(r.steps()[1].inputs.insert("m".into(), "musk".into())),
            &["ensemble_scheduling.step[1].input_map[\"m\"]: tensor 'musk' is neither an input of the ensemble nor"],
        ),
        (
            |r| r.ensemble.outputs.push(output("more", DataType::Fp32, &[1])),
            &["output[1]: tensor 'more' is neither an input of the ensemble nor an output"],
        ),
        (
            |r| r.ensemble.inputs.push(input("more", DataType::Fp32, &[1])),
            &["input[1]: no step uses the ensemble's input 'more'"],
        ),
        (
            |r| drop(r.steps()[2].outputs.insert("i".into(), "mask".into())),
            &[
                "ensemble_scheduling.step[1].input_map[\"i\"]: tensor 'ids' is neither",
                "ensemble_scheduling.step[2].output_map[\"m\"]: tensor 'mask' is made twice; 'i' of model 'tokenize' (step 2)",
            ],
        ),
        (
            |r| {
                let mut copy = r.steps()[1].clone();
                copy.outputs = [("h".into(), "unused".into())].into();
                r.steps().push(copy);
            },
            &["ensemble_scheduling.step[3]: no step and no output of the ensemble uses an output of this step"],
        ),
        (
            |r| drop(r.steps()[2].inputs.insert("t".into(), "hidden".into())),
            &[
                "ensemble_scheduling.step[2].input_map[\"t\"]: tensor 'hidden' is FP32 from 'h' of model 'encode' (step 1), but BYTES",
                "ensemble_scheduling.step[2].input_map[\"t\"]: tensor 'hidden' has shape [-1,-1,4]",
                "input[0]: no step uses the ensemble's input 'text'",
                "ensemble_scheduling.step[2]: the steps wait for each other: step 2 ('tokenize') -> step 1 ('encode') -> step 2",
            ],
        ),
    ]);
}

#[test]
fn types_shapes_and_optional_inputs() {
    check(&[
        (
            |r| r.model("encode").inputs[0].datatype = DataType::Int32,
            &[
                "ensemble_scheduling.step[1].input_map[\"i\"]: tensor 'ids' is INT64 from 'i' of model 'tokenize' (step 2), but INT32 in",
            ],
        ),
        (
            |r| r.ensemble.outputs[0].dims = Shape::from([5]),
            &["output[0]: tensor 'vector' has shape [-1,4] from 'v' of model 'pool'"],
        ),
        (|r| r.ensemble.outputs[0].dims = Shape::from([-1]), &[]),
        // A model that does not batch sees the batch dimension as one of its own.
        (
            |r| {
                r.model("encode").max_batch_size = 0;
                r.model("encode").inputs.iter_mut().for_each(|input| input.dims = Shape::from([-1, -1]));
                r.model("encode").outputs[0].dims = Shape::from([-1, -1, 4]);
            },
            &[],
        ),
        (
            |r| {
                r.model("encode").max_batch_size = 0;
                r.model("encode").outputs[0].dims = Shape::from([-1, -1, 5]);
            },
            &["ensemble_scheduling.step[0].input_map[\"h\"]: tensor 'hidden' has shape [-1,-1,5]"],
        ),
        (|r| r.ensemble.max_batch_size = 0, &[]),
        (
            |r| r.ensemble.inputs[0].optional = true,
            &["ensemble_scheduling.step[2].input_map[\"t\"]: the ensemble's input 'text' is optional, but"],
        ),
        (
            |r| {
                r.ensemble.inputs[0].optional = true;
                r.model("tokenize").inputs[0].optional = true;
            },
            &[],
        ),
        (
            |r| {
                r.model("encode").inputs[1].optional = true;
                r.steps()[1].inputs.remove("m");
            },
            &[],
        ),
    ]);
}

#[test]
fn only_what_the_wanted_outputs_need_is_demanded() {
    let mut repository = Repository::right();
    repository.ensemble.outputs.push(output("ids", DataType::Int64, &[-1]));
    let plan = repository.plan().expect("right");
    assert_eq!(plan.everything.steps, [true, true, true]);
    let demand = Demand::of(&plan, |name| name == "ids");
    assert_eq!(demand.steps, [false, false, true]);
    let outputs: Vec<&str> = demand.outputs.iter().flatten().map(|name| &**name).collect();
    assert_eq!(outputs, ["i"], "the mask is not asked for");
}

#[test]
fn shapes_are_fitted_across_batching_and_not_batching() {
    let declared =
        |batches, dims: &[i64]| Declared { datatype: DataType::Fp32, dims: Shape::new(dims), batches, optional: false };
    let fit = |declared: Declared, actual: &[i64]| declared.fit(&Shape::new(actual)).map(|shape| shape.to_vec());
    assert_eq!(fit(declared(true, &[3]), &[2, 3]), None);
    assert_eq!(fit(declared(true, &[3]), &[3]), Some(vec![1, 3]));
    assert_eq!(fit(declared(false, &[3]), &[1, 3]), Some(vec![3]));
    assert_eq!(fit(declared(false, &[-1, 3]), &[1, 3]), None);
    assert_eq!(fit(declared(false, &[3]), &[2, 3]), None, "two rows do not fit; the step refuses them");
}
