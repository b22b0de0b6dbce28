//! Threads that do one piece of work after the other. The one that became free last is given the next, so that no more of them
//! are at work than there is work at the same time: the allocator gives each thread memory of its own, which others do not use.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::lower_priority;

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

/// Started when there is work and all others are busy. They end when this is dropped and their work is done.
pub(super) struct Threads(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// How many there may be.
    most: usize,
    niceness: u8,
    /// For what work spawns.
    runtime: Handle,
}

#[derive(Default)]
struct State {
    /// Work that no thread is free for.
    waiting: VecDeque<Work>,
    /// Threads without work, the last one to become free on top.
    idle: Vec<Sender<Task>>,
    /// Threads that do a chore and are idle again soon.
    at_chores: usize,
    count: usize,
    is_closed: bool,
}

impl Threads {
    pub(super) fn new(most: usize, niceness: u8, runtime: Handle) -> Self {
        Threads(Arc::new(Shared { state: Mutex::default(), most: most.max(1), niceness, runtime }))
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
        if state.waiting.len() > state.at_chores && state.count < self.0.most {
            state.count += 1;
            drop(state);
            self.start();
        }
    }

    /// Has a chore done by every thread that is idle, and waits for it. Must not panic, and is to be brief: work waits for it.
    pub(super) fn on_idle(&self, chore: fn()) {
        let idle = {
            let mut state = self.0.state.lock();
            state.at_chores += state.idle.len();
            std::mem::take(&mut state.idle)
        };
        let (done, all_done) = channel();
        idle.iter().for_each(|thread| send(thread, Task::Chore(chore, done.clone())));
        drop(done);
        // Nothing is ever sent: it ends when the last of them is done.
        let _ = all_done.recv();
    }

    fn start(&self) {
        let shared = self.0.clone();
        let started = thread::Builder::new().name("background".to_owned()).spawn(move || shared.work());
        if let Err(error) = started {
            self.0.does_not_start(&error);
        }
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
        lower_priority(self.niceness);
        let _within = self.runtime.enter();
        let mut tell: Tell = Box::new(|| ());
        while let Some(task) = self.next(tell) {
            tell = match task {
                Task::Work(work) => work(),
                Task::Chore(chore, done) => {
                    chore();
                    self.state.lock().at_chores -= 1;
                    Box::new(move || drop(done))
                }
            };
        }
    }

    /// Waits for something to do, having told of what was done before; `None` when there is no more.
    fn next(&self, tell: Tell) -> Option<Task> {
        let mut state = self.state.lock();
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

    fn does_not_start(&self, error: &io::Error) {
        tracing::error!(%error, "a background thread cannot be started");
        let mut state = self.state.lock();
        state.count -= 1;
        // Nobody would ever do it where there is no thread at all. Whoever waits is told by its end.
        let lost = if state.count == 0 { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        drop(lost);
    }
}
