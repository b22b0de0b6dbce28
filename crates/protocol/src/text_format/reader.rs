//! Reads tokens into a message, by its descriptor.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};

use super::lexer::{Located, Token};
use super::{MOST_PROBLEMS, scalar};
use crate::suggest::did_you_mean;
use crate::{ConfigProblem, Position, Positions};

/// A bracket that was opened, and must be closed.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    pub(super) close: char,
    pub(super) open: char,
    pub(super) position: Position,
}

/// The state of reading one text.
///
/// A problem is noted once per position, so that what follows from it is not reported as well.
pub(super) struct Reader<'a> {
    tokens: Vec<Located<'a>>,
    next: usize,
    /// In the order of reading; [`Reader::read_entry`] still renames the newest.
    places: Vec<(String, Position)>,
    problems: Vec<ConfigProblem>,
}

impl<'a> Reader<'a> {
    /// `tokens` end with [`Token::End`].
    pub(super) fn new(tokens: Vec<Located<'a>>, problems: Vec<ConfigProblem>) -> Self {
        Reader { tokens, next: 0, places: Vec::new(), problems }
    }

    /// Where everything is, and what is wrong.
    pub(super) fn finish(self) -> (Positions, Vec<ConfigProblem>) {
        let mut positions = Positions::default();
        self.places.into_iter().for_each(|(path, position)| positions.insert(path, position));
        (positions, self.problems)
    }

    /// Reads the whole text as the fields of one message.
    pub(super) fn read_all(&mut self, message: &mut DynamicMessage) {
        self.read_fields(message, "", None);
    }

    pub(super) fn token(&self) -> &Token<'a> {
        &self.tokens[self.next].token
    }

    pub(super) fn token_after(&self) -> &Token<'a> {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)].token
    }

    pub(super) fn position(&self) -> Position {
        self.tokens[self.next].position
    }

    pub(super) fn bump(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    pub(super) fn eat(&mut self, symbol: char) -> bool {
        let found = *self.token() == Token::Symbol(symbol);
        if found {
            self.bump();
        }
        found
    }

    pub(super) fn problem(&mut self, position: Position, message: impl Into<String>) {
        let known = self.problems.iter().any(|problem| problem.position == position);
        if !known && self.problems.len() < MOST_PROBLEMS {
            self.problems.push(ConfigProblem { position, message: message.into() });
        }
    }

    fn note(&mut self, path: String, position: Position) {
        self.places.push((path, position));
    }

    /// Reads fields up to the closing bracket, or to the end of the text when nothing was opened.
    fn read_fields(&mut self, message: &mut DynamicMessage, path: &str, opened: Option<Opened>) {
        let mut seen = HashMap::new();
        loop {
            let position = self.position();
            match self.token().clone() {
                Token::Symbol(symbol) if opened.is_some_and(|opened| opened.close == symbol) => return self.bump(),
                Token::End => return opened.into_iter().for_each(|opened| self.never_closed(opened)),
                Token::Symbol('}' | ']' | '>') if opened.is_some() => {
                    return opened.into_iter().for_each(|opened| self.never_closed(opened));
                }
                Token::Name(name) => {
                    self.bump();
                    self.read_field(message, path, (name, position), &mut seen);
                }
                Token::Symbol('[') => {
                    self.problem(position, "extensions and `Any` are not supported here");
                    self.skip_bracketed();
                    self.skip_value();
                }
                Token::Symbol(symbol @ ('}' | ']' | '>')) => {
                    self.problem(position, format!("`{symbol}` closes nothing"));
                    self.bump();
                }
                token => {
                    self.problem(position, format!("expected a field's name, found {}", token.describe()));
                    self.bump();
                }
            }
        }
    }

    fn read_field(
        &mut self,
        message: &mut DynamicMessage,
        path: &str,
        (name, position): (&str, Position),
        seen: &mut HashMap<String, (String, Position)>,
    ) {
        let descriptor = message.descriptor();
        let Some(field) = descriptor.get_field_by_name(name) else {
            self.unknown_field(&descriptor, name, position);
            return self.skip_value();
        };
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        self.note(path.clone(), position);
        if !field.is_list() && !field.is_map() {
            self.refuse_twice(&field, position, seen);
        }
        if !self.eat(':') && !matches!(field.kind(), Kind::Message(_)) && !self.goes_on_without_colon(name) {
            return;
        }
        if *self.token() == Token::Symbol('[') {
            self.read_list(message, &field, &path);
        } else {
            self.read_value(message, &field, &path, position);
        }
        self.eat_separator();
    }

    pub(super) fn eat_separator(&mut self) {
        if !self.eat(',') {
            self.eat(';');
        }
    }

    fn unknown_field(&mut self, descriptor: &MessageDescriptor, name: &str, position: Position) {
        let fields: Vec<_> = descriptor.fields().collect();
        let hint = did_you_mean(name, fields.iter().map(FieldDescriptor::name).collect::<Vec<_>>());
        self.problem(position, format!("`{name}` is no field of {}{hint}", descriptor.name()));
    }

    /// A field that is no list may be given once, and so may all members of a `oneof` together.
    fn refuse_twice(
        &mut self,
        field: &FieldDescriptor,
        position: Position,
        seen: &mut HashMap<String, (String, Position)>,
    ) {
        let name = field.name();
        let group = field.containing_oneof().map_or_else(|| name.to_owned(), |oneof| format!("oneof {}", oneof.name()));
        match seen.get(&group) {
            Some((other, first)) if other == name => {
                let message = format!("`{name}` is given twice; the first one is at {first}");
                self.problem(position, message);
            }
            Some((other, first)) => {
                let message = format!("`{name}` and `{other}` (at {first}) exclude each other");
                self.problem(position, message);
            }
            None => {
                seen.insert(group, (name.to_owned(), position));
            }
        }
    }

    /// Reads `[ … ]`.
    fn read_list(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor, path: &str) {
        let opened = Opened { close: ']', open: '[', position: self.position() };
        if !field.is_list() && !field.is_map() {
            self.problem(opened.position, format!("`{}` is not a list: give it a single value", field.name()));
            return self.skip_bracketed();
        }
        self.bump();
        if self.eat(']') {
            return;
        }
        loop {
            let position = self.position();
            self.read_value(message, field, path, position);
            if self.eat(']') {
                return;
            }
            if !self.eat(',') {
                if !self.starts_element(field) {
                    return self.never_closed(opened);
                }
                let (position, found) = (self.position(), self.token().describe());
                self.problem(position, format!("expected `,` or `]` in the list, found {found}"));
            }
        }
    }

    /// Reads one value into a field: sets it, or adds to its list or map. `position` is where the value is said to be.
    fn read_value(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor, path: &str, position: Position) {
        if field.is_map() {
            return self.read_entry(message, field, path, position);
        }
        if !field.is_list() {
            let value = self.read_single(field, path);
            return message.set_field(field, value);
        }
        let index = message.get_field(field).as_list().map_or(0, <[Value]>::len);
        let path = format!("{path}[{index}]");
        self.note(path.clone(), position);
        let value = self.read_single(field, &path);
        if let Value::List(values) = message.get_field_mut(field) {
            values.push(value);
        }
    }

    /// Reads one entry of a map: `{ key: … value: … }`.
    fn read_entry(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor, path: &str, position: Position) {
        let Kind::Message(entry) = field.kind() else { return };
        let unnamed = format!("{path}[]");
        let first_place = self.places.len();
        let read = self.read_message(&entry, &unnamed);
        let key = read.get_field(&entry.map_entry_key_field()).into_owned();
        let value = read.get_field(&entry.map_entry_value_field()).into_owned();
        let named = match key.as_str() {
            Some(key) => format!("{path}[{key:?}]"),
            None => format!("{path}[{}]", key.as_u64().unwrap_or_default()),
        };
        for (place, _) in &mut self.places[first_place..] {
            if let Some(rest) = place.strip_prefix(&unnamed) {
                *place = format!("{named}{}", rest.strip_prefix(".value").unwrap_or(rest));
            }
        }
        self.places.insert(first_place, (named, position));
        if let (Some(key), Value::Map(entries)) = (key.into_map_key(), message.get_field_mut(field)) {
            entries.insert(key, value);
        }
    }

    fn read_single(&mut self, field: &FieldDescriptor, path: &str) -> Value {
        match field.kind() {
            Kind::Message(descriptor) => Value::Message(self.read_message(&descriptor, path)),
            Kind::String | Kind::Bytes => self.read_text(field),
            kind => {
                let position = self.position();
                let negative = self.eat('-');
                match scalar::parse(&kind, negative, self.token()) {
                    Ok(value) => {
                        self.bump();
                        value
                    }
                    Err(message) => {
                        self.bad_value(position, format!("`{}`: {message}", field.name()));
                        Value::default_value(&kind)
                    }
                }
            }
        }
    }

    fn read_message(&mut self, descriptor: &MessageDescriptor, path: &str) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let position = self.position();
        if self.eat('{') {
            self.read_fields(&mut message, path, Some(Opened { close: '}', open: '{', position }));
        } else if self.eat('<') {
            self.read_fields(&mut message, path, Some(Opened { close: '>', open: '<', position }));
        } else {
            let found = self.token().describe();
            self.bad_value(position, format!("expected `{{` and the fields of {}, found {found}", descriptor.name()));
        }
        message
    }

    /// Reads string literals; neighbours are one string.
    fn read_text(&mut self, field: &FieldDescriptor) -> Value {
        let position = self.position();
        let mut bytes = Vec::new();
        if !matches!(self.token(), Token::Text(_)) {
            let message = format!("`{}`: expected a string in quotes, found {}", field.name(), self.token().describe());
            self.bad_value(position, message);
            return Value::default_value(&field.kind());
        }
        while let Token::Text(text) = self.token() {
            bytes.extend_from_slice(text);
            self.bump();
        }
        if field.kind() == Kind::Bytes {
            return Value::Bytes(bytes.into());
        }
        String::from_utf8(bytes).map_or_else(
            |_| {
                self.problem(position, format!("`{}`: the string is not valid UTF-8", field.name()));
                Value::String(String::new())
            },
            Value::String,
        )
    }
}
