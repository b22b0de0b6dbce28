//! Keeps the requests of one sequence on a stream in their order: each begins when the one before it has ended.
//!
//! Requests of a stream are worked on at once, and may overtake one another before they reach the model's queue: when they
//! wait for a load, for shared memory, or for an ensemble's first steps.

use std::collections::HashMap;

use inference::CorrelationId;
use protocol::grpc_service::ModelInferRequest;
use protocol::grpc_service::infer_parameter::ParameterChoice;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver, Sender};

/// With more sequences than this, those of which nothing is under way are forgotten.
const FORGET_ABOVE: usize = 64;

/// The sequences of one stream: for each the end of its last request.
#[derive(Default)]
pub(super) struct Sequences(HashMap<(String, CorrelationId), Receiver<()>>);

/// A request's turn in its sequence, which ends when this is dropped.
#[derive(Default)]
pub(super) struct Turn {
    before: Option<Receiver<()>>,
    _end: Option<Sender<()>>,
}

impl Sequences {
    /// The turn of the stream's next request.
    pub(super) fn turn(&mut self, message: &ModelInferRequest) -> Turn {
        let Some(id) = correlation_id(message) else { return Turn::default() };
        if self.0.len() > FORGET_ABOVE {
            self.0.retain(|_, last| last.try_recv() == Err(TryRecvError::Empty));
        }
        let (end, ended) = oneshot::channel();
        Turn { before: self.0.insert((message.model_name.clone(), id), ended), _end: Some(end) }
    }
}

impl Turn {
    /// Waits until the request before this one has ended.
    pub(super) async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: the other end is dropped.
            let _ = before.await;
        }
    }
}

/// What names the request's sequence. Whether it is right is looked at later.
fn correlation_id(message: &ModelInferRequest) -> Option<CorrelationId> {
    match message.parameters.get("sequence_id")?.parameter_choice.as_ref()? {
        ParameterChoice::Int64Param(number) => Some(CorrelationId::Number(number.cast_unsigned())),
        ParameterChoice::Uint64Param(number) => Some(CorrelationId::Number(*number)),
        ParameterChoice::StringParam(text) => Some(CorrelationId::Text(text.as_str().into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use protocol::grpc_service::InferParameter;

    use super::*;

    fn message(model: &str, choice: Option<ParameterChoice>) -> ModelInferRequest {
        let parameters = [("sequence_id".to_owned(), InferParameter { parameter_choice: choice })].into();
        ModelInferRequest { model_name: model.to_owned(), parameters, ..ModelInferRequest::default() }
    }

    #[test]
    fn a_request_waits_for_the_one_before_it_in_its_sequence_alone() {
        let mut sequences = Sequences::default();
        let number = |number| Some(ParameterChoice::Int64Param(number));
        let mut first = sequences.turn(&message("m", number(1)));
        let mut second = sequences.turn(&message("m", number(1)));
        let text = Some(ParameterChoice::StringParam("1".to_owned()));
        for free in [message("m", number(2)), message("n", number(1)), message("m", text), message("m", None)] {
            assert!(sequences.turn(&free).wait().now_or_never().is_some(), "{free:?}");
        }
        assert!(first.wait().now_or_never().is_some());
        assert!(second.wait().now_or_never().is_none());
        let mut waiting = sequences.turn(&message("m", number(1)));
        drop((first, second));
        assert!(waiting.wait().now_or_never().is_some());
    }

    #[test]
    fn sequences_of_which_nothing_is_under_way_are_forgotten() {
        let mut sequences = Sequences::default();
        let of = |number| message("m", Some(ParameterChoice::Int64Param(number)));
        let kept = sequences.turn(&of(-1));
        (1..10_000).for_each(|number| drop(sequences.turn(&of(number))));
        assert!(sequences.0.len() <= FORGET_ABOVE + 1);
        assert!(sequences.turn(&of(-1)).wait().now_or_never().is_none());
        drop(kept);
    }
}
