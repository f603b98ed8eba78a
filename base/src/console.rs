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

/// An error and its causes as one sentence, without those that the one before has repeated already.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.map(ToString::to_string) {
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

    #[test]
    fn table_columns_fit_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "5".to_owned()], vec!["long".to_owned(), "1000".to_owned()]];
        assert_eq!(columns(&["ID", ">LEFT"], &rows), "ID    LEFT\na        5\nlong  1000\n");
    }
}
