//! The rate limiter: instances run when what they need is free, and as often as their priority says.

mod ledger;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use inference::{Device, RateLimiter, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use ledger::ResourceLimit;
use ledger::{Ledger, Owner};

/// Shared by all models of a server.
pub(crate) struct Limits {
    state: Mutex<State>,
}

struct State {
    ledger: Ledger<Ask>,
    models: u64,
}

/// Whoever waits for a turn. It holds the account, so that this stays open until all turns are given back.
struct Ask {
    to: oneshot::Sender<Grant>,
    account: Arc<ModelLimits>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Limits")
    }
}

impl Limits {
    /// At most so many executions at once, and of resources what the options say.
    pub(crate) fn new(places: NonZeroUsize, limits: Vec<ResourceLimit>) -> Arc<Self> {
        Arc::new(Limits { state: Mutex::new(State { ledger: Ledger::new(places.get(), limits), models: 0 }) })
    }

    /// The account of a model that is loaded: for each instance, where it is and what it needs.
    ///
    /// # Errors
    /// InvalidArgument when there is not as much of a resource as one of them needs.
    pub(crate) fn open(self: &Arc<Self>, name: &str, instances: &[(Device, RateLimiter)]) -> Result<Arc<ModelLimits>> {
        let mut state = self.state.lock();
        state.models += 1;
        let model = state.models;
        state.ledger.open(model, name, instances)?;
        drop(state);
        Ok(Arc::new(ModelLimits { limits: self.clone(), model }))
    }

    /// Changes the ledger, and tells those that may run now.
    fn change<R>(&self, change: impl FnOnce(&mut Ledger<Ask>) -> R) -> R {
        let (result, granted) = {
            let mut state = self.state.lock();
            let result = change(&mut state.ledger);
            (result, state.ledger.grant())
        };
        for (owner, Ask { to, account }) in granted {
            // Whoever is gone gives it back with the channel.
            drop(to.send(Grant { account, instance: owner.instance, unused: false }));
        }
        result
    }
}

/// A model's account; dropping it closes the account.
#[derive(Debug)]
pub(crate) struct ModelLimits {
    limits: Arc<Limits>,
    model: u64,
}

impl ModelLimits {
    /// A turn for an instance, if it can have one now.
    pub(crate) fn try_grant(self: &Arc<Self>, instance: usize) -> Option<Grant> {
        let mut asked = self.ask(instance);
        let grant = asked.receiver.try_recv().ok();
        asked.told = grant.is_some();
        grant
    }

    /// Waits for a turn for an instance.
    pub(crate) async fn grant(self: &Arc<Self>, instance: usize) -> Grant {
        let mut asked = self.ask(instance);
        let grant = (&mut asked.receiver).await.expect("invariant: whoever asks is told, or withdraws");
        asked.told = true;
        grant
    }

    fn ask(self: &Arc<Self>, instance: usize) -> Asked<'_> {
        let (to, receiver) = oneshot::channel();
        let ask = Ask { to, account: self.clone() };
        let claim = self.limits.change(|ledger| ledger.claim(self.owner(instance), ask));
        Asked { account: self, claim, receiver, told: false }
    }

    fn owner(&self, instance: usize) -> Owner {
        Owner { model: self.model, instance }
    }
}

impl Drop for ModelLimits {
    fn drop(&mut self) {
        self.limits.change(|ledger| ledger.close(self.model));
    }
}

/// A wait; dropping it ends it, unless the turn was taken. One that has been given meanwhile goes back with the channel.
struct Asked<'l> {
    account: &'l Arc<ModelLimits>,
    claim: u64,
    receiver: oneshot::Receiver<Grant>,
    told: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.told {
            // What is withdrawn is dropped after the lock.
            drop(self.account.limits.change(|ledger| ledger.withdraw(self.claim)));
        }
    }
}

/// The right to run an instance; dropping it gives back what it took.
#[derive(Debug)]
pub(crate) struct Grant {
    account: Arc<ModelLimits>,
    instance: usize,
    unused: bool,
}

impl Grant {
    /// Which instance of its model it is for.
    pub(crate) fn instance(&self) -> usize {
        self.instance
    }

    /// Gives it back as a chance that was not taken.
    pub(crate) fn unused(mut self) {
        self.unused = true;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let (owner, unused) = (self.account.owner(self.instance), self.unused);
        self.account.limits.change(|ledger| ledger.release(owner, unused));
    }
}
