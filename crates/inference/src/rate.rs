//! What an instance needs before it may run, and how often it gets a chance, as `rate_limiter` of its group says.

/// So much of something that instances share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceDemand {
    /// Its name; upper and lower case are the same.
    pub name: String,
    /// One for the whole server, and not one for each device.
    pub global: bool,
    /// How much of it an execution takes; at least 1.
    pub count: u32,
}

/// `ModelRateLimiter`: matters only where the server limits rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimiter {
    /// What each instance of the group takes while it runs.
    pub resources: Vec<ResourceDemand>,
    /// An instance of priority 2 gets half as many chances to run as one of priority 1; at least 1.
    pub priority: u32,
}

impl Default for RateLimiter {
    fn default() -> Self {
        RateLimiter { resources: Vec::new(), priority: 1 }
    }
}
