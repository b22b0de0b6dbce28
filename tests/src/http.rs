//! The client that tests speak with.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::{Answer, PATIENCE};

/// An HTTP client with connections of its own.
#[derive(Clone)]
pub struct Http(reqwest::Client);

impl Default for Http {
    fn default() -> Self {
        Http::new()
    }
}

impl Http {
    /// A client without connections yet. It reports whatever happens, and retries nothing.
    ///
    /// # Panics
    /// When the library cannot be initialised.
    pub fn new() -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        Http(client.expect("a client without TLS needs nothing"))
    }

    /// One exchange.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn try_send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.0.request(method, url).body(body.into());
        for (name, value) in headers {
            // As bytes: names of models need not be ASCII.
            request = request.header(*name, value.as_bytes());
        }
        let response = request.send().await?;
        let (status, headers): (u16, HeaderMap) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await? })
    }

    /// One exchange.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let answer = self.try_send(method, url, headers, body).await;
        answer.unwrap_or_else(|error| panic!("no answer from {url}: {error:?}"))
    }

    /// `GET`.
    pub async fn get(&self, url: &str) -> Answer {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// `DELETE`.
    pub async fn delete(&self, url: &str) -> Answer {
        self.send(Method::DELETE, url, &[], Bytes::new()).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, url: &str, body: &Value) -> Answer {
        self.send(Method::POST, url, &[("content-type", "application/json")], body.to_string()).await
    }

    /// `POST` of JSON for a target model.
    pub async fn invoke(&self, url: &str, target: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("x-amzn-sagemaker-target-model", target)];
        self.send(Method::POST, url, &headers, body.to_string()).await
    }
}
