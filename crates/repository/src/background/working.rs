//! Work that is done elsewhere, and whoever waits for it.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::threads::Tell;

/// Waits for work's result. The work goes on when this is dropped.
#[derive(Debug)]
pub struct Working<T>(oneshot::Receiver<std::thread::Result<T>>);

/// The work panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked(String);

impl<T: Send + 'static> Working<T> {
    /// What does the work, on any thread, and returns what tells its result; and what waits for that.
    pub(super) fn of(work: impl FnOnce() -> T + Send + 'static) -> (impl FnOnce() -> Tell + Send + 'static, Self) {
        let (teller, told) = oneshot::channel();
        let work = move || -> Tell {
            let result = catch_unwind(AssertUnwindSafe(work));
            // A result that nobody wants is dropped here, which may panic as well.
            Box::new(move || drop(catch_unwind(AssertUnwindSafe(|| drop(teller.send(result))))))
        };
        (work, Working(told))
    }

    /// Does the work as a task after some time, for simulations. Within a runtime.
    pub fn after(delay: std::time::Duration, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (work, working) = Self::of(work);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            work()();
        });
        working
    }
}

impl<T> Future for Working<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let told = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(match told {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(panic)) => Err(Panicked::with(&*panic)),
            Err(_) => Err(Panicked("no thread can do it".to_owned())),
        })
    }
}

impl Panicked {
    fn with(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Panicked(text.map_or_else(|| "it panicked".to_owned(), |text| format!("it panicked: {text}")))
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
