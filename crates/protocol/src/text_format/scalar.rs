//! Judges one token as the value of a number, bool or enum field.

use prost_reflect::{EnumDescriptor, Kind, Value};

use super::lexer::Token;
use crate::suggest::did_you_mean;

/// The value of a token for a field of this kind; the error says what was expected.
pub(super) fn parse(kind: &Kind, negative: bool, token: &Token<'_>) -> Result<Value, String> {
    match kind {
        Kind::Bool => boolean(negative, token),
        Kind::Enum(descriptor) => enumeration(descriptor, negative, token),
        Kind::Float => float(negative, token).map(|value| Value::F32(value as f32)),
        Kind::Double => float(negative, token).map(Value::F64),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer::<i32>(negative, token).map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer::<i64>(negative, token).map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => integer::<u32>(negative, token).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => integer::<u64>(negative, token).map(Value::U64),
        Kind::String | Kind::Bytes | Kind::Message(_) => Err(expected("a string", negative, token)),
    }
}

fn expected(what: &str, negative: bool, token: &Token<'_>) -> String {
    let found = if negative { format!("`-` and {}", token.describe()) } else { token.describe() };
    let quoted = matches!(token, Token::Text(_)) && what != "a string";
    format!("expected {what}, found {found}{}", if quoted { "; write it without quotes" } else { "" })
}

fn boolean(negative: bool, token: &Token<'_>) -> Result<Value, String> {
    match token {
        Token::Name("true" | "True" | "t") if !negative => Ok(Value::Bool(true)),
        Token::Name("false" | "False" | "f") if !negative => Ok(Value::Bool(false)),
        Token::Number(text) if !negative && magnitude(text) == Some(1) => Ok(Value::Bool(true)),
        Token::Number(text) if !negative && magnitude(text) == Some(0) => Ok(Value::Bool(false)),
        _ => Err(expected("`true` or `false`", negative, token)),
    }
}

fn enumeration(descriptor: &EnumDescriptor, negative: bool, token: &Token<'_>) -> Result<Value, String> {
    let number = match token {
        Token::Name(name) if !negative => descriptor.get_value_by_name(name).map(|value| value.number()),
        Token::Number(text) => signed(negative, text)
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| descriptor.get_value(*number).is_some()),
        _ => return Err(expected(&format!("a value of {}", descriptor.name()), negative, token)),
    };
    number.map(Value::EnumNumber).ok_or_else(|| {
        let values: Vec<_> = descriptor.values().collect();
        let names: Vec<&str> = values.iter().map(|value| value.name()).collect();
        let given = if let Token::Name(name) = token { name } else { "" };
        let sign = if negative { "-" } else { "" };
        let hint = match did_you_mean(given, names.iter().copied()) {
            hint if hint.is_empty() => format!("; it has {}", names.join(", ")),
            hint => hint,
        };
        format!("{sign}{} is no value of {}{hint}", token.describe(), descriptor.name())
    })
}

fn float(negative: bool, token: &Token<'_>) -> Result<f64, String> {
    let magnitude = match token {
        Token::Number(text) => decimal(text),
        Token::Name(name) => match name.to_ascii_lowercase().as_str() {
            "inf" | "infinity" => Some(f64::INFINITY),
            "nan" => Some(f64::NAN),
            _ => None,
        },
        _ => None,
    };
    let magnitude = magnitude.ok_or_else(|| expected("a number", negative, token))?;
    Ok(if negative { -magnitude } else { magnitude })
}

/// A decimal number, perhaps with a fraction, an exponent, and a final `f`. Octal and hexadecimal numbers are none.
fn decimal(text: &str) -> Option<f64> {
    let octal = text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    let digits = text.strip_suffix(['f', 'F']).unwrap_or(text);
    let plain = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if octal || !plain { None } else { digits.parse().ok() }
}

fn integer<T: TryFrom<i128>>(negative: bool, token: &Token<'_>) -> Result<T, String> {
    let Token::Number(text) = token else { return Err(expected("an integer", negative, token)) };
    let number = signed(negative, text).ok_or_else(|| expected("an integer", negative, token))?;
    T::try_from(number).map_err(|_| {
        let sign = if negative { "-" } else { "" };
        format!("{sign}{text} is out of range for a field of type {}", std::any::type_name::<T>())
    })
}

fn signed(negative: bool, text: &str) -> Option<i128> {
    let magnitude = i128::try_from(magnitude(text)?).unwrap_or(i128::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

/// A decimal, octal (`017`) or hexadecimal (`0x1F`) number; the largest `u128` where it is larger still.
fn magnitude(text: &str) -> Option<u128> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    Some(u128::from_str_radix(digits, radix).unwrap_or(u128::MAX))
}
