//! Splits text into tokens, each with its position.

use super::{MOST_PROBLEMS, escape};
use crate::{ConfigProblem, Position};

/// A piece of text format.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A field's name, an enum's value, `true`, `inf`, …
    Name(&'a str),
    /// A number without its sign, not yet judged.
    Number(&'a str),
    /// One string literal, unescaped.
    Text(Vec<u8>),
    /// A bracket, separator, colon or sign.
    Symbol(char),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// How messages name this token.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Name(text) | Token::Number(text) => format!("`{text}`"),
            Token::Text(bytes) => format!("the string {:?}", String::from_utf8_lossy(bytes)),
            Token::Symbol(symbol) => format!("`{symbol}`"),
            Token::End => "the end of the file".to_owned(),
        }
    }
}

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Located<'a> {
    pub(super) token: Token<'a>,
    pub(super) position: Position,
}

/// All tokens (the last one is [`Token::End`]) and what could not be read as one.
pub(super) fn tokens(text: &str) -> (Vec<Located<'_>>, Vec<ConfigProblem>) {
    let mut lexer = Lexer { text, at: 0, position: Position::START, problems: Vec::new() };
    // Editors on Windows put a byte order mark in front.
    lexer.take_while(|character| character == '\u{feff}');
    lexer.position = Position::START;
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let position = lexer.position;
        match lexer.token() {
            Some(Token::End) => {
                tokens.push(Located { token: Token::End, position });
                return (tokens, lexer.problems);
            }
            Some(token) => tokens.push(Located { token, position }),
            None => {}
        }
    }
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    position: Position,
    problems: Vec<ConfigProblem>,
}

impl<'a> Lexer<'a> {
    pub(super) fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        if character == '\n' {
            self.position = Position { line: self.position.line.saturating_add(1), column: 1 };
        } else {
            self.position.column = self.position.column.saturating_add(1);
        }
        Some(character)
    }

    pub(super) fn take_while(&mut self, mut accept: impl FnMut(char) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&mut accept) {
            self.bump();
        }
        &self.text[start..self.at]
    }

    pub(super) fn problem(&mut self, position: Position, message: impl Into<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(ConfigProblem { position, message: message.into() });
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|character| matches!(character, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}'));
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|character| character != '\n');
        }
    }

    /// The next token, or `None` where something was reported and skipped instead.
    fn token(&mut self) -> Option<Token<'a>> {
        let Some(first) = self.peek() else { return Some(Token::End) };
        let second = self.text[self.at + first.len_utf8()..].chars().next();
        match first {
            'a'..='z' | 'A'..='Z' | '_' => Some(Token::Name(self.take_while(is_name))),
            '0'..='9' => Some(Token::Number(self.number())),
            '.' if second.is_some_and(|character| character.is_ascii_digit()) => Some(Token::Number(self.number())),
            '"' | '\'' => Some(Token::Text(escape::string(self))),
            '{' | '}' | '[' | ']' | '<' | '>' | ':' | ',' | ';' | '-' | '.' | '/' => {
                self.bump();
                Some(Token::Symbol(first))
            }
            _ => {
                let position = self.position;
                self.take_while(|character| character == first);
                self.problem(position, format!("unexpected character {first:?}"));
                None
            }
        }
    }

    /// Everything up to what cannot belong to a number; [`super::scalar`] judges it.
    fn number(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let hexadecimal = rest.starts_with("0x") || rest.starts_with("0X");
        let mut previous = '0';
        self.take_while(|character| {
            let sign_of_exponent = matches!(character, '+' | '-') && matches!(previous, 'e' | 'E') && !hexadecimal;
            previous = character;
            is_name(character) || character == '.' || sign_of_exponent
        })
    }
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}
