//! A request that keeps a model busy for as long as a test wants.

use http::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{Answer, Http, spin_request};

/// So many rounds of [`crate::spin_archive`]'s model take days.
pub const ENDLESS: u64 = 1_000_000_000_000;

/// A request that never ends by itself, on a connection of its own, which dropping this closes.
pub struct Endless(JoinHandle<Result<Answer, reqwest::Error>>);

impl Endless {
    /// Posts `body`.
    pub fn post(url: &str, body: &Value) -> Self {
        Endless::send(url, Vec::new(), body)
    }

    /// Keeps the model of [`crate::spin_archive`] busy that is a server's target model `target`; `url` is where to invoke it.
    pub fn invoke(url: &str, target: &str) -> Self {
        Endless::send(url, vec![("x-amzn-sagemaker-target-model", target.to_owned())], &spin_request(ENDLESS))
    }

    fn send(url: &str, headers: Vec<(&'static str, String)>, body: &Value) -> Self {
        let (url, body) = (url.to_owned(), body.to_string());
        Endless(tokio::spawn(async move {
            let mut all = vec![("content-type", "application/json")];
            all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
            Http::new().try_send(Method::POST, &url, &all, body).await
        }))
    }

    /// Whether it has been answered, or cut.
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until it is answered, or cut.
    ///
    /// # Errors
    /// When there is no whole answer.
    ///
    /// # Panics
    /// When it was dropped.
    pub async fn answer(mut self) -> Result<Answer, reqwest::Error> {
        (&mut self.0).await.expect("the request runs")
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.abort();
    }
}
