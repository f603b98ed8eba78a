//! Patterns with `*` for any run of characters, over names such as `line1/tester3`.

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
}

/// Whether `name` fits one of the patterns; an empty list lets every name pass.
pub fn allows(patterns: &[Pattern], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_run_and_all_else_for_itself() {
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
