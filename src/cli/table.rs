//! Aligned columns for people, and lines of values for spreadsheets and label software.

pub(crate) use birthmark::console::columns;

/// Renders rows under their headings as comma-separated values.
pub(crate) fn csv_table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let titles = csv(headings.iter().map(|heading| heading.trim_start_matches('>').to_lowercase()));
    rows.iter().fold(titles, |text, row| text + &csv(row))
}

/// Renders a list for spreadsheets or for people.
pub(crate) fn rendered(as_csv: bool, headings: &[&str], rows: &[Vec<String>]) -> String {
    if as_csv { csv_table(headings, rows) } else { columns(headings, rows) }
}

/// A line of comma-separated values (RFC 4180).
pub(crate) fn csv<S: AsRef<str>>(cells: impl IntoIterator<Item = S>) -> String {
    let quoted = |cell: S| match cell.as_ref() {
        plain if !plain.contains([',', '"', '\r', '\n']) => plain.to_owned(),
        other => format!("\"{}\"", other.replace('"', "\"\"")),
    };
    cells.into_iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Renders names with their values, one per line; those without a value are left out.
pub(crate) fn fields(fields: &[(&str, Option<String>)]) -> String {
    let longest = fields.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let present = fields.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let below = format!("\n{:longest$}  ", "");
    present.map(|(name, value)| format!("{name:<longest$}  {}\n", value.replace('\n', &below))).collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cell_with_comma_or_quote_is_quoted() {
        assert_eq!(csv(["a", "b,c", "d\"e", ""]), "a,\"b,c\",\"d\"\"e\",\r\n");
    }

    #[test]
    fn table_as_values_or_fields_has_every_cell() {
        let odd = [vec!["a,b".to_owned(), "say \"x\"".to_owned()], vec!["=1+1".to_owned(), "-5".to_owned()]];
        assert_eq!(csv_table(&["ID", ">LEFT"], &odd), "id,left\r\n\"a,b\",\"say \"\"x\"\"\"\r\n=1+1,-5\r\n");
        assert_eq!(
            fields(&[("id", Some("a".into())), ("none", None), ("from", Some("b\nc".into()))]),
            "id    a\nfrom  b\n      c\n"
        );
    }
}
