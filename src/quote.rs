//! Names and ids from outside in messages: whole if they are short, never longer than a line.

/// The longest text that a message repeats whole, in characters: the longest id.
const LONGEST: usize = 128;

/// `text` in quotation marks with its control characters escaped; of a long one the beginning and its length.
pub fn quoted(text: &str) -> String {
    let quote = |text: &str| format!("\"{}\"", text.escape_debug());
    match text.char_indices().nth(LONGEST) {
        None => quote(text),
        Some((end, _)) => {
            let beginning = text.get(..end).unwrap_or_default();
            format!("{}… ({} characters)", quote(beginning), text.chars().count())
        }
    }
}

/// `text` as it is; of a long one the beginning and an ellipsis. For fields that a program reads.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_a_message_is_short_and_escaped() {
        assert_eq!(quoted("line1/t1"), "\"line1/t1\"");
        assert_eq!(quoted("a\nb\u{1b}[31m"), "\"a\\nb\\u{1b}[31m\"");
        let long = "é".repeat(60_000);
        assert!(quoted(&long).ends_with("é\"… (60000 characters)"), "{}", quoted(&long));
        assert!(quoted(&long).len() < 300 && shortened(&long).len() < 300);
        assert_eq!(shortened("short"), "short");
    }
}
