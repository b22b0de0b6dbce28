//! Threads that do one piece of work after the other. The one that became free last is given the next, so that no more of them
//! are at work than there is work at the same time: the allocator gives each thread memory of its own, which others do not use.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::set_priority;

/// Blocks, and must not panic. What it returns tells whoever waits, and is called when the thread is free for the next: told
/// earlier, they would often find it busy still, a slow thread above all, and start another.
pub(super) type Work = Box<dyn FnOnce() -> Tell + Send>;
pub(super) type Tell = Box<dyn FnOnce() + Send>;

/// What a thread is asked to do.
enum Task {
    Work(Work),
    /// Something that idle threads do at once; the other end learns that it is done when this one is dropped.
    Chore(fn(), Sender<()>),
}

/// The first is there from the beginning, so that there is always one; others are started when there is work and all are busy.
/// They end when this is dropped and their work is done.
pub(super) struct Threads(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// How many there may be.
    most: usize,
    niceness: i32,
    /// For what work spawns.
    runtime: Handle,
}

#[derive(Default)]
struct State {
    /// Work that no thread is free for.
    waiting: VecDeque<Work>,
    /// Threads without work, the last one to become free on top.
    idle: Vec<Sender<Task>>,
    /// Threads that take the next work soon: they do a chore, or have just been started.
    soon_free: usize,
    count: usize,
    /// It was said that work waits.
    has_warned: bool,
    is_closed: bool,
}

impl Threads {
    /// # Errors
    /// When the first thread cannot be started.
    pub(super) fn new(most: usize, niceness: i32, runtime: Handle) -> io::Result<Self> {
        let state = Mutex::new(State { count: 1, soon_free: 1, ..State::default() });
        let threads = Threads(Arc::new(Shared { state, most: most.max(1), niceness, runtime }));
        threads.start()?;
        Ok(threads)
    }

    /// Has it done by a thread, in the order of arrival where threads are short.
    pub(super) fn give(&self, work: Work) {
        let mut state = self.0.state.lock();
        if let Some(thread) = state.idle.pop() {
            drop(state);
            send(&thread, Task::Work(work));
            return;
        }
        state.waiting.push_back(work);
        if state.waiting.len() <= state.soon_free {
            return;
        }
        if state.count == self.0.most {
            let has_warned = std::mem::replace(&mut state.has_warned, true);
            drop(state);
            if !has_warned {
                tracing::warn!(
                    threads = self.0.most,
                    "all background threads are busy; loading, unloading and unpacking wait for one, which takes long if \
                     what they do hangs (said once)"
                );
            }
            return;
        }
        state.count += 1;
        state.soon_free += 1;
        drop(state);
        if let Err(error) = self.start() {
            tracing::error!(%error, "a background thread cannot be started; work waits for the others");
            let mut state = self.0.state.lock();
            state.count -= 1;
            state.soon_free -= 1;
        }
    }

    /// Has a chore done by every thread that is idle, and waits for it. Must not panic, and is to be brief: work waits for it.
    pub(super) fn on_idle(&self, chore: fn()) {
        let idle = {
            let mut state = self.0.state.lock();
            state.soon_free += state.idle.len();
            std::mem::take(&mut state.idle)
        };
        let (done, all_done) = channel();
        idle.iter().for_each(|thread| send(thread, Task::Chore(chore, done.clone())));
        drop(done);
        // Nothing is ever sent: it ends when the last of them is done.
        let _ = all_done.recv();
    }

    /// Starts one that is counted as soon to be free.
    fn start(&self) -> io::Result<()> {
        let shared = self.0.clone();
        thread::Builder::new().name("background".to_owned()).spawn(move || shared.work()).map(drop)
    }
}

fn send(thread: &Sender<Task>, task: Task) {
    thread.send(task).map_err(drop).expect("invariant: an idle thread waits for a task");
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        state.idle.clear();
    }
}

impl Shared {
    /// What a thread does.
    fn work(&self) {
        set_priority(self.niceness);
        let _within = self.runtime.enter();
        let (mut tell, mut is_soon_free): (Tell, bool) = (Box::new(|| ()), true);
        while let Some(task) = self.next(tell, is_soon_free) {
            is_soon_free = matches!(task, Task::Chore(..));
            tell = match task {
                Task::Work(work) => work(),
                Task::Chore(chore, done) => {
                    chore();
                    Box::new(move || drop(done))
                }
            };
        }
    }

    /// Waits for something to do, having told of what was done before; `None` when there is no more. The thread may have been
    /// counted as soon to be free.
    fn next(&self, tell: Tell, was_soon_free: bool) -> Option<Task> {
        let mut state = self.state.lock();
        state.soon_free -= usize::from(was_soon_free);
        let next = state.waiting.pop_front().map(Task::Work);
        let free = (next.is_none() && !state.is_closed).then(|| {
            let (sender, receiver) = channel();
            state.idle.push(sender);
            receiver
        });
        drop(state);
        tell();
        // Nothing is received when there are no threads any more.
        next.or_else(|| free?.recv().ok())
    }
}
