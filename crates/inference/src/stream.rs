//! A stream of one item, for services that answer each request once.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::BoxFuture;

/// The future's output, and no more.
pub(crate) fn once<T>(future: BoxFuture<'_, T>) -> Once<'_, T> {
    Once(Some(future))
}

/// See [`once`].
pub(crate) struct Once<'a, T>(Option<BoxFuture<'a, T>>);

impl<T> Stream for Once<'_, T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(future) = &mut self.0 else { return Poll::Ready(None) };
        let item = std::task::ready!(future.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(Some(item))
    }
}
