use super::*;

const GOOD: &str = "-----BEGIN X-----\nAQID\nBAUG\n-----END X-----\n";

fn one(text: &[u8]) -> Result<(String, Vec<u8>), String> {
    match blocks(text).map_err(|error| error.to_string())?.as_slice() {
        [block] => Ok((block.label.clone(), block.der.clone())),
        several => Err(format!("{} blocks", several.len())),
    }
}

#[test]
fn block_is_read_however_it_is_laid_out() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for text in [
        GOOD.as_bytes().to_vec(),
        GOOD.replace('\n', "\r\n").into_bytes(),
        GOOD.replace('\n', "\n\n").into_bytes(),
        GOOD.replace('\n', "  \n\t").into_bytes(),
        GOOD.replace('\n', " ").into_bytes(),
        GOOD.trim_end().as_bytes().to_vec(),
        format!("0 is the first character\n{GOOD}and text after it\n").into_bytes(),
        format!("\u{feff}{GOOD}").into_bytes(),
        utf16(&format!("\u{feff}{GOOD}")),
        [b"Ger\xe4t ----- -----BEGIN nothing\n", GOOD.as_bytes()].concat(),
        GOOD.replace("AQID", "Comment: made by a tool\n\nAQID").into_bytes(),
    ] {
        let expected = Ok(("X".to_owned(), vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(one(&text), expected, "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn damaged_block_is_refused_by_name() {
    for (text, message) in [
        (GOOD.replace("-----END X-----", ""), "ends before -----END X-----"),
        (GOOD.replace("END X", "END Y"), "begins as X and ends as Y"),
        (GOOD.replace("AQID", "AQ*D"), "X is not base64"),
        (GOOD.replace("AQID", "AQI"), "X is not base64"),
        (GOOD.replace("AQID", "Proc-Type: 4,ENCRYPTED\n\nAQID"), "X is encrypted"),
        ("no PEM at all".into(), "0 blocks"),
        ([GOOD, GOOD].concat(), "2 blocks"),
    ] {
        let error = one(text.as_bytes()).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    for (text, line) in [(format!("{GOOD}\0"), 5), (format!("{GOOD}{GOOD}\0\0"), 9), (format!("a\0\n{GOOD}"), 1)] {
        let error = one(text.as_bytes()).unwrap_err();
        assert!(error.starts_with(&format!("line {line} has the control character U+0000")), "{error}");
    }
    assert_eq!(one(b"\0 and no block"), Err("0 blocks".to_owned()));
    let unmarked: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(one(&unmarked).unwrap_err().contains("UTF-16"));
}

#[test]
fn der_is_known_by_its_length_not_its_first_octet() {
    assert!(is_der(&[0x30, 2, 5, 0]));
    for other in [&[0x30, 3, 5, 0][..], &[0x30, 1, 5, 0], &[4, 0], b"0 -----BEGIN X-----", b""] {
        assert!(!is_der(other));
    }
}

#[test]
fn file_without_end_or_certificate_is_refused_by_name() {
    for (path, message) in
        [("/dev/zero", "longer than"), ("/dev/null", "no PEM certificate"), ("/nowhere", "No such file")]
    {
        let error = read_certificates(Path::new(path)).unwrap_err().to_string();
        assert!(error.contains(message), "{path}: {error}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    for (content, message) in [
        (&[0x30, 2, 5, 0][..], "convert it with openssl"),
        (GOOD.as_bytes(), "no PEM certificate in it, but X"),
        (GOOD.replace('X', "CERTIFICATE").repeat(2).as_bytes(), "holds 2 certificates"),
        (format!("{}\0", GOOD.replace('X', "CERTIFICATE")).as_bytes(), "line 5 has the control character U+0000"),
    ] {
        #[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
        std::fs::write(file.path(), content).unwrap();
        let error = read_certificate(file.path()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// What is written is read again, and ends its lines as the files of all platforms do.
#[test]
fn written_block_has_lines_of_64_that_end_in_lf() {
    let der: Vec<u8> = (0..100).collect();
    let text = certificate_pem(&der);
    assert_eq!(one(text.as_bytes()), Ok(("CERTIFICATE".to_owned(), der)));
    assert!(!text.contains('\r') && text.ends_with("-----END CERTIFICATE-----\n"));
    assert_eq!(text.lines().map(str::len).max(), Some(64));
}
