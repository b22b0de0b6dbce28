//! Which requests are traced: settings of all models and of single ones, which inherit what they do not set. Pure.

/// What is recorded of a traced request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceLevel {
    /// When each part began and ended.
    pub timestamps: bool,
    /// Names, types and shapes of tensors as well.
    pub tensors: bool,
}

impl TraceLevel {
    /// Nothing is recorded.
    pub const OFF: TraceLevel = TraceLevel { timestamps: false, tensors: false };

    /// Whether nothing is recorded.
    pub fn is_off(self) -> bool {
        self == TraceLevel::OFF
    }
}

/// Settings in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// What is recorded.
    pub level: TraceLevel,
    /// One of so many requests is traced, of those that come without a caller's trace.
    pub rate: u32,
    /// How many more requests are traced; `None` for all.
    pub count: Option<u32>,
}

impl Default for TraceSettings {
    /// Triton's.
    fn default() -> Self {
        TraceSettings { level: TraceLevel::OFF, rate: 1000, count: None }
    }
}

/// What a client does to one setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Edit<T> {
    /// Nothing.
    #[default]
    Keep,
    /// Puts it back to what it is inherited from.
    Clear,
    Set(T),
}

/// What a client does to settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TraceEdit {
    pub(crate) level: Edit<TraceLevel>,
    pub(crate) rate: Edit<u32>,
    pub(crate) count: Edit<Option<u32>>,
}

/// What was set over what is inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overrides {
    level: Option<TraceLevel>,
    rate: Option<u32>,
    count: Option<Option<u32>>,
}

impl Overrides {
    pub(super) fn edit(&mut self, edit: &TraceEdit) {
        apply(&mut self.level, edit.level);
        apply(&mut self.rate, edit.rate);
        apply(&mut self.count, edit.count);
    }

    pub(super) fn over(&self, inherited: TraceSettings) -> TraceSettings {
        TraceSettings {
            level: self.level.unwrap_or(inherited.level),
            rate: self.rate.unwrap_or(inherited.rate),
            count: self.count.unwrap_or(inherited.count),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Overrides::default()
    }
}

fn apply<T>(value: &mut Option<T>, edit: Edit<T>) {
    match edit {
        Edit::Keep => {}
        Edit::Clear => *value = None,
        Edit::Set(new) => *value = Some(new),
    }
}

/// Decides about one request. `number` counts the requests that came without a caller's trace, from 1; `left` is how many
/// may still be traced.
pub(super) fn is_sampled(settings: TraceSettings, caller: Option<bool>, number: u64, left: Option<u32>) -> bool {
    let chosen = caller.unwrap_or_else(|| number.is_multiple_of(u64::from(settings.rate.max(1))));
    !settings.level.is_off() && chosen && left != Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: TraceLevel = TraceLevel { timestamps: true, tensors: false };

    #[test]
    fn what_is_not_set_is_inherited_and_what_is_cleared_again() {
        let start = TraceSettings { level: TIMES, rate: 10, count: None };
        let mut model = Overrides::default();
        model.edit(&TraceEdit { rate: Edit::Set(5), count: Edit::Set(Some(3)), ..TraceEdit::default() });
        assert_eq!(model.over(start), TraceSettings { level: TIMES, rate: 5, count: Some(3) });
        model.edit(&TraceEdit { rate: Edit::Clear, ..TraceEdit::default() });
        assert_eq!(model.over(start), TraceSettings { level: TIMES, rate: 10, count: Some(3) });
        assert!(!model.is_empty());
        model.edit(&TraceEdit { count: Edit::Clear, ..TraceEdit::default() });
        assert!(model.is_empty());
    }

    #[test]
    fn the_caller_decides_before_the_rate_and_the_count_before_both() {
        let settings = TraceSettings { level: TIMES, rate: 3, count: None };
        let sampled = |caller, number| is_sampled(settings, caller, number, None);
        assert_eq!((1..=6).filter(|number| sampled(None, *number)).collect::<Vec<_>>(), [3, 6]);
        assert!(sampled(Some(true), 1) && !sampled(Some(false), 3));
        assert!(!is_sampled(settings, Some(true), 3, Some(0)) && is_sampled(settings, None, 3, Some(1)));
        assert!(!is_sampled(TraceSettings { level: TraceLevel::OFF, ..settings }, Some(true), 3, None));
    }
}
