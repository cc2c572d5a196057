//! Numbers as Redis reads and prints them.

use std::io::Write;

/// Appends `number` in decimal.
pub fn write_u64(out: &mut Vec<u8>, mut number: u64) {
    if number < 10 {
        // Most headers and many integers.
        out.push(b'0' + number as u8);
        return;
    }
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// Appends `number` in decimal.
pub fn write_i64(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_u64(out, number.unsigned_abs());
}

/// Appends `number` as Redis 7.2 prints scores (`d2string`): integers up to 2^62 in full, otherwise
/// the shortest digits that read back as the same number, in plain notation near one and as `1e+20`
/// beyond; `inf`, `-inf`, `nan`, `-0`.
///
/// Departure: Redis takes its digits from Grisu2, which for about one number in a thousand finds a
/// longer representation than the shortest one printed here. Both read back the same.
pub fn write_f64(out: &mut Vec<u8>, number: f64) {
    const INTEGERS: f64 = (i64::MAX / 2) as f64;
    if number.is_nan() {
        return out.extend_from_slice(b"nan");
    }
    if number.is_sign_negative() {
        out.push(b'-');
    }
    let magnitude = number.abs();
    if magnitude.is_infinite() {
        out.extend_from_slice(b"inf");
    } else if magnitude <= INTEGERS && magnitude.fract() == 0.0 {
        write_u64(out, magnitude as u64);
    } else {
        write_fraction(out, magnitude);
    }
}

/// Lays out the shortest digits of a positive finite number as `emit_digits` of fpconv does.
fn write_fraction(out: &mut Vec<u8>, magnitude: f64) {
    // At most 17 digits, a point, and an exponent of five characters.
    let mut text = [0u8; 32];
    let mut free = text.as_mut_slice();
    let _fits = write!(free, "{magnitude:e}");
    let mut digits = [0u8; 20];
    let mut count = 0usize;
    let mut parts = text.split(|&byte| byte == b'e');
    let mantissa = parts.next().unwrap_or_default().iter().filter(|byte| byte.is_ascii_digit());
    for (slot, &digit) in digits.iter_mut().zip(mantissa) {
        *slot = digit;
        count += 1;
    }
    let digits = digits.get(..count).unwrap_or_default();
    let exponent = parts.next().unwrap_or_default().split(|&byte| byte == 0).next().and_then(parse_i64);
    let exponent = exponent.unwrap_or_default();
    // The number is `digits` as an integer, times ten to this power.
    let scale = exponent - count as i64 + 1;
    let size = exponent.unsigned_abs();

    if scale >= 0 && size < count as u64 + 7 {
        out.extend_from_slice(digits);
        zeros(out, scale);
    } else if scale < 0 && (scale > -7 || size < 4) {
        let whole = exponent + 1;
        if whole <= 0 {
            out.extend_from_slice(b"0.");
            zeros(out, -whole);
            out.extend_from_slice(digits);
        } else {
            let (before, after) = digits.split_at_checked(whole as usize).unwrap_or((digits, &[]));
            out.extend_from_slice(before);
            out.push(b'.');
            out.extend_from_slice(after);
        }
    } else {
        let (first, others) = digits.split_at_checked(1).unwrap_or((digits, &[]));
        out.extend_from_slice(first);
        if !others.is_empty() {
            out.push(b'.');
            out.extend_from_slice(others);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        write_u64(out, size);
    }
}

fn zeros(out: &mut Vec<u8>, count: i64) {
    out.extend(std::iter::repeat_n(b'0', usize::try_from(count).unwrap_or_default()));
}

/// Reads an integer as `string2ll` of Redis does: an optional minus, no plus, no blanks, no leading
/// zero, no `-0`, nothing that overflows.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (&first, others) = digits.split_first()?;
    if !(b'1'..=b'9').contains(&first) || others.len() > 18 {
        return None;
    }
    let mut magnitude = u64::from(first - b'0');
    for &byte in others {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // At most 19 digits, so at most 10^19 - 1, which fits.
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// Reads a double as `string2d` of Redis does: decimal notation, `inf` and `infinity` in any case and
/// with any sign; no NaN, no blanks around it, no overflow to infinity and no underflow to zero.
///
/// Departure: `strtod`, and so Redis, also reads hexadecimal floats (`0x1p3`); we refuse them.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    if number.is_nan() {
        return None;
    }
    if number.is_infinite() {
        return text.iter().any(|byte| byte.eq_ignore_ascii_case(&b'i')).then_some(number);
    }
    if number == 0.0 {
        let mut mantissa = text.iter().take_while(|byte| !byte.eq_ignore_ascii_case(&b'e'));
        return mantissa.all(|byte| !(b'1'..=b'9').contains(byte)).then_some(number);
    }
    Some(number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(number: f64) -> String {
        let mut out = Vec::new();
        write_f64(&mut out, number);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_as_redis_7_2_prints_them() {
        for (number, text) in [
            (3.0, "3"),
            (3.5, "3.5"),
            (0.1, "0.1"),
            (-0.1, "-0.1"),
            (0.0, "0"),
            (-0.0, "-0"),
            (1e20, "1e+20"),
            (-1e20, "-1e+20"),
            (1e15, "1000000000000000"),
            (1e18, "1000000000000000000"),
            (4611686018427387904.0, "4611686018427387904"),
            (9007199254740992.0, "9007199254740992"),
            (1e19, "1e+19"),
            (12345678901234567000.0, "12345678901234567000"),
            (1.5e300, "1.5e+300"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (0.001, "0.001"),
            (0.000001, "0.000001"),
            (0.0000001, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (0.0012345678, "0.0012345678"),
            (0.00012345678, "1.2345678e-4"),
            (12345.678901234567, "1.2345678901234567e+4"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1234567.891, "1234567.891"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(printed(number), text);
        }
    }

    #[test]
    fn integers_as_string2ll_reads_them() {
        for text in ["", "-", "+", "+1", "01", "00", "-0", "-01", " 1", "1 ", "1a", "a", "--1", "0x1", "1.0"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
        for text in
            ["9223372036854775808", "-9223372036854775809", "99999999999999999999", "18446744073709551616"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
        for number in [0, 1, -1, 99, 100, i64::MAX, i64::MIN] {
            assert_eq!(parse_i64(number.to_string().as_bytes()), Some(number));
        }
    }

    #[test]
    fn doubles_as_string2d_reads_them() {
        for text in
            ["", " ", " 1", "1 ", "nan", "-nan", "NaN", "1e", "e1", ".", "1e400", "-1e400", "1e-400", "1,5"]
        {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_f64(b"0x10"), None);
        assert_eq!(parse_f64(b"1\0"), None);
        assert_eq!(parse_f64(b"\xff"), None);
        for (text, number) in [
            ("3", 3.0),
            ("-3.5", -3.5),
            ("+3.5", 3.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("0e999", 0.0),
            ("-0", 0.0),
            ("0010", 10.0),
            ("4.9e-324", 5e-324),
            ("inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(number), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_read_back(number: i64) {
            let mut out = Vec::new();
            write_i64(&mut out, number);
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), number.to_string());
            prop_assert_eq!(parse_i64(&out), Some(number));
        }

        #[test]
        fn doubles_read_back(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(!number.is_nan());
            let text = printed(number);
            prop_assert!(text.len() <= 26, "{}", text);
            prop_assert_eq!(parse_f64(text.as_bytes()).unwrap().to_bits(), bits);
        }

        #[test]
        fn small_doubles_read_back(number in -1e7..1e7f64) {
            prop_assert_eq!(parse_f64(printed(number).as_bytes()), Some(number));
        }
    }
}
