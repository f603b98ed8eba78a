//! Patterns with `*` for any run of characters, over names such as `line1/tester3`.

use std::collections::HashSet;

/// A pattern; every character but `*` stands for itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// Any text is a pattern.
    pub fn new(text: impl Into<String>) -> Self {
        Pattern(text.into())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` fits the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let (Some(first), Some(mut rest)) = (parts.next(), name.strip_prefix(self.0.split('*').next().unwrap_or("")))
        else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            // No `*` at all.
            return name == first;
        };
        for part in parts {
            // The earliest place leaves the most for what follows.
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    /// Whether there is a station `<line>/<station>` that fits both patterns.
    pub fn shares_a_station(&self, other: &Pattern) -> bool {
        let (one, two) = (self.0.as_bytes(), other.0.as_bytes());
        // Both patterns and the form of a name are read at the same time; all places that can be reached are tried once.
        let (mut tried, mut places) = (HashSet::new(), vec![(0, 0, Form::Line { empty: true })]);
        while let Some(place @ (at, bt, form)) = places.pop() {
            if !tried.insert(place) {
                continue;
            }
            let [a, b] = [one.get(at).copied(), two.get(bt).copied()];
            match (a, b) {
                (None, None) if form == (Form::Station { empty: false }) => return true,
                // A star may stand for nothing.
                (Some(b'*'), _) => places.push((at + 1, bt, form)),
                _ => {}
            }
            if b == Some(b'*') {
                places.push((at, bt + 1, form));
            }
            let step = |byte: Option<u8>, at: usize| if byte == Some(b'*') { at } else { at + 1 };
            let next = |byte: u8| form.next(byte).map(|form| (step(a, at), step(b, bt), form));
            match (a, b) {
                (None, _) | (_, None) => {}
                (Some(b'*'), Some(b'*')) => places.extend([b'a', b'/'].into_iter().filter_map(next)),
                (Some(b'*'), Some(byte)) | (Some(byte), Some(b'*')) => places.extend(next(byte)),
                (Some(a), Some(b)) if a == b => places.extend(next(a)),
                _ => {}
            }
        }
        false
    }
}

/// How far a station's name is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Line { empty: bool },
    Station { empty: bool },
}

impl Form {
    /// After one more character, if a name can have it there.
    fn next(self, byte: u8) -> Option<Form> {
        let part = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        match self {
            Form::Line { empty: false } if byte == b'/' => Some(Form::Station { empty: true }),
            Form::Line { .. } if part => Some(Form::Line { empty: false }),
            Form::Station { .. } if part => Some(Form::Station { empty: false }),
            _ => None,
        }
    }
}

/// Whether `name` fits one of the patterns; an empty list lets every name pass.
pub fn allows(patterns: &[Pattern], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_share_a_station_or_not() {
        for (one, two, share) in [
            ("*", "line1/*", true),
            ("line1/*", "line1/t3", true),
            ("line1/*", "line9/*", false),
            ("line1/*", "*/t3", true),
            ("*1/*", "line*", true),
            ("line1/t3", "line1/t3", true),
            ("line1/t3", "line1/t4", false),
            ("*", "line1", false),
            ("*", "line1/", false),
            ("*", "/t1", false),
            ("*", "a/b/c", false),
            ("*", "a b/c", false),
            ("*", "", false),
            ("*", "*", true),
            ("a*c/*", "ab*/d*e", true),
            ("a*c/x", "a*d/x", false),
            ("*a*b*/*", "*b*a*/*", true),
        ] {
            assert_eq!(Pattern::new(one).shares_a_station(&Pattern::new(two)), share, "{one} {two}");
            assert_eq!(Pattern::new(two).shares_a_station(&Pattern::new(one)), share, "{two} {one}");
        }
        let long = Pattern::new("*a".repeat(100) + "/*");
        assert!(long.shares_a_station(&long));
    }

    /// Stars stand for any run and all else for itself.
    #[test]
    fn pattern_star_stands_for_any_run_and_all_else_for_itself() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*", "line1/t3", true),
            ("line1/*", "line1/t3", true),
            ("line1/*", "line10/t3", false),
            ("*/t3", "line1/t3", true),
            ("line1/t3", "line1/t3", true),
            ("line1/t3", "line1/t33", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("", "x", false),
            ("l[1-2]*", "l1", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), fits, "{pattern:?} on {name:?}");
        }
    }
}
