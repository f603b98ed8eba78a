//! Aligned columns for people.

/// Renders rows under their headings; columns whose heading starts with `>` are aligned to the right.
pub(crate) fn columns(headings: &[&str], rows: &[Vec<String>]) -> String {
    let titles = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&titles).chain(rows).collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| width(cell)).max().unwrap_or(0))
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

fn width(text: &str) -> usize {
    text.chars().count()
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
