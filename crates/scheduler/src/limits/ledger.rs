//! Decides which instances may run: never more than there is of what they need, and by priority. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use inference::{Device, Error, RateLimiter, Result};

/// Something that instances share: of one device, or (`None`) of the whole server. The name is in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Resource {
    name: String,
    device: Option<Device>,
}

/// Names an instance: a model, and which of its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) model: u64,
    pub(crate) instance: usize,
}

/// How much there is of a resource, as the server's options say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// The resource; upper and lower case are the same.
    pub name: String,
    /// How much of it.
    pub count: u32,
    /// On which GPU; `None` for each device, and for what the whole server shares.
    pub gpu: Option<u32>,
}

/// What an instance takes while it runs, and its standing.
#[derive(Clone, Debug)]
struct Account {
    needs: Vec<(Resource, u32)>,
    priority: u64,
    /// Grows by the priority with each run: whoever has the least is next.
    pass: u64,
}

/// Who runs and who waits.
///
/// Of every resource `used` is at most its capacity, and `running` at most `places`.
#[derive(Debug)]
pub(super) struct Ledger<T> {
    places: usize,
    running: usize,
    limits: Vec<ResourceLimit>,
    accounts: BTreeMap<Owner, Account>,
    capacity: HashMap<Resource, u32>,
    used: HashMap<Resource, u32>,
    /// By the number of their claim.
    waiting: BTreeMap<u64, (Owner, T)>,
    claims: u64,
    /// The pass of who ran last: whoever comes back after a pause begins there and makes up for nothing.
    pass: u64,
}

impl<T> Ledger<T> {
    /// At most so many run at once.
    pub(super) fn new(places: usize, limits: Vec<ResourceLimit>) -> Self {
        Ledger {
            places,
            running: 0,
            limits: limits
                .into_iter()
                .map(|limit| ResourceLimit { name: limit.name.to_lowercase(), ..limit })
                .collect(),
            accounts: BTreeMap::new(),
            capacity: HashMap::new(),
            used: HashMap::new(),
            waiting: BTreeMap::new(),
            claims: 0,
            pass: 0,
        }
    }

    /// A model's instances are there: what each needs, and where it is.
    ///
    /// # Errors
    /// InvalidArgument when there will never be as much of a resource, or it is both global and a device's own.
    pub(super) fn open(&mut self, model: u64, name: &str, instances: &[(Device, RateLimiter)]) -> Result<()> {
        let mut opened = Vec::new();
        for (instance, (device, limiter)) in instances.iter().enumerate() {
            let mut needs: BTreeMap<Resource, u32> = BTreeMap::new();
            for demand in &limiter.resources {
                let device = (!demand.global).then_some(*device);
                let need = needs.entry(Resource { name: demand.name.to_lowercase(), device }).or_default();
                *need = need.saturating_add(demand.count.max(1));
            }
            let needs: Vec<(Resource, u32)> = needs.into_iter().collect();
            let account = Account { needs, priority: u64::from(limiter.priority.max(1)), pass: self.pass };
            opened.push((Owner { model, instance }, account));
        }
        let needs = || opened.iter().flat_map(|(_, account)| &account.needs);
        for (resource, count) in needs() {
            self.check(name, resource, *count, needs().map(|(other, _)| other))?;
        }
        self.accounts.extend(opened);
        self.count_capacity();
        Ok(())
    }

    fn check<'a>(
        &'a self,
        model: &str,
        resource: &Resource,
        count: u32,
        own: impl Iterator<Item = &'a Resource>,
    ) -> Result<()> {
        let problem = |what: String| {
            Err(Error::invalid_argument(format!("model '{model}': instance_group's rate_limiter: {what}"))
                .with_model(model))
        };
        let name = &resource.name;
        let mixed = |other: &Resource| other.name == *name && other.device.is_none() != resource.device.is_none();
        if own.chain(self.capacity.keys()).any(mixed) {
            return problem(format!("resource '{name}' is present as both global and device-specific"));
        }
        match self.limit(resource) {
            Some(limit) if limit < count => problem(format!(
                "resource '{name}' is limited to {limit} by --rate-limit-resource, and an instance needs {count}; raise the \
                 limit, or lower the count"
            )),
            _ => Ok(()),
        }
    }

    /// What the options say of it: for its device, or else for each.
    fn limit(&self, resource: &Resource) -> Option<u32> {
        let gpu = match resource.device {
            Some(Device::Gpu(ordinal)) => Some(ordinal),
            _ => None,
        };
        let named = || self.limits.iter().filter(|limit| limit.name == resource.name);
        let global = resource.device.is_none();
        let own = named().find(|limit| limit.gpu.is_some() && limit.gpu == gpu);
        own.or_else(|| named().find(|limit| limit.gpu.is_none() || global)).map(|limit| limit.count)
    }

    /// Where the options say nothing there is as much as the most demanding instance needs, as in Triton.
    fn count_capacity(&mut self) {
        let mut capacity: HashMap<Resource, u32> = HashMap::new();
        for (resource, count) in self.accounts.values().flat_map(|account| &account.needs) {
            let limit = self.limit(resource);
            let most = capacity.entry(resource.clone()).or_default();
            *most = limit.unwrap_or_else(|| (*count).max(*most));
        }
        self.capacity = capacity;
    }

    /// A model is gone. Those of its instances that run still are to be told to [`Ledger::release`] before.
    pub(super) fn close(&mut self, model: u64) {
        self.accounts.retain(|owner, _| owner.model != model);
        self.waiting.retain(|_, (owner, _)| owner.model != model);
        self.count_capacity();
    }

    /// An instance wants to run. Returns the claim's number. One that nothing is known of needs nothing.
    pub(super) fn claim(&mut self, owner: Owner, payload: T) -> u64 {
        let unknown = || Account { needs: Vec::new(), priority: 1, pass: 0 };
        let account = self.accounts.entry(owner).or_insert_with(unknown);
        account.pass = account.pass.max(self.pass);
        self.claims += 1;
        self.waiting.insert(self.claims, (owner, payload));
        self.claims
    }

    /// It does not want to any more; `None` when it does not wait.
    pub(super) fn withdraw(&mut self, claim: u64) -> Option<T> {
        self.waiting.remove(&claim).map(|(_, payload)| payload)
    }

    /// It has run; or, `unused`, it could have and did not.
    pub(super) fn release(&mut self, owner: Owner, unused: bool) {
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        self.running -= 1;
        if unused {
            account.pass = account.pass.saturating_sub(account.priority);
        }
        for (resource, count) in &account.needs {
            if let Some(used) = self.used.get_mut(resource) {
                *used -= count;
            }
        }
    }

    /// Lets those run that can, whoever had the fewest chances for its priority first. Who waits for a resource keeps it
    /// from those behind, so that small demands never starve a large one.
    pub(super) fn grant(&mut self) -> Vec<(Owner, T)> {
        let mut order: Vec<(u64, u64, Owner)> = self
            .waiting
            .iter()
            .filter_map(|(claim, (owner, _))| Some((self.accounts.get(owner)?.pass, *claim, *owner)))
            .collect();
        order.sort_unstable();
        let (mut awaited, mut granted) = (BTreeSet::new(), Vec::new());
        for (_, claim, owner) in order {
            if self.running >= self.places {
                break;
            }
            let Some(account) = self.accounts.get_mut(&owner) else { continue };
            let (used, capacity) = (&self.used, &self.capacity);
            let free = |resource: &Resource| {
                capacity.get(resource).copied().unwrap_or(0).saturating_sub(used.get(resource).copied().unwrap_or(0))
            };
            if !account.needs.iter().all(|(resource, count)| !awaited.contains(resource) && *count <= free(resource)) {
                awaited.extend(account.needs.iter().map(|(resource, _)| resource.clone()));
                continue;
            }
            for (resource, count) in &account.needs {
                *self.used.entry(resource.clone()).or_default() += count;
            }
            self.running += 1;
            self.pass = self.pass.max(account.pass);
            account.pass += account.priority;
            granted.extend(self.waiting.remove(&claim));
        }
        granted
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
