//! Threads for work that requests must not feel: unpacking, loading, warming up, unloading, deleting.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};

use crate::request_threads::off_request_threads;

mod threads;
mod working;

use threads::Threads;
pub use working::{Panicked, Working};

/// Threads of their own at a lower priority than those that carry requests, as many as there has been work at the same time.
/// Clones share them.
///
/// What work starts inherits its priority, threads and processes alike, and an ordinary user cannot raise it again: what
/// is to serve requests must be started elsewhere.
#[derive(Clone, Default)]
pub struct Background {
    /// `None`: the current runtime's threads.
    own: Option<Arc<Own>>,
    activity: Arc<Activity>,
}

impl Background {
    /// At most `threads` at a time; further work waits. `niceness` is added to that of the current thread, as `nice` does it:
    /// 0 is the priority of everything else, 19 the lowest there is in any case.
    ///
    /// # Errors
    /// When the first thread cannot be started.
    pub fn start(niceness: u8, threads: usize) -> io::Result<Self> {
        let niceness = (own_niceness() + i32::from(niceness)).min(19);
        let runtime = Builder::new_multi_thread()
            // For what work spawns: clocks.
            .worker_threads(1)
            .enable_all()
            .thread_name("background")
            .on_thread_start(move || set_priority(niceness))
            .build()?;
        match Threads::new(threads, niceness, runtime.handle().clone()) {
            Ok(threads) => Ok(Background {
                own: Some(Arc::new(Own { threads, runtime: Some(runtime) })),
                activity: Arc::default(),
            }),
            Err(error) => {
                // This may be a thread that must not wait.
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Does work that may block, in the order of arrival where threads are short. It is done even if nobody waits for it.
    ///
    /// # Panics
    /// Outside a runtime, unless the threads are their own.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Working<T> {
        let activity = self.activity.clone();
        self.run_uncounted(move || {
            let _under_way = UnderWay::begin(activity);
            work()
        })
    }

    /// The same for work that counts for nothing in the [`Activity`], such as what mostly waits.
    ///
    /// # Panics
    /// As [`Background::run`].
    pub fn run_uncounted<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Working<T> {
        let (work, working) = Working::of(work);
        match &self.own {
            Some(own) => own.threads.give(Box::new(work)),
            None => drop(tokio::task::spawn_blocking(|| work()())),
        }
        working
    }

    /// The same for small work that nobody waits for and that counts for nothing; at once where there is no other thread.
    pub(crate) fn run_or_do(&self, work: impl FnOnce() + Send + 'static) {
        match &self.own {
            Some(own) => own.threads.give(Box::new(Working::of(work).0)),
            None => off_request_threads(work),
        }
    }

    /// Has every thread that is idle do something brief that must not panic, and waits until they have. Blocks.
    pub fn on_idle_threads(&self, chore: fn()) {
        self.own.iter().for_each(|own| own.threads.on_idle(chore));
    }

    /// What is being done.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Background(own threads: {}, {:?})", self.own.is_some(), self.activity)
    }
}

struct Own {
    threads: Threads,
    /// Taken out when it ends.
    runtime: Option<Runtime>,
}

impl Drop for Own {
    fn drop(&mut self) {
        // May happen on a thread that must not wait, and some of the work may hang.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// How much is done in the background.
#[derive(Debug, Default)]
pub struct Activity {
    running: AtomicUsize,
    begun: AtomicUsize,
}

/// A moment in an [`Activity`].
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    begun: usize,
    is_busy: bool,
}

impl Activity {
    /// Now.
    pub fn moment(&self) -> Moment {
        Moment { begun: self.begun.load(Ordering::Relaxed), is_busy: self.running.load(Ordering::Relaxed) > 0 }
    }

    /// Whether anything was being done at that moment, or has begun since.
    pub fn was_busy_since(&self, then: Moment) -> bool {
        then.is_busy || self.begun.load(Ordering::Relaxed) != then.begun
    }
}

struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Ordering::Relaxed);
        activity.begun.fetch_add(1, Ordering::Relaxed);
        UnderWay(activity)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// That of the current thread.
fn own_niceness() -> i32 {
    #[cfg(target_os = "linux")]
    return rustix::process::getpriority_process(None).unwrap_or(0);
    #[cfg(not(target_os = "linux"))]
    0
}

/// Sets the priority of the current thread, which is a matter of single threads on Linux only.
fn set_priority(niceness: i32) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::warn!(%error, niceness, "the priority of a background thread cannot be lowered");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::ThreadId;

    use super::*;

    #[cfg(target_os = "linux")]
    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).expect("a thread has a priority")
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_are_nice_and_no_other() {
        let own = niceness();
        let background = Background::start(19, 2).expect("threads");
        let lowest = (own + 19).min(19);
        assert_eq!(background.run(niceness).await.expect("no panic"), lowest);
        // What is started there from within, too.
        let within = background.run(|| tokio::runtime::Handle::current().spawn_blocking(niceness));
        assert_eq!(within.await.expect("no panic").await.expect("no panic"), lowest);
        let spawned = background.run(|| tokio::spawn(async { niceness() }));
        assert_eq!(spawned.await.expect("no panic").await.expect("no panic"), lowest);
        assert_eq!(tokio::task::spawn_blocking(niceness).await.expect("no panic"), own);
        assert_eq!(niceness(), own);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn niceness_is_added_to_that_of_whoever_starts_it() {
        let outer = Background::start(3, 1).expect("threads");
        let inner = outer.run(|| Background::start(4, 1).expect("threads")).await.expect("no panic");
        assert_eq!(inner.run(niceness).await.expect("no panic"), (niceness() + 7).min(19));
    }

    #[tokio::test]
    async fn there_are_never_more_threads_than_said() {
        let background = Background::start(0, 2).expect("threads");
        let work = (0..50).map(|_| background.run(|| std::thread::current().id()));
        let threads = futures::future::join_all(work).await.into_iter().map(|thread| thread.expect("no panic"));
        assert!(threads.collect::<std::collections::HashSet<ThreadId>>().len() <= 2);
    }

    #[tokio::test]
    async fn one_after_the_other_is_done_by_the_same_thread() {
        let background = Background::start(19, 8).expect("threads");
        let mut threads = std::collections::HashSet::new();
        for _ in 0..200 {
            threads.insert(background.run(|| std::thread::current().id()).await.expect("no panic"));
        }
        assert_eq!(threads.len(), 1, "whoever is told of the end finds the thread free");
    }

    /// Has two threads work at the same time; which they are.
    async fn two_at_once(background: &Background) -> std::collections::HashSet<ThreadId> {
        let meet = Arc::new(std::sync::Barrier::new(2));
        let work = [meet.clone(), meet].map(|meet| {
            background.run(move || {
                meet.wait();
                std::thread::current().id()
            })
        });
        futures::future::join_all(work).await.into_iter().map(|thread| thread.expect("no panic")).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn idle_threads_do_chores_and_are_found_again_for_work() {
        static CHORES: AtomicUsize = AtomicUsize::new(0);
        let background = Background::start(0, 8).expect("threads");
        let threads = two_at_once(&background).await;
        for round in 1..=100 {
            // The thread that asks is at work itself.
            let asking = background.clone();
            let chore = move || asking.on_idle_threads(|| _ = CHORES.fetch_add(1, Ordering::SeqCst));
            background.run(chore).await.expect("no panic");
            assert_eq!(CHORES.load(Ordering::SeqCst), round);
        }
        assert_eq!(two_at_once(&background).await, threads, "no other was started");
    }

    #[tokio::test]
    async fn it_is_done_also_when_nobody_waits() {
        for background in [Background::default(), Background::start(0, 1).expect("threads")] {
            let (done, is_done) = tokio::sync::oneshot::channel();
            drop(background.run(move || done.send(())));
            is_done.await.expect("it was done");
        }
    }

    #[tokio::test]
    async fn it_is_busy_from_the_beginning_of_work_to_its_end() {
        for background in [Background::default(), Background::start(0, 2).expect("threads")] {
            let (end, ended) = mpsc::channel();
            let (begin, begun) = tokio::sync::oneshot::channel();
            let quiet = background.activity().moment();
            assert!(!background.activity().was_busy_since(quiet));
            let work = background.run(move || {
                begin.send(()).expect("somebody waits");
                ended.recv().expect("somebody ends it");
            });
            begun.await.expect("it begins");
            assert!(background.activity().was_busy_since(quiet), "it has begun since");
            let busy = background.activity().moment();
            end.send(()).expect("it waits");
            work.await.expect("no panic");
            assert!(background.activity().was_busy_since(busy), "it was under way");
            let quiet = background.activity().moment();
            assert!(!background.activity().was_busy_since(quiet));
        }
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_nothing_else() {
        let background = Background::start(0, 1).expect("threads");
        assert!(background.run(|| panic!("in the background")).await.is_err());
        let quiet = background.activity().moment();
        assert!(!background.activity().was_busy_since(quiet));
        assert_eq!(background.run(|| 7).await.expect("another thread does it"), 7);
    }
}
