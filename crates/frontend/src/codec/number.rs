//! Numbers of JSON, read from text into exactly the type that a tensor holds, in one pass.

use half::{bf16, f16};

/// An integer type that JSON data is read into.
pub(super) trait Integer: Copy {
    /// The value with this sign and magnitude, where it fits.
    fn from_parts(negative: bool, magnitude: u64) -> Option<Self>;
}

macro_rules! integers {
    ($($rust:ty),*) => {$(
        impl Integer for $rust {
            #[inline]
            fn from_parts(negative: bool, magnitude: u64) -> Option<Self> {
                if !negative {
                    return Self::try_from(magnitude).ok();
                }
                0i64.checked_sub_unsigned(magnitude).and_then(|value| Self::try_from(value).ok())
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

/// A floating point type that JSON data is read into.
pub(super) trait Float: Copy {
    /// The number nearest to a decimal, where a few operations are known to give it.
    fn from_decimal(decimal: &Decimal) -> Option<Self>;
    /// The number nearest to a token that is a number of JSON.
    fn from_token(token: &str) -> Option<Self>;
    /// From the words for what is not a number.
    fn from_special(value: f32) -> Self;
    /// Whether the value is neither infinite nor a NaN.
    fn finite(self) -> bool;
}

macro_rules! floats {
    ($($rust:ty, $decimal:ident => $fast:expr, $token:ident => $parse:expr, $value:ident => $special:expr;)*) => {$(
        impl Float for $rust {
            #[inline]
            fn from_decimal($decimal: &Decimal) -> Option<Self> {
                $fast
            }
            fn from_token($token: &str) -> Option<Self> {
                $parse
            }
            fn from_special($value: f32) -> Self {
                $special
            }
            #[inline]
            fn finite(self) -> bool {
                self.is_finite()
            }
        }
    )*};
}
floats! {
    f32, decimal => decimal.to_f32(), token => token.parse().ok(), value => value;
    f64, decimal => decimal.to_f64(), token => token.parse().ok(), value => f64::from(value);
    f16, decimal => decimal.to_f64().map(f16::from_f64), token => token.parse().ok().map(f16::from_f64),
        value => f16::from_f32(value);
    bf16, decimal => decimal.to_f64().map(bf16::from_f64), token => token.parse().ok().map(bf16::from_f64),
        value => bf16::from_f32(value);
}

/// A number of JSON, taken apart: ± mantissa × 10^exponent.
pub(super) struct Decimal {
    negative: bool,
    mantissa: u64,
    exponent: i32,
    /// How many digits the mantissa was read from; past 19 it may have overflowed.
    digits: usize,
    length: usize,
}

/// The powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl Decimal {
    /// Takes apart the number that `text` begins with, by JSON's grammar.
    #[inline]
    fn scan(text: &[u8]) -> Option<Self> {
        let negative = text.first() == Some(&b'-');
        let start = usize::from(negative);
        let mut mantissa = 0;
        let whole = digits(text, start, &mut mantissa);
        if whole == 0 || (whole > 1 && text[start] == b'0') {
            return None;
        }
        let mut at = start + whole;
        let mut fraction = 0;
        if text.get(at) == Some(&b'.') {
            fraction = digits(text, at + 1, &mut mantissa);
            if fraction == 0 {
                return None;
            }
            at += 1 + fraction;
        }
        let mut exponent = 0;
        if matches!(text.get(at), Some(b'e' | b'E')) {
            let (value, length) = scan_exponent(&text[at + 1..])?;
            exponent = value;
            at += 1 + length;
        }
        let exponent = exponent.saturating_sub(i32::try_from(fraction).ok()?);
        Some(Decimal { negative, mantissa, exponent, digits: whole + fraction, length: at })
    }

    /// Clinger's fast path: both the mantissa and the power of ten are exact, so that one operation rounds once.
    #[inline]
    fn to_f64(&self) -> Option<f64> {
        let power = POWERS.get(self.exponent.unsigned_abs() as usize)?;
        if self.digits > 19 || self.mantissa > 1 << 53 {
            return None;
        }
        let mantissa = self.mantissa as f64;
        let value = if self.exponent < 0 { mantissa / power } else { mantissa * power };
        Some(if self.negative { -value } else { value })
    }

    /// Rounding a correctly rounded double once more is right unless it lies just between two floats, or where floats get
    /// coarser than their 24 bits.
    #[inline]
    fn to_f32(&self) -> Option<f32> {
        let value = self.to_f64()?;
        let size = value.abs();
        let halfway = value.to_bits() & 0x1fff_ffff == 0x1000_0000;
        let normal = size == 0.0 || (f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX)).contains(&size);
        (normal && !halfway).then_some(value as f32)
    }
}

/// An exponent after its `e`, and its length.
fn scan_exponent(text: &[u8]) -> Option<(i32, usize)> {
    let signed = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let mut size = 0;
    let count = digits(text, signed, &mut size);
    let size = if count > 9 { i32::MAX } else { i32::try_from(size).ok()? };
    let value = if text.first() == Some(&b'-') { -size } else { size };
    (count > 0).then_some((value, signed + count))
}

/// Appends the digits at `from` to `value`; says how many there are.
#[inline]
fn digits(text: &[u8], from: usize, value: &mut u64) -> usize {
    let Some(rest) = text.get(from..) else { return 0 };
    let mut count = 0;
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        count += 1;
    }
    count
}

/// The value and length of 1 to 3 digits, without a branch on how many they are: the lengths in an image are random.
#[inline]
fn few_digits(text: &[u8]) -> Option<(u64, usize)> {
    let window = u32::from_le_bytes(*text.first_chunk::<4>()?);
    let digits = window ^ 0x3030_3030;
    // The high bit of each byte that is no digit; carries reach only bytes after the first of them.
    let others = (digits.wrapping_add(0x7676_7676) | digits) & 0x8080_8080;
    let length = others.trailing_zeros() / 8;
    let leading_zero = window & 0xff == u32::from(b'0') && length > 1;
    if length == 0 || length > 3 || leading_zero {
        return None;
    }
    // As if zeros stood in front.
    let four = digits << (8 * (4 - length));
    let pairs = four.wrapping_mul(10).wrapping_add(four >> 8) & 0x00ff_00ff;
    Some((u64::from((pairs & 0xff) * 100 + (pairs >> 16)), length as usize))
}

/// The integer that `text` begins with, and its length. `None` for anything else: a fraction, an exponent, an integer that
/// does not fit.
#[inline]
pub(super) fn integer<T: Integer>(text: &[u8]) -> Option<(T, usize)> {
    if let Some((magnitude, length)) = few_digits(text)
        && !matches!(text.get(length), Some(b'.' | b'e' | b'E'))
    {
        return Some((T::from_parts(false, magnitude)?, length));
    }
    long_integer(text)
}

fn long_integer<T: Integer>(text: &[u8]) -> Option<(T, usize)> {
    let negative = text.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut magnitude = 0u64;
    let mut at = start;
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        // 19 digits cannot overflow; more go through the checks.
        magnitude = if at - start < 19 {
            magnitude * 10 + u64::from(digit)
        } else {
            magnitude.checked_mul(10)?.checked_add(u64::from(digit))?
        };
        at += 1;
    }
    let leading_zero = at > start + 1 && text[start] == b'0';
    let goes_on = matches!(text.get(at), Some(b'.' | b'e' | b'E'));
    if at == start || leading_zero || goes_on {
        return None;
    }
    Some((T::from_parts(negative, magnitude)?, at))
}

/// The number that `text` begins with, and its length. `NaN`, `Infinity` and `-Infinity` are taken too, as Python and
/// Triton write them. `None` for anything else, and for a number that would become infinite.
#[inline]
pub(super) fn float<T: Float>(text: &[u8]) -> Option<(T, usize)> {
    let Some(decimal) = Decimal::scan(text) else { return special(text) };
    let length = decimal.length;
    let value = match T::from_decimal(&decimal) {
        Some(value) => value,
        None => T::from_token(std::str::from_utf8(&text[..length]).ok()?)?,
    };
    value.finite().then_some((value, length))
}

fn special<T: Float>(text: &[u8]) -> Option<(T, usize)> {
    let words = [("NaN", f32::NAN), ("Infinity", f32::INFINITY), ("-Infinity", f32::NEG_INFINITY)];
    let (word, value) = words.into_iter().find(|(word, _)| text.starts_with(word.as_bytes()))?;
    Some((T::from_special(value), word.len()))
}

/// The length of the number that `text` begins with, if some type could hold it.
pub(super) fn length_of_any(text: &[u8]) -> Option<usize> {
    let number = Decimal::scan(text).map(|decimal| decimal.length);
    number.or_else(|| special::<f32>(text).map(|(_, length)| length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decimals_are_rounded_as_by_the_standard_library(
            negative in any::<bool>(), whole in 0u64..1 << 40, fraction in "[0-9]{0,20}", exponent in -60i32..60,
        ) {
            let sign = if negative { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            for whole in [0, whole, whole >> 20, whole >> 36] {
                for exponent in [String::new(), format!("e{exponent}")] {
                    let text = format!("{sign}{whole}{point}{fraction}{exponent}");
                    let single: f32 = text.parse().expect("a number");
                    let double: f64 = text.parse().expect("a number");
                    let read = float::<f32>(text.as_bytes()).map(|(value, length)| (value.to_bits(), length));
                    prop_assert_eq!(read, single.is_finite().then_some((single.to_bits(), text.len())), "{}", text);
                    let read = float::<f64>(text.as_bytes()).map(|(value, length)| (value.to_bits(), length));
                    prop_assert_eq!(read, Some((double.to_bits(), text.len())), "{}", text);
                }
            }
        }

        #[test]
        fn floats_that_lie_close_to_halfway_are_rounded_right(bits in any::<u32>(), step in -2i64..=2) {
            let single = f32::from_bits(bits);
            let middle = f64::from(single) + (f64::from(f32::from_bits(bits ^ 1)) - f64::from(single)) / 2.0;
            if middle.is_finite() && single.is_finite() {
                let text = format!("{:?}", f64::from_bits(middle.to_bits().wrapping_add_signed(step)));
                let expected: f32 = text.parse().expect("a number");
                let read = float::<f32>(text.as_bytes()).map(|(value, _)| value);
                prop_assert_eq!(read, expected.is_finite().then_some(expected), "{}", text);
            }
        }

        #[test]
        fn integers_are_read_as_by_the_standard_library(value in any::<i64>(), shift in 0u32..64, tail in "[,\\]} ]{0,4}") {
            let text = format!("{}{tail}", value >> shift);
            let length = text.len() - tail.len();
            prop_assert_eq!(integer::<i64>(text.as_bytes()), Some((value >> shift, length)));
            let small = u8::try_from(value >> shift).ok().map(|value| (value, length));
            prop_assert_eq!(integer::<u8>(text.as_bytes()), small);
        }
    }

    #[test]
    fn integers_are_read_exactly_or_not_at_all() {
        assert_eq!(integer::<u8>(b"255,"), Some((255, 3)));
        assert_eq!(integer::<i8>(b"-128]"), Some((-128, 4)));
        assert_eq!(integer::<i64>(b"-9223372036854775808"), Some((i64::MIN, 20)));
        assert_eq!(integer::<u64>(b"18446744073709551615"), Some((u64::MAX, 20)));
        assert_eq!(integer::<u8>(b"-0"), Some((0, 2)));
        for bad in ["256", "-1", "1.0", "1e2", "01", "", "-", "x", "18446744073709551616", "99999999999999999999999"] {
            assert_eq!(integer::<u8>(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(integer::<u64>(b"18446744073709551616"), None);
        assert_eq!(integer::<i64>(b"9223372036854775808"), None);
    }

    #[test]
    fn floats_follow_the_grammar_of_json() {
        assert_eq!(float::<f32>(b"0.1,"), Some((0.1, 3)));
        assert_eq!(float::<f64>(b"-1.5e-3]"), Some((-0.0015, 7)));
        assert_eq!(float::<f16>(b"65504"), Some((f16::MAX, 5)));
        assert_eq!(float::<f32>(b"-Infinity"), Some((f32::NEG_INFINITY, 9)));
        assert!(float::<f32>(b"NaN").is_some_and(|(value, _)| value.is_nan()));
        for bad in ["1.", ".5", "+1", "01", "1e", "inf", "nan", "1e999", "", "-", "--1"] {
            assert_eq!(float::<f32>(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(float::<f32>(b"1e39"), None);
        assert_eq!(float::<f16>(b"70000"), None);
    }
}
