//! Text from outside, made fit for messages: no longer than a line, without control or invisible characters.

use std::fmt::Write;

/// The longest text that a message repeats whole, in characters: the longest id.
const LONGEST: usize = 128;

/// `text` in quotation marks, escaped; of a long one the beginning and its length.
pub fn quoted(text: &str) -> String {
    let (beginning, rest) = shown(text, true);
    format!("\"{beginning}\"{rest}")
}

/// `text` escaped; of a long one the beginning and its length.
pub fn shortened(text: &str) -> String {
    let (beginning, rest) = shown(text, false);
    beginning + &rest
}

/// The escaped beginning of a text, and what stands for its rest.
fn shown(text: &str, in_quotes: bool) -> (String, String) {
    let mut beginning = String::new();
    for character in text.chars().take(LONGEST) {
        if character.is_control() || is_invisible(character) || (in_quotes && matches!(character, '"' | '\\')) {
            beginning.extend(character.escape_default());
        } else {
            beginning.push(character);
        }
    }
    let mut rest = String::new();
    if text.chars().nth(LONGEST).is_some() {
        // Writing into a string does not fail.
        let _ = write!(rest, "… ({} characters)", text.chars().count());
    }
    (beginning, rest)
}

/// Characters that change how the text around them is shown: marks of direction, and those of no width.
pub fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text in a message is short and harmless.
    #[test]
    fn quoted_text_is_short_and_harmless() {
        assert_eq!(quoted("line1/t1"), "\"line1/t1\"");
        assert_eq!(quoted("a\nb\u{1b}[31m"), "\"a\\nb\\u{1b}[31m\"");
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
        assert_eq!(shortened("Möbel & Söhne \"x\""), "Möbel & Söhne \"x\"");
        assert_eq!(shortened("a\u{1b}[31mb\nc\u{202e}"), "a\\u{1b}[31mb\\nc\\u{202e}");
        let (long, beginning) = ("é".repeat(60_000), "é".repeat(LONGEST));
        assert_eq!(quoted(&long), format!("\"{beginning}\"… (60000 characters)"));
        assert_eq!(shortened(&long), format!("{beginning}… (60000 characters)"));
    }
}
