//! An HTTP answer, read to its end.

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

/// Status, headers and body of an answer.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the model was found: `X-Panoply-Cache`.
    pub fn cache(&self) -> &str {
        self.header("x-panoply-cache").unwrap_or("(no header)")
    }

    /// The message of `{"error": …}`.
    ///
    /// # Panics
    /// When the body is not like this.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no 'error' in {self:?}")).to_owned()
    }

    /// This answer, if it is 200.
    ///
    /// # Panics
    /// When it is not.
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{self:?}");
        self
    }

    /// An output of a JSON answer: the whole object.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn output(&self, name: &str) -> Value {
        let json = self.json();
        let outputs = json["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let output = outputs.iter().find(|output| output["name"] == name);
        output.unwrap_or_else(|| panic!("no output '{name}' in {self:?}")).clone()
    }

    /// The names of a JSON answer's outputs, in their order.
    pub fn output_names(&self) -> Vec<String> {
        let json = self.json();
        let outputs = json["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
        outputs.iter().map(|output| output["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The numbers of a JSON answer's output.
    ///
    /// # Panics
    /// When they are not numbers.
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        let output = self.output(name);
        let data = output["data"].as_array().unwrap_or_else(|| panic!("no data in {output}"));
        data.iter().map(|number| number.as_f64().unwrap_or_else(|| panic!("{number} is no number"))).collect()
    }

    /// The strings of a JSON answer's output.
    ///
    /// # Panics
    /// When they are not strings.
    pub fn strings(&self, name: &str) -> Vec<String> {
        let output = self.output(name);
        let data = output["data"].as_array().unwrap_or_else(|| panic!("no data in {output}"));
        data.iter().map(|text| text.as_str().unwrap_or_else(|| panic!("{text} is no string")).to_owned()).collect()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let shown: String = text.chars().take(4000).collect();
        write!(f, "{} {:?}\n{shown}", self.status, self.headers)
    }
}
