//! What is known of each model of the repositories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use inference::{Error, ModelName};
use repository::{Fingerprint, FoundModel, GivenFiles};

use super::plan::{Node, Nodes};

/// A model of the repositories, or one that a client gave all files of.
#[derive(Default)]
pub(super) struct Record {
    /// Where it was found; `None` when it is in no repository (any more).
    pub(super) place: Option<FoundModel>,
    /// Why it cannot be served although it was found.
    pub(super) conflict: Option<Error>,
    /// The configuration that a client gave instead of the model's own, as JSON.
    pub(super) config: Option<Arc<str>>,
    /// The files that a client gave instead of the model's own.
    pub(super) given: Option<Arc<GivenFiles>>,
    /// It is meant to be served.
    pub(super) wanted: bool,
    /// A client asked for it by name, or it was named at start.
    pub(super) explicit: bool,
    /// Its files are to be looked at by the next update.
    pub(super) due: bool,
    /// The state of its files when they were last looked at.
    pub(super) seen: Option<Fingerprint>,
    /// The state of its files at its last load, whatever that ended in; `None` to load it in any case.
    pub(super) tried: Option<Fingerprint>,
    /// The models that it is composed of, as its files say.
    pub(super) members: BTreeSet<ModelName>,
    /// The versions that its files and its version policy give.
    pub(super) versions: Vec<u64>,
    /// A load of it is under way.
    pub(super) loading: bool,
    /// Why its last load failed.
    pub(super) failure: Option<Error>,
    /// It was loaded once, and then unloaded.
    pub(super) unloaded: bool,
}

/// Where a model's files are, and what counts as its configuration.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) root: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) config: Option<Arc<str>>,
    pub(super) given: Option<Arc<GivenFiles>>,
}

impl Record {
    /// Where its files are; an error when it has none, or too many.
    pub(super) fn origin(&self, name: &str) -> Result<Origin, Error> {
        let config = self.config.clone();
        if let Some(given) = &self.given {
            let directory = given.directory().to_owned();
            return Ok(Origin { root: directory.clone(), directory, config, given: Some(given.clone()) });
        }
        match (&self.conflict, &self.place) {
            (Some(conflict), _) => Err(conflict.clone()),
            (None, Some(FoundModel { root, directory, .. })) => {
                Ok(Origin { root: root.clone(), directory: directory.clone(), config, given: None })
            }
            (None, None) => {
                let message = format!("model '{name}' is in no repository any more");
                Err(Error::not_found(message).with_model(name))
            }
        }
    }

    /// Notes that it has crashed and is to be loaded anew; `false` where that is under way already, or cannot help.
    pub(super) fn revive(&mut self) -> bool {
        // From here on until its load begins there is no `tried`.
        let is_pending = self.loading || self.tried.is_none();
        let revives = self.wanted && self.failure.is_none() && !is_pending;
        if revives {
            (self.tried, self.due) = (None, true);
        }
        revives
    }

    /// Notes that a load of it is under way.
    pub(super) fn begin(&mut self) {
        (self.loading, self.tried) = (true, self.seen);
    }

    /// Notes how a load ended.
    pub(super) fn end(&mut self, failure: Option<Error>) {
        self.loading = false;
        self.unloaded &= failure.is_some();
        self.failure = failure;
    }

    /// Takes what a client gives instead of the model's own configuration and files, and returns what one gave before. Either
    /// makes another load necessary.
    pub(super) fn replace_overrides(
        &mut self,
        config: Option<Arc<str>>,
        given: Option<Arc<GivenFiles>>,
    ) -> (Option<Arc<str>>, Option<Arc<GivenFiles>>) {
        let before = (std::mem::replace(&mut self.config, config), std::mem::replace(&mut self.given, given));
        if before.0.is_some() || before.1.is_some() || self.config.is_some() || self.given.is_some() {
            self.tried = None;
        }
        before
    }

    fn node(&self, loaded: bool) -> Node {
        let can_load = !self.loading && self.conflict.is_none() && (self.place.is_some() || self.given.is_some());
        let changed = can_load && (self.tried.is_none() || self.tried != self.seen);
        Node { wanted: self.wanted, changed, loaded, members: self.members.clone() }
    }
}

/// All of them, by name.
#[derive(Default)]
pub(crate) struct Records(pub(super) BTreeMap<ModelName, Record>);

impl Records {
    /// Whether a request by this name is meant for one of them.
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The only one's name, if there is just one.
    pub(crate) fn only(&self) -> Option<&str> {
        if self.0.len() == 1 { self.0.keys().next().map(|name| &**name) } else { None }
    }

    /// Takes over which models the repositories have. Models of a repository that could not be listed stay where they were.
    pub(super) fn note(&mut self, found: Vec<FoundModel>, unlisted: &[PathBuf]) {
        let stays = |place: &FoundModel| unlisted.contains(&place.root);
        for record in self.0.values_mut() {
            record.place = record.place.take().filter(stays);
            record.conflict = None;
        }
        for model in found {
            let record = self.0.entry(model.name.as_str().into()).or_default();
            match &record.place {
                Some(other) if other.root != model.root => {
                    let (first, second) = (other.directory.display(), model.directory.display());
                    let message = format!("model '{}' is in two repositories: {first} and {second}", model.name);
                    record.conflict = Some(Error::invalid_argument(message).with_model(model.name));
                }
                _ => record.place = Some(model),
            }
        }
    }

    /// Forgets what is in no repository and in no use.
    pub(super) fn forget(&mut self, is_loaded: impl Fn(&ModelName) -> bool) {
        self.0.retain(|name, record| {
            let is_somewhere = record.place.is_some() || (record.given.is_some() && record.wanted);
            is_somewhere || record.loading || is_loaded(name)
        });
    }

    /// As an update sees them.
    pub(super) fn nodes(&self, is_loaded: impl Fn(&ModelName) -> bool) -> Nodes {
        self.0.iter().map(|(name, record)| (name.clone(), record.node(is_loaded(name)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn found(root: &str, name: &str) -> FoundModel {
        FoundModel { name: name.to_owned(), root: root.into(), directory: Path::new(root).join(name) }
    }

    #[test]
    fn one_crash_makes_one_load_necessary() {
        let folder = tempfile::tempdir().expect("temporary");
        let seen = Some(Fingerprint::of(folder.path()));
        let mut record = Record { wanted: true, seen, tried: seen, ..Record::default() };
        assert!(record.revive() && record.due);
        assert!(!record.revive(), "it is due");
        record.due = false;
        assert!(!record.revive(), "an update has taken it up");
        record.begin();
        assert!(!record.revive(), "it is being loaded");
        record.end(None);
        assert!(record.revive(), "it has crashed again");
        record.begin();
        record.end(Some(Error::internal("bad")));
        assert!(!record.revive(), "it could not be loaded");
        record = Record { wanted: false, failure: None, ..record };
        assert!(!record.revive(), "nobody wants it");
    }

    #[test]
    fn models_come_and_go_and_must_be_in_one_repository() {
        let mut records = Records::default();
        records.note(vec![found("/x", "a"), found("/y", "b")], &[]);
        assert!(records.0["a"].origin("a").is_ok());
        records.note(vec![found("/x", "a"), found("/y", "a")], &["/y".into()]);
        let error = records.0["a"].origin("a").expect_err("two of them");
        assert!(error.message().contains("two repositories: /x/a and /y/a"), "{error}");
        assert!(records.0["b"].origin("b").is_ok(), "its repository could not be listed, which says nothing about it");
        records.note(vec![found("/y", "a")], &[]);
        assert_eq!(records.0["a"].origin("a").expect("one is left").directory, Path::new("/y/a"));
        records.forget(|name| &**name == "b");
        assert!(records.0.contains_key("b"), "it serves");
        records.forget(|_| false);
        assert_eq!(records.0.keys().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
    }
}
