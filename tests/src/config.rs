//! Writes `config.pbtxt`.

use std::fmt::Write;

/// A model's configuration in the making.
#[derive(Clone, Debug)]
pub struct Config {
    text: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    steps: Vec<String>,
}

impl Config {
    /// A model of this name that runs on `backend`, without a batch dimension.
    pub fn new(name: &str, backend: &str) -> Self {
        Config::with(format!("name: \"{name}\"\nbackend: \"{backend}\"\n"))
    }

    /// An ensemble of this name.
    pub fn ensemble(name: &str) -> Self {
        Config::with(format!("name: \"{name}\"\nplatform: \"ensemble\"\n"))
    }

    fn with(text: String) -> Self {
        Config { text, inputs: Vec::new(), outputs: Vec::new(), steps: Vec::new() }
    }

    /// The model's name.
    ///
    /// # Panics
    /// Never: it is what a configuration begins with.
    pub fn name(&self) -> &str {
        self.text.split('"').nth(1).expect("a configuration begins with its name")
    }

    /// With any further line.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.text.push_str(line);
        self.text.push('\n');
        self
    }

    /// With a parameter.
    #[must_use]
    pub fn parameter(self, key: &str, value: &str) -> Self {
        self.line(&format!("parameters {{ key: \"{key}\" value: {{ string_value: \"{value}\" }} }}"))
    }

    /// With an input: its type without `TYPE_`, its dimensions as text.
    #[must_use]
    pub fn input(mut self, name: &str, datatype: &str, dims: &str) -> Self {
        self.inputs.push(format!("{{ name: \"{name}\" data_type: TYPE_{datatype} dims: [ {dims} ] }}"));
        self
    }

    /// With an input that a request may leave out.
    #[must_use]
    pub fn optional_input(mut self, name: &str, datatype: &str, dims: &str) -> Self {
        self.inputs.push(format!("{{ name: \"{name}\" data_type: TYPE_{datatype} dims: [ {dims} ] optional: true }}"));
        self
    }

    /// With an output.
    #[must_use]
    pub fn output(mut self, name: &str, datatype: &str, dims: &str) -> Self {
        self.outputs.push(format!("{{ name: \"{name}\" data_type: TYPE_{datatype} dims: [ {dims} ] }}"));
        self
    }

    /// With a step: pairs of the model's own name of a tensor and the ensemble's.
    #[must_use]
    pub fn step(mut self, model: &str, inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> Self {
        let mut step = format!("{{ model_name: \"{model}\" model_version: -1");
        for (map, pairs) in [("input_map", inputs), ("output_map", outputs)] {
            for (own, tensor) in pairs {
                let _ = write!(step, " {map} {{ key: \"{own}\" value: \"{tensor}\" }}");
            }
        }
        self.steps.push(step + " }");
        self
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = self.text.clone();
        for (field, entries) in [("input", &self.inputs), ("output", &self.outputs)] {
            if !entries.is_empty() {
                let _ = writeln!(text, "{field} [\n  {}\n]", entries.join(",\n  "));
            }
        }
        if !self.steps.is_empty() {
            let _ = writeln!(text, "ensemble_scheduling {{ step [\n  {}\n] }}", self.steps.join(",\n  "));
        }
        text
    }
}
