//! The ids that clients choose, for devices and orders: one grammar, a length limit for each.
//!
//! An id is `[A-Za-z0-9][A-Za-z0-9._:-]*`, so it is also a safe file name and needs no quoting in a log.

use std::{fmt, str::FromStr};

/// The characters of an id, for messages.
const ALPHABET: &str = "A-Z a-z 0-9 . _ : -";

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{shown:?} must be 1 to {longest} of the characters {ALPHABET} and begin with a letter or digit{}",
    odd_character(*.odd)
)]
pub struct InvalidId {
    /// The beginning of the text.
    shown: String,
    /// The limit of this kind of id.
    longest: usize,
    /// The first character that no id has.
    odd: Option<char>,
}

impl InvalidId {
    /// Names the first character that no id has, if there is one: some look like those that are allowed.
    pub fn odd(&self) -> String {
        odd_character(self.odd)
    }
}

fn odd_character(odd: Option<char>) -> String {
    odd.map(|odd| format!("; \"{}\" (U+{:04X}) is none of them", odd.escape_debug(), u32::from(odd)))
        .unwrap_or_default()
}

fn check(id: &str, longest: usize) -> Result<(), InvalidId> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "._:-".contains(character);
    let first = id.chars().next().is_some_and(|character| character.is_ascii_alphanumeric());
    let odd = id.chars().find(|character| !allowed(*character));
    if first && id.len() <= longest && odd.is_none() {
        return Ok(());
    }
    Err(InvalidId { shown: id.chars().take(40).collect(), longest, odd })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $longest:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The most characters that it may have.
            pub const LONGEST: usize = $longest;

            /// Checks a text without keeping it.
            ///
            /// # Errors
            /// If the text is no such id.
            pub fn check(text: &str) -> Result<(), InvalidId> {
                check(text, Self::LONGEST)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::check(&text).map(|()| Self(text))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// The id of a device.
    DeviceId, 128
}

impl DeviceId {
    /// One that is as short as ids come, for sample certificates.
    pub fn shortest() -> Self {
        DeviceId("0".into())
    }
}

id! {
    /// The id of an order.
    OrderId, 64
}

impl OrderId {
    /// The order of sample certificates.
    pub fn sample() -> Self {
        OrderId("sample-order".into())
    }
}

/// Whether Windows takes a file of this name for a device of its own, whatever its ending.
pub fn is_reserved_name(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let numbered = ["COM", "LPT"].iter().any(|port| {
        stem.strip_prefix(port)
            .is_some_and(|number| number.len() == 1 && number.bytes().all(|byte| (b'1'..=b'9').contains(&byte)))
    });
    numbered || ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_outside_the_grammar_is_refused_with_the_rule() {
        for good in ["a", "0", "SN:0001_a.b-c", &"x".repeat(64)] {
            assert_eq!(good.parse::<OrderId>().unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", ":a", "_a", "a/b", "a b", "é", "a\n", "a\0", &"x".repeat(65)] {
            let error = bad.parse::<OrderId>().unwrap_err().to_string();
            assert!(error.contains("1 to 64 of the characters"), "{error}");
        }
        assert!("x".repeat(128).parse::<DeviceId>().is_ok());
        assert!(DeviceId::check(&"x".repeat(129)).is_err());
    }

    /// An error about a long text is no longer than people read.
    #[test]
    fn invalid_id_is_shown_shortened() {
        assert!(DeviceId::check(&"/".repeat(9000)).unwrap_err().to_string().len() < 200);
    }
}
