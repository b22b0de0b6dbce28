//! Tracing: which requests are traced, by whose wish, and the spans of the front end itself.

mod context;
mod request;
mod settings;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use http::HeaderMap;
use inference::{EndedSpan, Error, Result, SpanRecorder, TraceContext};
use parking_lot::RwLock;

pub(crate) use self::context::of_caller;
pub(crate) use self::request::RequestSpan;
use self::settings::Overrides;
pub(crate) use self::settings::TraceEdit;
pub use self::settings::{TraceLevel, TraceSettings};
pub(crate) use self::wire::Value;

/// Models that may have settings of their own at once.
const MAX_MODELS: usize = 1024;

/// Trace settings and where spans go; clones share both.
#[derive(Clone)]
pub struct Tracing(Arc<Inner>);

struct Inner {
    recorder: Arc<dyn SpanRecorder>,
    /// Whether any request might be traced.
    is_on: AtomicBool,
    /// What the server was started with.
    at_start: TraceSettings,
    /// What else is told about how traces are exported.
    details: Vec<(String, String)>,
    scopes: RwLock<Scopes>,
}

/// Settings of all models, and of those that have their own.
struct Scopes {
    all: Scope,
    models: BTreeMap<String, Scope>,
}

struct Scope {
    overrides: Overrides,
    settings: TraceSettings,
    /// Requests that came without a caller's trace.
    seen: AtomicU64,
    /// How many more may be traced, where that is bounded.
    left: AtomicU32,
}

impl Scope {
    fn new(overrides: Overrides, inherited: TraceSettings) -> Self {
        let settings = overrides.over(inherited);
        let left = AtomicU32::new(settings.count.unwrap_or(0));
        Scope { overrides, settings, seen: AtomicU64::new(0), left }
    }

    /// Decides about a request, and counts it.
    fn take(&self, caller: Option<bool>) -> bool {
        let number = match caller {
            Some(_) => 0,
            None => self.seen.fetch_add(1, Ordering::Relaxed) + 1,
        };
        let left = self.settings.count.map(|_| self.left.load(Ordering::Relaxed));
        if !settings::is_sampled(self.settings, caller, number, left) {
            return false;
        }
        let take = |left: u32| left.checked_sub(1);
        left.is_none() || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Drops every span.
struct Nowhere;

impl SpanRecorder for Nowhere {
    fn new_id(&self) -> u64 {
        1
    }

    fn record(&self, _: EndedSpan) {}
}

impl Default for Tracing {
    /// Nothing is traced.
    fn default() -> Self {
        Tracing::new(Arc::new(Nowhere), TraceSettings::default(), Vec::new())
    }
}

impl Tracing {
    /// Traces go to `recorder`; `details` are told with the settings.
    pub fn new(recorder: Arc<dyn SpanRecorder>, at_start: TraceSettings, details: Vec<(String, String)>) -> Self {
        let all = Scope::new(Overrides::default(), at_start);
        let is_on = AtomicBool::new(!at_start.level.is_off());
        let scopes = RwLock::new(Scopes { all, models: BTreeMap::new() });
        Tracing(Arc::new(Inner { recorder, is_on, at_start, details, scopes }))
    }

    /// What of a call's headers is needed later to know what the caller traces.
    pub(crate) fn headers_of_caller(&self, headers: &HeaderMap) -> HeaderMap {
        if self.is_on() { context::headers(headers) } else { HeaderMap::new() }
    }

    fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Relaxed)
    }

    /// The settings in force for all models, or for one.
    pub(crate) fn settings(&self, model: &str) -> BTreeMap<String, Value> {
        let scopes = self.0.scopes.read();
        let scope = scopes.models.get(model).unwrap_or(&scopes.all);
        let mut values = scope.settings.values();
        values.extend(self.0.details.iter().map(|(name, value)| (name.clone(), Value::One(value.clone()))));
        values
    }

    /// Changes the settings of all models (when `model` is empty), or of one; counts begin anew.
    ///
    /// # Errors
    /// Overloaded when too many models have settings of their own.
    pub(crate) fn update(&self, model: &str, edit: &TraceEdit) -> Result<BTreeMap<String, Value>> {
        let mut scopes = self.0.scopes.write();
        if model.is_empty() {
            scopes.edit_all(edit, self.0.at_start);
        } else {
            scopes.edit_one(model, edit)?;
        }
        let is_on =
            std::iter::once(&scopes.all).chain(scopes.models.values()).any(|scope| !scope.settings.level.is_off());
        self.0.is_on.store(is_on, Ordering::Relaxed);
        drop(scopes);
        Ok(self.settings(model))
    }

    /// Whether this request is traced, and as part of what.
    fn sample(&self, model: &str, headers: &HeaderMap) -> Option<(TraceContext, TraceLevel)> {
        let scopes = self.0.scopes.read();
        let scope = scopes.models.get(model).unwrap_or(&scopes.all);
        if scope.settings.level.is_off() {
            return None;
        }
        let caller = context::of_caller(headers);
        let is_sampled = scope.take(caller.as_ref().map(|caller| caller.sampled));
        is_sampled.then(|| (caller.map(|caller| caller.context).unwrap_or_default(), scope.settings.level))
    }
}

impl Scopes {
    fn edit_all(&mut self, edit: &TraceEdit, at_start: TraceSettings) {
        let mut overrides = self.all.overrides;
        overrides.edit(edit);
        self.all = Scope::new(overrides, at_start);
        let inherited = self.all.settings;
        self.models.values_mut().for_each(|scope| *scope = Scope::new(scope.overrides, inherited));
    }

    fn edit_one(&mut self, model: &str, edit: &TraceEdit) -> Result<()> {
        let mut overrides = self.models.get(model).map_or_else(Overrides::default, |scope| scope.overrides);
        overrides.edit(edit);
        if overrides.is_empty() {
            self.models.remove(model);
            return Ok(());
        }
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(model) {
            return Err(Error::overloaded(format!(
                "{MAX_MODELS} models have trace settings of their own, which is the limit; clear those of others first"
            )));
        }
        self.models.insert(model.to_owned(), Scope::new(overrides, self.all.settings));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(settings: &[(&str, &[&str])]) -> TraceEdit {
        let mut edit = TraceEdit::default();
        for (name, values) in settings {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            edit.add(name, &values).expect("valid");
        }
        edit
    }

    #[test]
    fn a_model_has_its_own_settings_until_they_are_cleared() {
        let tracing = Tracing::default();
        let sampled = |model: &str| tracing.sample(model, &HeaderMap::new()).is_some();
        let rate = |model: &str| tracing.settings(model)["trace_rate"].clone();
        assert!(!tracing.is_on() && !sampled("m"));
        let times: (&str, &[&str]) = ("trace_level", &["TIMESTAMPS"]);
        tracing.update("m", &edit(&[times, ("trace_rate", &["1"]), ("trace_count", &["2"])])).expect("room");
        assert!(tracing.is_on());
        assert_eq!([sampled("m"), sampled("m"), sampled("m"), sampled("other")], [true, true, false, false]);
        tracing.update("", &edit(&[times, ("trace_rate", &["2"])])).expect("room");
        assert_eq!((rate("m"), rate("other")), (Value::One("1".to_owned()), Value::One("2".to_owned())));
        assert_eq!([sampled("other"), sampled("other")], [false, true]);
        let cleared: [(&str, &[&str]); 3] = [("trace_level", &[]), ("trace_rate", &[]), ("trace_count", &[])];
        tracing.update("m", &edit(&cleared)).expect("room");
        assert_eq!(rate("m"), Value::One("2".to_owned()));
        tracing.update("", &edit(&cleared)).expect("room");
        assert!(!tracing.is_on());
    }

    #[test]
    fn settings_of_single_models_are_bounded() {
        let (tracing, slow) = (Tracing::default(), edit(&[("trace_rate", &["9"])]));
        for model in 0..MAX_MODELS {
            tracing.update(&model.to_string(), &slow).expect("room");
        }
        assert!(tracing.update("one more", &slow).expect_err("full").message().contains("1024 models"));
        tracing.update("7", &slow).expect("it is there already");
    }
}
