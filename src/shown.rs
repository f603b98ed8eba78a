//! Text that came from outside, in messages: no longer than people read, and without control characters.

use std::fmt::{self, Write};

/// The most characters that are shown.
const LONGEST: usize = 100;

/// Shows a text that somebody else wrote.
pub(crate) fn shown(text: &str) -> impl fmt::Display {
    Shown(text.to_owned())
}

struct Shown(String);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.0.chars().enumerate() {
            if index == LONGEST {
                return write!(f, "… ({} characters)", self.0.chars().count());
            }
            if character.is_control() || is_invisible(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Characters that change how the text around them is shown: marks of direction, and those of no width.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_shown_short_and_harmless() {
        assert_eq!(shown("Möbel & Söhne").to_string(), "Möbel & Söhne");
        assert_eq!(shown("a\u{1b}[31mb\nc\u{202e}").to_string(), "a\\u{1b}[31mb\\nc\\u{202e}");
        let long = shown(&"é".repeat(100_000)).to_string();
        assert_eq!(long, format!("{}… (100000 characters)", "é".repeat(100)));
    }
}
