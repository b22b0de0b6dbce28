//! The demo's client: one POST to `/invocations` with a target model, as any HTTP client would send it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::Agent;

/// Longer than the server's own time limits, so that its answer is what the user sees.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A client of one server on this machine.
pub(super) struct Client {
    agent: Agent,
    base: String,
}

/// An answer, and how it came about.
pub(super) struct Answer {
    /// The body's JSON.
    pub(super) body: Value,
    /// `X-Panoply-Cache`: where the server found the model.
    pub(super) found: String,
    pub(super) took: Duration,
}

/// A body, and the size of its JSON part where binary tensors follow it.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) json_size: Option<usize>,
}

impl Client {
    pub(super) fn new(port: u16) -> Self {
        let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        Self { agent: config.into(), base: format!("http://127.0.0.1:{port}") }
    }

    pub(super) fn is_ready(&self) -> bool {
        let answer = self.agent.get(format!("{}/v2/health/ready", self.base)).call();
        answer.is_ok_and(|response| response.status() == 200)
    }

    /// Asks the archive `target`.
    pub(super) fn invoke(&self, target: &str, body: &Body) -> Result<Answer> {
        let mut request = self
            .agent
            .post(format!("{}/invocations", self.base))
            .header("Content-Type", "application/octet-stream")
            .header("X-Amzn-SageMaker-Target-Model", target);
        if let Some(size) = body.json_size {
            request = request.header("Inference-Header-Content-Length", size.to_string());
        }
        let start = Instant::now();
        let mut response = request.send(&body.bytes[..]).context("the request failed")?;
        let text = response.body_mut().read_to_string().context("the answer broke off")?;
        let took = start.elapsed();
        if response.status() != 200 {
            bail!("status {}: {text}", response.status());
        }
        let found = response.headers().get("X-Panoply-Cache").and_then(|value| value.to_str().ok());
        let found = found.context("the answer has no header X-Panoply-Cache")?.to_owned();
        Ok(Answer { body: serde_json::from_str(&text).context("the answer is not JSON")?, found, took })
    }
}

impl Answer {
    /// The values of an output, whatever its shape.
    pub(super) fn output(&self, name: &str) -> Result<&[Value]> {
        let outputs = self.body["outputs"].as_array().context("the answer has no outputs")?;
        let output = outputs.iter().find(|output| output["name"] == name);
        let data = output.and_then(|output| output["data"].as_array());
        data.map(Vec::as_slice).with_context(|| format!("the answer has no output {name}"))
    }

    /// The values of a numeric output.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let values = self.output(name)?.iter().map(Value::as_f64);
        values.collect::<Option<_>>().with_context(|| format!("output {name} holds something that is not a number"))
    }
}
