//! String literals and their escapes.

use super::lexer::Lexer;
use crate::Position;

/// Reads one string literal, whose opening quote is next. What is wrong in it is reported and left out.
pub(super) fn string(lexer: &mut Lexer<'_>) -> Vec<u8> {
    let opened = lexer.position();
    let quote = lexer.bump();
    let mut bytes = Vec::new();
    loop {
        let position = lexer.position();
        match lexer.peek() {
            None | Some('\n') => {
                lexer.problem(opened, "this string is not closed on its line; write a line break as `\\n`");
                return bytes;
            }
            Some('\\') => {
                lexer.bump();
                escape(lexer, position, &mut bytes);
            }
            character if character == quote => {
                lexer.bump();
                return bytes;
            }
            Some(character) => {
                lexer.bump();
                push(character, &mut bytes);
            }
        }
    }
}

fn push(character: char, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Reads what follows a backslash at `position`.
fn escape(lexer: &mut Lexer<'_>, position: Position, bytes: &mut Vec<u8>) {
    let simple = match lexer.peek() {
        Some('a') => 0x07,
        Some('b') => 0x08,
        Some('f') => 0x0c,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('v') => 0x0b,
        Some(same @ ('?' | '\\' | '\'' | '"')) => same as u8,
        Some('0'..='7') => return octal(lexer, position, bytes),
        Some(radix @ ('x' | 'X')) => {
            lexer.bump();
            return match digits(lexer, 16, 2) {
                Some((value, _)) => bytes.push(value as u8),
                None => lexer.problem(position, format!("`\\{radix}` needs one or two hexadecimal digits")),
            };
        }
        Some(size @ ('u' | 'U')) => {
            lexer.bump();
            return unicode(lexer, position, size, bytes);
        }
        Some('\n') | None => return,
        Some(other) => {
            lexer.bump();
            return lexer.problem(position, format!("unknown escape `\\{other}`; write a backslash as `\\\\`"));
        }
    };
    lexer.bump();
    bytes.push(simple);
}

fn octal(lexer: &mut Lexer<'_>, position: Position, bytes: &mut Vec<u8>) {
    match digits(lexer, 8, 3).map(|(value, _)| u8::try_from(value)) {
        Some(Ok(byte)) => bytes.push(byte),
        _ => lexer.problem(position, "an octal escape is at most `\\377`"),
    }
}

fn unicode(lexer: &mut Lexer<'_>, position: Position, size: char, bytes: &mut Vec<u8>) {
    let want = if size == 'u' { 4 } else { 8 };
    let Some(value) = digits(lexer, 16, want).and_then(|(value, count)| (count == want).then_some(value)) else {
        return lexer.problem(position, format!("`\\{size}` needs {want} hexadecimal digits"));
    };
    let character = match value {
        0xd800..=0xdbff => low_surrogate(lexer).and_then(|low| char::decode_utf16([value as u16, low]).next()?.ok()),
        value => char::from_u32(value),
    };
    match character {
        Some(character) => push(character, bytes),
        None => lexer.problem(position, format!("U+{value:04X} is no Unicode character")),
    }
}

/// The second half of a surrogate pair, written as another `\u`.
fn low_surrogate(lexer: &mut Lexer<'_>) -> Option<u16> {
    for expected in ['\\', 'u'] {
        if lexer.peek() != Some(expected) {
            return None;
        }
        lexer.bump();
    }
    digits(lexer, 16, 4).and_then(|(value, count)| u16::try_from(value).ok().filter(|_| count == 4))
}

/// Up to `most` digits (at most 8) and how many there were; `None` when there is none.
fn digits(lexer: &mut Lexer<'_>, radix: u32, most: usize) -> Option<(u32, usize)> {
    let mut left = most;
    let text = lexer.take_while(|character| {
        let accepted = left > 0 && character.is_digit(radix);
        left = left.saturating_sub(1);
        accepted
    });
    Some((u32::from_str_radix(text, radix).ok()?, text.len()))
}
