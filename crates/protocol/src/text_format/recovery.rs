//! How reading goes on after a problem, so that one run reports them all.

use prost_reflect::{FieldDescriptor, Kind};

use super::lexer::Token;
use super::reader::{Opened, Reader};
use crate::Position;

impl Reader<'_> {
    /// Reports a bracket that is still open where it cannot be.
    pub(super) fn never_closed(&mut self, opened: Opened) {
        let found = match self.token() {
            Token::End => self.token().describe(),
            token => format!("{} at {}", token.describe(), self.position()),
        };
        let what = match opened.open {
            '[' => "the list opened here is never closed: expected `,` or `]`".to_owned(),
            open => format!("`{open}` opened here is never closed: expected a field or `{}`", opened.close),
        };
        self.problem(opened.position, format!("{what}, found {found}"));
    }

    /// Reports the missing colon after a field's name; whether a value follows all the same.
    pub(super) fn goes_on_without_colon(&mut self, name: &str) -> bool {
        let (position, found) = (self.position(), self.token().describe());
        self.problem(position, format!("expected `:` after `{name}`, found {found}"));
        matches!(self.token(), Token::Text(_) | Token::Number(_) | Token::Symbol('-' | '['))
    }

    /// Reports a value that does not fit its field, and skips it unless it looks like the next field or a closing bracket.
    pub(super) fn bad_value(&mut self, position: Position, message: String) {
        self.problem(position, message);
        if !self.at_next_field() {
            self.skip_one();
        }
    }

    /// Whether an element of a list of `field` could start here.
    pub(super) fn starts_element(&self, field: &FieldDescriptor) -> bool {
        match self.token() {
            Token::Symbol('{' | '<') => matches!(field.kind(), Kind::Message(_)),
            Token::Number(_) | Token::Text(_) | Token::Symbol('-') => true,
            Token::Name(_) => !matches!(field.kind(), Kind::Message(_)) && !self.at_next_field(),
            _ => false,
        }
    }

    /// Skips the value of a field that is not known, and the separator after it.
    pub(super) fn skip_value(&mut self) {
        let colon = self.eat(':');
        let bracket = matches!(self.token(), Token::Symbol('[' | '{' | '<'));
        if bracket || (colon && !self.at_next_field()) {
            self.skip_one();
        }
        self.eat_separator();
    }

    /// A name followed by what follows a field's name.
    fn at_next_field(&self) -> bool {
        matches!(self.token(), Token::Name(_)) && matches!(self.token_after(), Token::Symbol(':' | '{' | '[' | '<'))
    }

    /// Skips a bracketed value, a literal with its sign, or nothing.
    fn skip_one(&mut self) {
        while self.eat('-') {}
        match self.token() {
            Token::Symbol('[' | '{' | '<') => self.skip_bracketed(),
            Token::Text(_) => {
                while matches!(self.token(), Token::Text(_)) {
                    self.bump();
                }
            }
            Token::Name(_) | Token::Number(_) => self.bump(),
            Token::Symbol(_) | Token::End => {}
        }
    }

    /// Skips from an opening bracket to the one that closes it.
    pub(super) fn skip_bracketed(&mut self) {
        let mut open: Vec<Opened> = Vec::new();
        loop {
            let position = self.position();
            match *self.token() {
                Token::Symbol(symbol @ ('[' | '{' | '<')) => {
                    let close = match symbol {
                        '[' => ']',
                        '{' => '}',
                        _ => '>',
                    };
                    open.push(Opened { close, open: symbol, position });
                }
                Token::Symbol(symbol @ (']' | '}' | '>')) => match open.pop() {
                    Some(opened) if opened.close == symbol => {}
                    Some(opened) => return self.never_closed(opened),
                    None => return,
                },
                Token::End => return open.into_iter().for_each(|opened| self.never_closed(opened)),
                _ => {}
            }
            self.bump();
            if open.is_empty() {
                return;
            }
        }
    }
}
