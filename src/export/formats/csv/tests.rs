use std::error::Error;

use super::*;
use crate::export::sample::Sample;

fn rows(columns: &[&str], attribute: &str) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let section = toml::Table::from_iter([("columns".to_owned(), columns.to_vec().into())]);
    let csv = Csv::read(&mut Keys::new(&section));
    let mut sample = Sample::new("dev-1")?;
    sample.attributes.insert("hw".to_owned(), attribute.to_owned());
    let mut writer = csv.writer();
    let mut text = writer.begin().to_owned();
    writer.append(&sample.certificate(), &mut text)?;
    let (mut rows, mut rest) = (Vec::new(), text.as_str());
    while !rest.is_empty() {
        let (row, after) = read_row(rest).ok_or(text.clone())?;
        rows.push(row);
        rest = after;
    }
    Ok(rows)
}

/// A value is read back as it was, but for those that a spreadsheet would run.
#[test]
fn csv_value_is_read_back_unless_it_is_a_formula() -> Result<(), Box<dyn Error>> {
    for value in ["", "plain", "a,b", "\"", "a\"\"b\"", " spaces ", "zwölf", "a\r\nb", "1-2", "a=b", "line\nline"] {
        let read = rows(&["a,\"b={order.hw}", "device_id"], value)?;
        assert_eq!(read, [["a,\"b", "device_id"], [value, "dev-1"]], "{value:?}");
    }
    for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0", "＝1"] {
        let read = rows(&["x={order.hw}"], formula)?;
        assert_eq!(read.get(1), Some(&vec![format!("'{formula}")]), "{formula:?}");
    }
    let pem = rows(&["x={certificate_pem}"], "")?;
    assert!(pem.get(1).and_then(|row| row.first()).is_some_and(|pem| pem.starts_with("-----BEGIN CERTIFICATE-----\n")));
    Ok(())
}

/// What is cut off, or has something after a quotation mark, is not read.
#[test]
fn csv_record_that_is_not_whole_is_refused() {
    for text in ["", "a", "a,b", "\"a", "\"a\"b\r\n", "\"a\",", "a\n", "\"a\"\"\r\n"] {
        assert_eq!(read_row(text), None, "{text:?}");
    }
}
