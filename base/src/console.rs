//! What the programs print: on standard output, for people and for other programs.

use std::{
    error::Error,
    io::{self, ErrorKind, Write},
};

/// Prints on standard output, where `print!` would panic when a reader such as `head` has seen enough.
///
/// # Errors
/// What the system says, but for a reader that is gone.
pub fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints a value for programs.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &serde_json::Value) -> io::Result<()> {
    print(&format!("{value:#}\n"))
}

/// What the standard library says, as people say it.
const PLAIN: [(&str, &str); 4] = [
    ("invalid digit found in string", "it is not a whole number"),
    ("cannot parse integer from empty string", "it is empty, not a whole number"),
    ("number too large to fit in target type", "the number is too large"),
    ("number too small to fit in target type", "the number is too small"),
];

/// A message for people: without the numbers of system errors, and with plain words for the standard library's.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        let number = after.split_once(')').filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
        plain.push_str(before);
        rest = match number {
            Some((_, after)) => after,
            None => {
                plain.push_str(" (os error ");
                after
            }
        };
    }
    plain.push_str(rest);
    PLAIN.iter().fold(plain, |text, (theirs, ours)| text.replace(theirs, ours))
}

/// An error and its causes as one sentence, without those that the one before has repeated already.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = plain(&error.to_string());
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.map(|cause| plain(&cause.to_string())) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Renders rows under their headings; columns whose heading starts with `>` are aligned to the right.
pub fn columns(headings: &[&str], rows: &[Vec<String>]) -> String {
    let titles = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&titles).chain(rows).collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(headings.iter().zip(&widths))
            .map(|(cell, (heading, width))| match heading.starts_with('>') {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What people read has no numbers of system errors.
    #[test]
    fn library_text_becomes_plain_words() {
        for (text, told) in [
            (
                "cannot read x: No such file or directory (os error 2); make it",
                "cannot read x: No such file or directory; make it",
            ),
            ("a (os error 13): b (os error 2)", "a: b"),
            ("(os error x) (os error ", "(os error x) (os error "),
            ("invalid value 'ten': invalid digit found in string", "invalid value 'ten': it is not a whole number"),
        ] {
            assert_eq!(plain(text), told);
        }
    }

    #[test]
    fn table_columns_fit_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "5".to_owned()], vec!["long".to_owned(), "1000".to_owned()]];
        assert_eq!(columns(&["ID", ">LEFT"], &rows), "ID    LEFT\na        5\nlong  1000\n");
    }
}
