//! The bandwidth that all downloads share, the urgent ones first.

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::TokenBucket;
use super::{Priority, Urgency};

/// A bound on the bytes per second of all downloads together.
#[derive(Debug)]
pub(crate) struct Bandwidth(Mutex<TokenBucket>);

impl Bandwidth {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Bandwidth(Mutex::new(TokenBucket::new(bytes_per_second, Instant::now().into_std())))
    }

    /// Waits until so many bytes that were received have been paid for. Nothing more is read from their connection
    /// meanwhile, which makes the store send more slowly. What nobody waits for takes only what the others leave.
    pub(crate) async fn pay(&self, bytes: usize, urgency: &Urgency) {
        while urgency.now().is_background() {
            let debt = self.0.lock().debt(Instant::now().into_std());
            if debt.is_zero() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(debt) => {}
                _ = urgency.above(Priority::Refresh) => {}
            }
        }
        let debt = self.0.lock().take(bytes, Instant::now().into_std());
        tokio::time::sleep(debt).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_urgent_take_all_of_it_while_they_want_it() {
        const CHUNK: usize = 1000;
        let bandwidth = Arc::new(Bandwidth::new(10 * CHUNK as u64));
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let raised = Urgency::from(Priority::Prefetch);
        for (urgency, count) in [Urgency::from(Priority::Interactive), raised.clone()].into_iter().zip(counts.clone()) {
            let bandwidth = bandwidth.clone();
            tokio::spawn(async move {
                loop {
                    bandwidth.pay(CHUNK, &urgency).await;
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let after = async |seconds| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            counts.each_ref().map(|count| count.swap(0, Ordering::SeqCst))
        };
        let [urgent, background] = after(100).await;
        assert!((990..=1010).contains(&(urgent + background)), "{urgent} and {background}");
        assert!(background <= 2, "{urgent} and {background}");
        raised.raise(Priority::Interactive);
        let [one, other] = after(100).await;
        assert!((490..=510).contains(&one) && (490..=510).contains(&other), "{one} and {other}");
    }
}
