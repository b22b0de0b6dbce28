//! One update of the repositories' models: looks at files, plans, unloads, and loads round by round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use inference::{CacheTier, Error, ModelName};
use repository::{Repository, read_model};

use super::plan::plan;
use super::record::{Origin, Record};
use super::{Repositories, late, look};
use crate::archive_load::Source;
use crate::loaded::Files;
use crate::room::UnloadReason;
use crate::route::ArchiveKey;

impl Repositories {
    /// Brings what is loaded in line with what is wanted. The caller holds the turn.
    pub(super) async fn update(self: &Arc<Self>) {
        while self.look_at_due().await {}
        let plan = plan(&self.nodes());
        let broken = plan.broken.keys();
        plan.unload.iter().chain(broken).for_each(|name| self.take_out(name));
        self.note_broken(&plan.broken);
        for round in plan.rounds {
            self.load_round(round).await;
        }
        let mut records = self.records.write();
        self.room.read(|residency| records.forget(|name| super::is_loaded(residency, name)));
    }

    /// Looks at the files of models that are due. `true` when their members have become due by that.
    async fn look_at_due(&self) -> bool {
        let mut models = Vec::new();
        for (name, record) in &mut self.records.write().0 {
            if std::mem::take(&mut record.due) && record.wanted {
                match record.origin(name) {
                    Ok(origin) => models.push((name.clone(), origin, record.tried)),
                    Err(error) => (record.tried, record.failure) = (None, Some(error)),
                }
            }
        }
        let looks = look::look(models).await;
        let mut records = self.records.write();
        let mut members = BTreeSet::new();
        for look in looks {
            let Some(record) = records.0.get_mut(&look.name) else { continue };
            record.seen = Some(look.seen);
            if let Some((composed_of, versions)) = look.read {
                (record.members, record.versions) = (composed_of, versions);
            }
            members.extend(record.members.iter().cloned());
        }
        let mut is_any_due = false;
        for member in members {
            let can_serve = |record: &&mut Record| !record.wanted && record.place.is_some();
            let Some(record) = records.0.get_mut(&member).filter(can_serve) else { continue };
            (record.wanted, record.due, record.tried) = (true, true, None);
            is_any_due = true;
        }
        is_any_due
    }

    /// Takes a model out of reach of new requests.
    fn take_out(self: &Arc<Self>, name: &ModelName) {
        if self.room.begin_remove(&ArchiveKey::Model(name.clone()), UnloadReason::Request)
            && let Some(record) = self.records.write().0.get_mut(name)
        {
            record.unloaded = true;
        }
    }

    fn note_broken(&self, broken: &BTreeMap<ModelName, ModelName>) {
        let mut records = self.records.write();
        for (name, member) in broken {
            if let Some(record) = records.0.get_mut(name) {
                // To be loaded as soon as its member is there.
                record.tried = None;
                record.failure = Some(without_member(name, member));
            }
        }
    }

    /// Loads models at once, as far as there are slots, and waits until each is over or overdue.
    async fn load_round(self: &Arc<Self>, round: BTreeSet<ModelName>) {
        futures::future::join_all(round.into_iter().map(|name| self.load_one(name))).await;
    }

    async fn load_one(self: &Arc<Self>, name: ModelName) {
        let source = match self.begin(&name) {
            Ok(source) => source,
            Err(error) => return self.end(&name, Some(error)),
        };
        let overdue = source.overdue.clone();
        let (this, model) = (self.clone(), name.clone());
        // A task of its own: it goes on when it is overdue.
        let loading = tokio::spawn(async move {
            let loaded = this.loads.load(source).await;
            this.end(&model, loaded.err());
        });
        tokio::select! {
            ended = loading => if let Err(panic) = ended {
                self.end(&name, Some(Error::internal(format!("loading model '{name}' panicked: {panic}"))));
            },
            () = overdue.notified() => self.note_overdue(&name),
        }
    }

    fn note_overdue(&self, name: &ModelName) {
        // It may have ended at this very moment.
        if let Some(record) = self.records.write().0.get_mut(name).filter(|record| record.loading) {
            record.failure = Some(late(name));
        }
    }

    /// Notes that a load is under way, and says what is to be loaded.
    fn begin(&self, name: &ModelName) -> Result<Source, Error> {
        let mut records = self.records.write();
        let record = records.0.get_mut(name).ok_or_else(|| super::unknown(name))?;
        record.begin();
        let origin = record.origin(name)?;
        let pins = record.members.iter().map(|member| self.pin(member).ok_or_else(|| without_member(name, member)));
        let members = pins.collect::<Result<Vec<_>, _>>().inspect_err(|_| record.tried = None)?;
        let version = record.seen.map_or_else(String::new, |seen| seen.to_string()).into();
        let files = origin.given.clone().map_or(Files::Foreign, Files::Given);
        let model = name.clone();
        let read = Box::new(move || read(&model, &origin));
        let key = ArchiveKey::Model(name.clone());
        Ok(Source {
            key,
            version,
            tier: CacheTier::Disk,
            read,
            files,
            members,
            kept: true,
            urgency: None,
            overdue: Arc::default(),
        })
    }

    /// Notes how a load ended.
    fn end(self: &Arc<Self>, name: &ModelName, failure: Option<Error>) {
        let mut records = self.records.write();
        let Some(record) = records.0.get_mut(name) else { return };
        record.end(failure);
        let is_wanted = record.wanted;
        drop(records);
        if !is_wanted {
            self.take_out(name);
        }
    }
}

fn read(name: &str, origin: &Origin) -> Result<Repository, Error> {
    let model = read_model(&origin.root, &origin.directory, name, origin.config.as_deref())?;
    Ok(Repository { entry: Some(model.spec.name.clone()), models: vec![model] })
}

/// In Triton's words.
fn without_member(name: &str, member: &str) -> Error {
    let message = format!("ensemble '{name}' depends on '{member}' which has no loaded version");
    Error::invalid_argument(message).with_model(name)
}
