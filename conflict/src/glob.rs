//! Patterns of `KEYS`, `SCAN MATCH`, `PSUBSCRIBE`, access rules and policies.

/// Whether all of `text` matches `pattern`, as `stringmatchlen` of Redis has it: `*` any bytes, `?`
/// one byte, `[a-z]` and `[^a-z]` one byte in or not in a class, `\` takes the next byte literally,
/// anything else itself. A class that is not closed ends with the pattern.
///
/// Only the last `*` is ever tried again, so the time is at most the product of the two lengths and
/// usually their sum (Redis recursed: CVE-2022-36021, CVE-2024-31228); limit the pattern's length.
///
/// Departure: a pattern of stars matches the empty text. Redis' function says no, but its callers
/// never ask it about `*`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // After the last star: the pattern, and where in the text to try it next.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            if after.is_empty() {
                return true;
            }
            pattern = after;
            retry = Some((after, text));
            continue;
        }
        match text.split_first() {
            None => return pattern.is_empty(),
            Some((&byte, rest)) => {
                if let Some(after) = one(pattern, byte) {
                    (pattern, text) = (after, rest);
                    continue;
                }
            }
        }
        match retry {
            None | Some((_, [])) => return false,
            Some((after, [_, later @ ..])) => {
                (pattern, text) = (after, later);
                retry = Some((after, later));
            }
        }
    }
}

/// Matches one byte against the front of a pattern that does not begin with a star; returns the rest
/// of the pattern.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', after @ ..] => Some(after),
        [b'[', class @ ..] => in_class(class, byte),
        [b'\\', literal, after @ ..] | [literal, after @ ..] => (*literal == byte).then_some(after),
    }
}

fn in_class(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut class) = match class {
        [b'^', class @ ..] => (true, class),
        class => (false, class),
    };
    let mut found = false;
    let after = loop {
        match class {
            [] => break class,
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                class = rest;
            }
            [b']', rest @ ..] => break rest,
            // The end of a range may be any byte, `]` and `\` included, and below its start.
            [start, b'-', end, rest @ ..] => {
                found |= (*start.min(end)..=*start.max(end)).contains(&byte);
                class = rest;
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                class = rest;
            }
        }
    };
    (found != negated).then_some(after)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vectors() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "a", true),
            ("*a*", "", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            (r"a\", r"a\", true),
            (r"a\", "a", false),
            (r"[\]]", "]", true),
            (r"[\^a]", "^", true),
            ("[abc", "b", true),
            ("[abc", "d", false),
            ("[", "a", false),
            ("[^", "a", true),
            ("[]", "a", false),
            ("[a-]", "]", true),
            ("[a-]", "b", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("*ab", "aab", true),
            ("user:*:name", "user:1:name:name", true),
            ("*?", "", false),
            ("**?", "x", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn cve_2022_36021_and_2024_31228_no_blow_up_no_recursion() {
        let text = vec![b'a'; 4096];
        let mut pattern = b"a*".repeat(500);
        pattern.push(b'b');
        assert!(!matches(&pattern, &text));
        assert!(!matches(&b"?*".repeat(5000), &text));
        assert!(!matches(&br"\[".repeat(1 << 19), &text));
        assert!(!matches(&[b'['].repeat(1 << 20), &text));
        assert!(matches(&[b'*'].repeat(1 << 20), &text));
    }

    /// The obvious definition, exponential in the number of stars.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([b'*', after @ ..], _) => (0..=text.len()).any(|skip| plainly(after, &text[skip..])),
            (_, [byte, rest @ ..]) => one(pattern, *byte).is_some_and(|after| plainly(after, rest)),
            (_, []) => pattern.is_empty(),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_definition(pattern in r"[ab*?\[\]^\\-]{0,8}", text in "[ab\\]-]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), plainly(pattern, text));
        }
    }

    #[test]
    fn fuzz_glob() {
        bolero::check!().for_each(|input: &[u8]| {
            let (pattern, text) = input.split_at(input.len() / 2);
            matches(pattern, text);
            let literal: Vec<u8> = text.iter().flat_map(|&byte| [b'\\', byte]).collect();
            assert!(matches(&literal, text));
        });
    }
}
