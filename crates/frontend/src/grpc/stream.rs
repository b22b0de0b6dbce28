//! `ModelStreamInfer`: requests run at once, up to a bound; each answers once or, where its model is decoupled, any number of
//! times.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::stream::{self, BoxStream, FusedStream, SelectAll, Stream, StreamExt};
use http::HeaderMap;
use inference::{Error, ModelKey, Parameter};
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::decode::EMPTY_FINAL_RESPONSE;
use super::infer::{self, Head};
use super::order::{Order, Ticket};
use super::sequences::{Sequences, Turn};
use super::{encode, failure, gate};
use crate::Shared;
use crate::status::Failure;
use crate::telemetry::{InFlight, Surface};

/// How many requests of one stream are worked on at once. Further ones stay on the wire.
const CONCURRENCY: usize = 32;
/// Metadata by which a client asks that a failing request ends its stream with a status.
const ERRORS_AS_STATUS: &str = "triton_grpc_error";
/// The parameter of an answer that says whether it is the request's last.
const FINAL_RESPONSE: &str = "triton_final_response";

type Message = Result<ModelStreamInferResponse, Status>;

/// Answers a call; requests are read until `closing` is cancelled.
pub(super) fn answer(
    app: Shared,
    request: Request<Streaming<ModelInferRequest>>,
    closing: CancellationToken,
) -> Result<BoxStream<'static, Message>, Status> {
    let (metadata, _, requests) = request.into_parts();
    let head = Head::read(&app, metadata.as_ref(), Instant::now());
    let head = head.map_err(|error| failure::refuse(&ModelKey::default(), error))?;
    let call = Arc::new(Call { app, head, errors_as_status: wants_status(metadata.as_ref()) });
    let requests = Box::pin(requests.take_until(closing.clone().cancelled_owned()).fuse());
    let farewell = stream::once(async move { closing.is_cancelled() }).filter_map(async |closing| {
        closing.then(|| Err(failure::refuse(&ModelKey::default(), Error::unavailable("the server is shutting down"))))
    });
    let (running, order, free) = (SelectAll::new(), Order::new(), VecDeque::new());
    Ok(Answers { call, requests, running, order, free, next: 0, is_broken: false, sequences: Sequences::default() }
        .chain(farewell)
        .boxed())
}

fn wants_status(headers: &HeaderMap) -> bool {
    headers.get(ERRORS_AS_STATUS).is_some_and(|value| value == "true")
}

/// What all requests of a call share.
struct Call {
    app: Shared,
    head: Head,
    errors_as_status: bool,
}

/// What becomes of a request.
enum Event {
    /// Its model is decoupled.
    Decoupled,
    Answer(Message),
    End,
}

/// The answers of one call, in an order that [`Order`] decides. Dropping it cancels its requests.
struct Answers {
    call: Arc<Call>,
    requests: Pin<Box<dyn FusedStream<Item = Result<ModelInferRequest, Status>> + Send>>,
    running: SelectAll<BoxStream<'static, (Ticket, Event)>>,
    order: Order<Message>,
    /// What may leave.
    free: VecDeque<Message>,
    next: Ticket,
    is_broken: bool,
    sequences: Sequences,
}

impl Answers {
    /// Whether there are no more requests.
    fn is_read(&self) -> bool {
        self.is_broken || self.requests.is_terminated()
    }

    fn begin(&mut self, request: Result<ModelInferRequest, Status>) {
        let ticket = self.next;
        self.next += 1;
        let turn = request.as_ref().map(|message| self.sequences.turn(message)).unwrap_or_default();
        let events = events(self.call.clone(), request, turn).chain(stream::once(async { Event::End }));
        self.order.admit(ticket);
        self.running.push(events.map(move |event| (ticket, event)).boxed());
    }
}

impl Stream for Answers {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            if let Some(message) = self.free.pop_front() {
                return Poll::Ready(Some(message));
            }
            while self.running.len() < CONCURRENCY && !self.is_read() {
                match self.requests.as_mut().poll_next(context) {
                    Poll::Ready(Some(request)) => {
                        // What follows a message that cannot be read is no message.
                        self.is_broken = request.is_err();
                        self.begin(request);
                    }
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            if self.running.is_empty() {
                return if self.is_read() { Poll::Ready(None) } else { Poll::Pending };
            }
            let Some((ticket, event)) = ready!(self.running.poll_next_unpin(context)) else { continue };
            let free = match event {
                Event::Decoupled => self.order.release(ticket),
                Event::Answer(message) => self.order.answer(ticket, message),
                Event::End => self.order.end(ticket),
            };
            self.free.extend(free);
        }
    }
}

/// Runs one request, and records its one outcome.
fn events(
    call: Arc<Call>,
    request: Result<ModelInferRequest, Status>,
    mut turn: Turn,
) -> impl Stream<Item = Event> + Send {
    async_stream::stream! {
        // Held until the request has ended.
        turn.wait().await;
        let in_flight = InFlight::begin(Surface::Grpc);
        let mut message = match request {
            Ok(message) => message,
            // The stream cannot be read any further.
            Err(status) => {
                let failure = gate::of_tonic(&status, call.app.config.max_request_size);
                infer::record(in_flight, &ModelKey::default(), &failure);
                yield Event::Answer(Err(failure::status(&failure)));
                return;
            }
        };
        let mut end = LastWord::of(&message);
        call.head.forward(&mut message);
        let key = call.head.key(&message);
        let name = key.clone().unwrap_or_default();
        if call.app.services.control.is_decoupled(&name) == Some(true) {
            end.is_decoupled = true;
            yield Event::Decoupled;
        }
        let began = in_flight.began();
        let mut open = Some(in_flight);
        let mut answers = infer::many(&call.app, key, &call.head, message, began);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    if answer.is_decoupled && !end.is_decoupled {
                        end.is_decoupled = true;
                        yield Event::Decoupled;
                    }
                    end.is_said = answer.is_final || !answer.is_decoupled;
                    // The client may be gone before the end of what ends here.
                    if let Some(in_flight) = open.take_if(|_| end.is_said) {
                        in_flight.succeed();
                    }
                    yield Event::Answer(Ok(answered(answer.message, end.is_said)));
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    if let Some(in_flight) = open {
                        infer::record(in_flight, &name, &failure);
                    }
                    yield Event::Answer(call.refuse(&failure, end.id));
                    return;
                }
            }
        }
        drop(answers);
        if let Some(in_flight) = open {
            in_flight.succeed();
        }
        drop(turn);
        if let Some(last) = end.message() {
            yield Event::Answer(Ok(last));
        }
    }
}

impl Call {
    fn refuse(&self, failure: &Failure, id: String) -> Message {
        if self.errors_as_status {
            return Err(failure::status(failure));
        }
        let response = ModelInferResponse { id, ..ModelInferResponse::default() };
        Ok(ModelStreamInferResponse { error_message: failure.message().to_owned(), ..answered(response, true) })
    }
}

fn answered(mut message: ModelInferResponse, is_final: bool) -> ModelStreamInferResponse {
    message.parameters.insert(FINAL_RESPONSE.to_owned(), encode::parameter(&Parameter::Bool(is_final)));
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(message) }
}

/// Whether a request's end has been said, and must be.
struct LastWord {
    id: String,
    model_name: String,
    model_version: String,
    /// The client wants a message of its own for the end of a decoupled model's responses.
    is_wanted: bool,
    is_said: bool,
    is_decoupled: bool,
}

impl LastWord {
    fn of(message: &ModelInferRequest) -> Self {
        let wanted = message.parameters.get(EMPTY_FINAL_RESPONSE).and_then(|value| value.parameter_choice.as_ref());
        LastWord {
            id: message.id.clone(),
            model_name: message.model_name.clone(),
            model_version: message.model_version.clone(),
            is_wanted: wanted == Some(&ParameterChoice::BoolParam(true)),
            is_said: false,
            is_decoupled: false,
        }
    }

    fn message(self) -> Option<ModelStreamInferResponse> {
        let LastWord { id, model_name, model_version, .. } = self;
        let empty = ModelInferResponse { id, model_name, model_version, ..ModelInferResponse::default() };
        (self.is_wanted && !self.is_said).then(|| answered(empty, true))
    }
}
