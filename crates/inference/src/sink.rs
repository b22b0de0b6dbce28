//! Where an instance of a decoupled model puts its responses: zero to many for each request, each as soon as it is made.

use std::time::Duration;

use crate::{Cancellation, InferResponse, Result};

/// The way back to whoever waits for the responses to one request.
///
/// Calls block, and may come from any thread but one that carries requests. The request ends with [`ResponseSink::end`],
/// which may come long after [`crate::ModelInstance::stream`] has returned; a sink that is dropped without it ends the
/// request in an error.
pub trait ResponseSink: Send {
    /// Hands out a response, with the outputs that the request wants. Blocks while the client is so slow that enough
    /// responses wait for it.
    ///
    /// # Errors
    /// Why nobody wants any more of them: the client is gone, too slow, or its time is up. Whoever gets this stops working
    /// on the request.
    fn send(&mut self, response: InferResponse) -> Result<()>;

    /// Waits; ends early when nobody waits for responses any more.
    ///
    /// # Errors
    /// As [`ResponseSink::send`].
    fn pause(&mut self, duration: Duration) -> Result<()>;

    /// Whether somebody still waits for responses.
    fn is_open(&self) -> bool;

    /// Cancelled when nobody waits for responses any more. The default never is.
    fn cancellation(&self) -> Cancellation {
        Cancellation::never()
    }

    /// No more will come: because all is said, or because the model failed.
    fn end(self: Box<Self>, result: Result<()>);
}
