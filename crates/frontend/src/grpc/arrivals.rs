//! The requests of a stream as they arrive: decoded, and counted from then on in what all bodies together may hold.

use futures::stream::Stream;
use protocol::grpc_service::ModelInferRequest;

use super::decode::decode;
use super::messages::{Messages, Unread};
use crate::Shared;
use crate::admission::BodyShare;
use crate::body::Whole;

/// A request and what it holds, or why there is none. Nothing follows a call that cannot be read any further.
pub(super) type Arrival = Result<(ModelInferRequest, BodyShare), Unread>;

/// The requests of a call.
pub(super) fn arrivals(app: Shared, mut messages: Messages) -> impl Stream<Item = Arrival> + Send {
    async_stream::stream! {
        loop {
            match messages.next(app.bounds(app.config.max_request_size)).await {
                Ok(Some(Whole { bytes, mut share })) => {
                    let message = decode(bytes, &mut share);
                    yield message.map(|message| (message, share)).map_err(|error| Unread::Message(error.into()));
                }
                Err(Unread::Message(failure)) => yield Err(Unread::Message(failure)),
                Err(Unread::Call(failure)) => {
                    yield Err(Unread::Call(failure));
                    return;
                }
                Ok(None) => return,
            }
        }
    }
}
