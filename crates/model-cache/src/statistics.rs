//! Whose statistics a client is told, and under which names.
//!
//! Where the client names an archive as its target, models go by their own names within it. Elsewhere an archive's entry
//! model goes by the archive's key, and its composing models by their own names, as the ensemble's configuration has them
//! (that is where load generators take them from); where two would have the same name, a composing model is
//! `<archive>/<model>`, as in the metrics.

use std::collections::HashMap;
use std::sync::Arc;

use inference::{Error, MemoryUsage, ModelKey, ModelName, ModelStatistics, Result};
use scheduler::Tally;

use crate::cache::ModelCache;
use crate::loaded::LoadedArchive;
use crate::loader::metric_name;
use crate::route::{ArchiveKey, Route};

/// One version of a model that is in memory.
struct Row {
    archive: ArchiveKey,
    is_entry: bool,
    model: ModelName,
    version: u64,
    tally: Arc<Tally>,
    memory: MemoryUsage,
}

impl Row {
    /// By the archive's key or its own name.
    fn short_name(&self) -> String {
        if self.is_entry { self.archive.to_string() } else { self.model.to_string() }
    }

    /// Told apart from every other model.
    fn full_name(&self) -> String {
        full_name(&self.archive, self.is_entry, &self.model)
    }

    fn read(&self, name: String) -> ModelStatistics {
        self.tally.read(name, self.version, self.memory.clone())
    }
}

fn full_name(archive: &ArchiveKey, is_entry: bool, model: &ModelName) -> String {
    metric_name(archive.name().as_deref(), Some(model).filter(|_| is_entry), model)
}

/// The models of an archive, its entry model first.
fn rows(archive: &LoadedArchive, rows: &mut Vec<Row>) {
    let first = rows.len();
    for (model, versions) in &archive.models {
        let is_entry = archive.is_called_by_its_key(model);
        rows.extend(versions.iter().map(|(version, served)| Row {
            archive: archive.key.clone(),
            is_entry,
            model: model.clone(),
            version: *version,
            tally: served.tally.clone(),
            memory: served.memory.clone(),
        }));
    }
    rows[first..].sort_by_key(|row| !row.is_entry);
}

/// Every row under its short name, or under its full one where another model has the short one.
fn named(rows: &[Row]) -> Vec<ModelStatistics> {
    let mut models: HashMap<String, Vec<(&ArchiveKey, &ModelName)>> = HashMap::new();
    for row in rows {
        let known = models.entry(row.short_name()).or_default();
        if !known.contains(&(&row.archive, &row.model)) {
            known.push((&row.archive, &row.model));
        }
    }
    let name = |row: &Row| Some(row.short_name()).filter(|name| models[name].len() == 1);
    rows.iter().map(|row| row.read(name(row).unwrap_or_else(|| row.full_name()))).collect()
}

impl ModelCache {
    pub(crate) fn statistics_of(&self, key: &ModelKey) -> Result<Vec<ModelStatistics>> {
        if *key == ModelKey::default() {
            return Ok(named(&self.all_rows()));
        }
        let route = self.route(key).or_else(|error| self.composing_model(key).ok_or(error))?;
        let found = self.rows_of(&route);
        let member = if found.is_empty() { self.composing_model(key) } else { None };
        let (route, found) = match member {
            Some(member) => (member.clone(), self.rows_of(&member)),
            None => (route, found),
        };
        let wanted = |row: &&Row| match (&route.model, key.version) {
            (Some(model), version) => row.model == *model && version.is_none_or(|version| row.version == version),
            (None, Some(version)) => row.is_entry && row.version == version,
            (None, None) => true,
        };
        let name = |row: &Row| match &key.model {
            Some(name) if row.is_entry || route.model.is_some() => name.to_string(),
            _ => row.model.to_string(),
        };
        let mut statistics: Vec<_> = found.iter().filter(wanted).map(|row| row.read(name(row))).collect();
        if found.is_empty() {
            let kept = self.labels.kept(&full_name(&route.archive, route.model.is_none(), &model_or_empty(&route)));
            statistics.extend(kept.into_iter().filter(|kept| key.version.is_none_or(|wanted| kept.version == wanted)));
        }
        if statistics.is_empty() { Err(unavailable(key)) } else { Ok(statistics) }
    }

    /// The composing model of an archive in memory that a name means which means nothing else: its own name, where only one
    /// archive has such a model, or `<archive>/<model>`. It can be looked at by that name, not called.
    pub(crate) fn composing_model(&self, key: &ModelKey) -> Option<Route> {
        let (None, Some(name)) = (&key.target, &key.model) else { return None };
        let mut short = Vec::new();
        let full = self.room.read(|residency| {
            let archives = residency.iter().filter(|archive| !matches!(archive.key, ArchiveKey::Model(_)));
            let members = archives.flat_map(|archive| archive.models.keys().map(move |model| (archive, model)));
            for (archive, model) in members.filter(|(archive, model)| !archive.is_called_by_its_key(model)) {
                let route = || Route { archive: archive.key.clone(), model: Some(model.clone()) };
                if model == name {
                    short.push(route());
                } else if full_name(&archive.key, false, model) == **name {
                    return Some(route());
                }
            }
            None
        });
        full.or_else(|| short.pop().filter(|_| short.is_empty()))
    }

    fn all_rows(&self) -> Vec<Row> {
        let mut all = Vec::new();
        self.room.read(|residency| residency.iter().for_each(|archive| rows(archive, &mut all)));
        all.sort_by(|a, b| a.archive.cmp(&b.archive));
        all
    }

    fn rows_of(&self, route: &Route) -> Vec<Row> {
        let mut found = Vec::new();
        self.room.read(|residency| {
            if let Some(archive) = residency.peek(&route.archive) {
                rows(archive, &mut found);
            }
        });
        found
    }
}

fn model_or_empty(route: &Route) -> ModelName {
    route.model.clone().unwrap_or_else(|| "".into())
}

fn unavailable(key: &ModelKey) -> Error {
    let version = key.version.map(|version| format!(" version {version}")).unwrap_or_default();
    let message = format!(
        "requested model '{key}'{version} is not available: no statistics are kept of it; they begin when it is first loaded"
    );
    Error::not_found(message).with_model(key.to_string())
}

#[cfg(test)]
mod tests {
    use inference::TargetModel;

    use super::*;

    fn row(archive: &str, model: &str, is_entry: bool) -> Row {
        let archive = match archive {
            "" => ArchiveKey::Model(model.into()),
            key => ArchiveKey::Target(TargetModel::new(key).expect("valid")),
        };
        let (tally, memory) = Default::default();
        Row { archive, is_entry, model: model.into(), version: 1, tally, memory }
    }

    #[test]
    fn names_are_short_where_that_is_clear() {
        let rows = [
            row("a.tar.gz", "pipeline", true),
            row("a.tar.gz", "encode", false),
            row("a.tar.gz", "decode", false),
            row("b.tar.gz", "pipeline", true),
            row("b.tar.gz", "encode", false),
            Row { version: 2, ..row("b.tar.gz", "rank", false) },
            row("b.tar.gz", "rank", false),
            row("b.tar.gz", "resnet", false),
            row("", "resnet", false),
        ];
        let names: Vec<_> = named(&rows).into_iter().map(|row| row.name).collect();
        let expected = [
            "a.tar.gz",
            "a.tar.gz/encode",
            "decode",
            "b.tar.gz",
            "b.tar.gz/encode",
            "rank",
            "rank",
            "b.tar.gz/resnet",
            "resnet",
        ];
        assert_eq!(names, expected);
    }
}
