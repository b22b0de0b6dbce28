//! `ModelStreamInfer`: requests run at once, up to a bound; each answers once or, where its model is decoupled, any number of
//! times.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, BoxStream, FusedStream, SelectAll, Stream, StreamExt};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use inference::{Error, ModelKey};
use protocol::grpc_service::infer_parameter::ParameterChoice;
use protocol::grpc_service::{ModelInferRequest, ModelInferResponse};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::arrivals::{Arrival, arrivals};
use super::call::{self, Head};
use super::decode::EMPTY_FINAL_RESPONSE;
use super::infer;
use super::messages::{Messages, Unread};
use super::order::{Order, Ticket};
use super::sequences::{Sequences, Turn};
use super::{encode, failure, wire};
use crate::Shared;
use crate::infer::version_header;
use crate::status::Failure;
use crate::telemetry::{InFlight, Surface};

/// How many requests of one stream are worked on at once, and how many are in line to be answered. Further ones stay on the
/// wire.
const CONCURRENCY: usize = 32;
/// Metadata by which a client asks that a failing request ends its stream with a status.
const ERRORS_AS_STATUS: &str = "triton_grpc_error";

/// An answer as it goes to the socket, or the end.
type Message = Result<Vec<Bytes>, Status>;

/// Answers a call; requests are read until the server is closing.
pub(super) async fn model_stream_infer(
    State((app, closing)): State<(Shared, CancellationToken)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    if !call::is_grpc(&parts.headers) {
        return call::no_call().1;
    }
    let head = match Head::read(&app, &parts.headers, Instant::now()) {
        Ok(head) => head,
        Err(failure) => {
            crate::infer::log(&ModelKey::default(), &failure, &failure.status(false));
            return call::refuse(&failure);
        }
    };
    let requests = arrivals(app.clone(), Messages::new(body, head.encoding));
    let call = Arc::new(Call { app, head, errors_as_status: wants_status(&parts.headers) });
    let body = Body::new(StreamBody::new(frames(answers(call.clone(), requests, closing))));
    call.head.answer(HeaderMap::new(), body)
}

fn answers(
    call: Arc<Call>,
    requests: impl Stream<Item = Arrival> + Send + 'static,
    closing: CancellationToken,
) -> impl Stream<Item = Message> + Send {
    let requests = Box::pin(requests.take_until(closing.clone().cancelled_owned()).fuse());
    let farewell = stream::once(async move { closing.is_cancelled() }).filter_map(async |closing| {
        closing.then(|| Err(failure::refuse(&ModelKey::default(), Error::unavailable("the server is shutting down"))))
    });
    let (running, order, free) = (SelectAll::new(), Order::new(), VecDeque::new());
    Answers { call, requests, running, under_way: 0, order, free, next: 0, sequences: Sequences::default() }
        .chain(farewell)
}

/// What goes to the socket; the first status is the end.
fn frames(answers: impl Stream<Item = Message> + Send) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    async_stream::stream! {
        let mut failure = None;
        {
            let mut answers = pin!(answers);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(parts) => for part in parts {
                        yield Ok(Frame::data(part));
                    },
                    Err(status) => {
                        failure = Some(status);
                        break;
                    }
                }
            }
        }
        yield Ok(Frame::trailers(call::trailers(failure.as_ref())));
    }
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
    requests: Pin<Box<dyn FusedStream<Item = Arrival> + Send>>,
    running: SelectAll<BoxStream<'static, (Ticket, Event)>>,
    /// How many of them have not ended; one that has stays in `running` until it is polled once more.
    under_way: usize,
    order: Order<Message>,
    /// What may leave.
    free: VecDeque<Message>,
    next: Ticket,
    sequences: Sequences,
}

impl Answers {
    /// Whether another request may begin. The first in line is always under way, so that this changes with it.
    fn has_room(&self) -> bool {
        self.under_way < CONCURRENCY && self.order.len() < CONCURRENCY
    }

    fn begin(&mut self, request: Arrival) {
        let ticket = self.next;
        self.next += 1;
        let turn = request.as_ref().map(|(message, _)| self.sequences.turn(message)).unwrap_or_default();
        let events = events(self.call.clone(), request, turn).chain(stream::once(async { Event::End }));
        self.order.admit(ticket);
        self.under_way += 1;
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
            while self.has_room() && !self.requests.is_terminated() {
                match self.requests.as_mut().poll_next(context) {
                    Poll::Ready(Some(request)) => self.begin(request),
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            if self.running.is_empty() {
                return if self.requests.is_terminated() { Poll::Ready(None) } else { Poll::Pending };
            }
            let Some((ticket, event)) = ready!(self.running.poll_next_unpin(context)) else { continue };
            let free = match event {
                Event::Decoupled => self.order.release(ticket),
                Event::Answer(message) => self.order.answer(ticket, message),
                Event::End => {
                    self.under_way -= 1;
                    self.order.end(ticket)
                }
            };
            self.free.extend(free);
        }
    }
}

/// Runs one request, and records its one outcome.
fn events(call: Arc<Call>, request: Arrival, mut turn: Turn) -> impl Stream<Item = Event> + Send {
    async_stream::stream! {
        // Held until the request has ended.
        turn.wait().await;
        let in_flight = InFlight::begin(Surface::Grpc);
        let (mut message, share) = match request {
            Ok(request) => request,
            Err(unread) => {
                yield Event::Answer(call.refuse_unread(in_flight, unread).await);
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
        let mut answers = infer::many(&call.app, key, &call.head, message, share, began);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    if answer.is_decoupled && !end.is_decoupled {
                        end.is_decoupled = true;
                        yield Event::Decoupled;
                    }
                    end.is_said = answer.is_last;
                    // The client may be gone before the end of what ends here.
                    if let Some(in_flight) = open.take_if(|_| end.is_said) {
                        in_flight.succeed();
                    }
                    yield Event::Answer(Ok(answer.parts));
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    if let Some(in_flight) = open {
                        infer::record(in_flight, &name, &failure);
                    }
                    yield Event::Answer(call.refuse(&failure, end.id).await);
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
            yield Event::Answer(call.answered(String::new(), last).await);
        }
    }
}

impl Call {
    /// Refuses what cannot be read. Where it ends the call, so does the answer.
    async fn refuse_unread(&self, in_flight: InFlight, unread: Unread) -> Message {
        match unread {
            Unread::Message(failure) => {
                infer::record(in_flight, &ModelKey::default(), &failure);
                self.refuse(&failure, String::new()).await
            }
            Unread::Call(failure) => {
                infer::record(in_flight, &ModelKey::default(), &failure);
                Err(failure::status(&failure))
            }
        }
    }

    async fn refuse(&self, failure: &Failure, id: String) -> Message {
        if self.errors_as_status {
            return Err(failure::status(failure));
        }
        let mut response = ModelInferResponse { id, ..ModelInferResponse::default() };
        if let Some(version) = failure.version() {
            let mut headers = HeaderMap::new();
            version_header(&mut headers, version);
            encode::tell(&mut response, &headers);
        }
        self.answered(failure.message().to_owned(), response).await
    }

    /// A last answer without tensors.
    async fn answered(&self, error_message: String, mut response: ModelInferResponse) -> Message {
        encode::tell_last(&mut response, true);
        let packed = match wire::frame_of_stream(error_message, response) {
            Ok(parts) => self.head.pack(parts, None).await,
            Err(error) => Err(error),
        };
        packed.map_err(|error| failure::refuse(&ModelKey::default(), error))
    }
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

    fn message(self) -> Option<ModelInferResponse> {
        let LastWord { id, model_name, model_version, .. } = self;
        let empty = ModelInferResponse { id, model_name, model_version, ..ModelInferResponse::default() };
        (self.is_wanted && !self.is_said).then_some(empty)
    }
}
