//! A cursor over JSON text that reads what a request holds in one pass: objects, arrays, strings; numbers are next door.
//!
//! Own code, because it stands in the request path and tensors are read from the text straight into their typed memory.

use std::borrow::Cow;

use inference::{Error, Result};

use super::number;

/// A position in a JSON text, and how deep in it.
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    max_depth: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8], max_depth: usize) -> Self {
        Cursor { text, at: 0, depth: 0, max_depth }
    }

    /// A second cursor that reads again what stands at `mark`.
    pub(super) fn back_at(&self, mark: Mark) -> Self {
        Cursor { text: self.text, at: mark.at, depth: mark.depth, max_depth: self.max_depth }
    }

    /// Where the cursor is.
    pub(super) fn mark(&self) -> Mark {
        Mark { at: self.at, depth: self.depth }
    }

    /// The text from the cursor on.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// Moves on by `count` bytes.
    pub(super) fn advance(&mut self, count: usize) {
        self.at = (self.at + count).min(self.text.len());
    }

    /// The next byte that is not white space, without taking it.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// An error at the cursor: what was expected, and what stands there.
    pub(super) fn expected(&mut self, what: &str) -> Error {
        let found = match self.peek() {
            None => "the end of the body".to_owned(),
            Some(_) => format!("`{}`", self.excerpt()),
        };
        self.fault(&format!("expected {what}, found {found}"))
    }

    /// An error at the cursor. Telling where that is reads all of the text before it, so that none is made in vain.
    pub(super) fn fault(&self, message: &str) -> Error {
        #[cfg(test)]
        FAULTS.set(FAULTS.get() + 1);
        let before = &self.text[..self.at.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Error::invalid_argument(format!("{message} (line {line}, column {column} of the JSON)"))
    }

    /// The token at the cursor, cut to a readable length.
    fn excerpt(&self) -> String {
        let rest = self.rest();
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
        let length = rest.iter().skip(1).position(ends).map_or(rest.len(), |position| position + 1);
        let shown = String::from_utf8_lossy(&rest[..length.min(24)]).into_owned();
        if length > 24 { format!("{shown}…") } else { shown }
    }

    /// Enters an array or object whose opening byte was taken.
    pub(super) fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth <= self.max_depth {
            return Ok(());
        }
        Err(self.fault(&format!("JSON nests deeper than the limit of {} levels", self.max_depth)))
    }

    /// Leaves an array or object whose closing byte was taken.
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Reads an object; `member` is called with the cursor at each value and must read it.
    pub(super) fn object(&mut self, what: &str, mut member: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        if !self.take(b'{') {
            return Err(self.expected(what));
        }
        self.enter()?;
        if !self.take(b'}') {
            loop {
                let key = self.string("a member's name in quotes")?;
                if !self.take(b':') {
                    return Err(self.expected("':' after a member's name"));
                }
                member(self, &key)?;
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.expected("',' or '}' after a member"));
                }
            }
        }
        self.leave();
        Ok(())
    }

    /// Reads an array; `element` is called with the cursor at each element and its position, and must read it.
    pub(super) fn array(&mut self, what: &str, mut element: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<()> {
        if !self.take(b'[') {
            return Err(self.expected(what));
        }
        self.enter()?;
        if !self.take(b']') {
            for position in 0.. {
                element(self, position)?;
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.expected("',' or ']' after an element"));
                }
            }
        }
        self.leave();
        Ok(())
    }

    /// Reads a string; borrowed where it holds no escape.
    pub(super) fn string(&mut self, what: &str) -> Result<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.expected(what));
        }
        let rest = self.rest();
        let mut plain = true;
        let mut end = 1;
        loop {
            match rest.get(end) {
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    end += 2;
                }
                Some(0..=0x1f) => return Err(self.fault("a string holds a control character; escape it")),
                Some(_) => end += 1,
                None => return Err(self.fault("a string does not end")),
            }
        }
        let text = if plain {
            std::str::from_utf8(&rest[1..end]).map(Cow::Borrowed).map_err(|_| self.fault("a string is not UTF-8"))?
        } else {
            let text: String = serde_json::from_slice(&rest[..=end])
                .map_err(|_| self.fault("a string holds an invalid escape or is not UTF-8"))?;
            Cow::Owned(text)
        };
        self.advance(end + 1);
        Ok(text)
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool> {
        for (word, value) in [("true", true), ("false", false)] {
            if self.word(word) {
                return Ok(value);
            }
        }
        Err(self.expected("true or false"))
    }

    /// Takes a bare word.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.peek();
        let found = self.rest().starts_with(word.as_bytes())
            && !self.rest().get(word.len()).is_some_and(u8::is_ascii_alphanumeric);
        if found {
            self.advance(word.len());
        }
        found
    }

    /// Reads an integer of this type; where there is none, the cursor stays.
    pub(super) fn integer<T: number::Integer>(&mut self) -> Result<T> {
        self.peek();
        match number::integer(self.rest()) {
            Some((value, length)) => {
                self.advance(length);
                Ok(value)
            }
            None => Err(self.expected("an integer of at most 64 bits")),
        }
    }

    /// Reads a number.
    pub(super) fn float(&mut self) -> Result<f64> {
        self.peek();
        match number::float::<f64>(self.rest()) {
            Some((value, length)) => {
                self.advance(length);
                Ok(value)
            }
            None => Err(self.expected("a number")),
        }
    }

    /// Passes over any value, checking that it is well-formed.
    pub(super) fn skip(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'{') => self.object("an object", |cursor, _| cursor.skip()),
            Some(b'[') => self.array("an array", |cursor, _| cursor.skip()),
            Some(b'"') => self.string("a string").map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') if self.word("null") => Ok(()),
            _ => match number::length_of_any(self.rest()) {
                Some(length) => {
                    self.advance(length);
                    Ok(())
                }
                None => Err(self.expected("a value")),
            },
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How many errors this thread has made.
    pub(super) static FAULTS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A place in the text to come back to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    at: usize,
    depth: usize,
}
