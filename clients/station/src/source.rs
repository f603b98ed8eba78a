//! Where CSRs come from: a folder, a file, JSON lines, or a folder that is watched.
//!
//! One thread reads and stays at most the channel's bound ahead, so a folder of a million CSRs or an endless pipe needs
//! no more memory than a small one (but see `reader::Seen`). The thread ends when the receiver is dropped; one that is
//! blocked on standard input ends with the process.

use std::{fs::File, io, sync::Arc, thread};

use birthmark_base::text_file::TextError;
use tokio::sync::mpsc;

use self::{
    lines::Lines,
    reader::{Ended, Reader},
};
use super::{
    input::{Input, InputError},
    item::Item,
    places::Places,
    progress::Progress,
};

mod decode;
mod files;
mod lines;
mod reader;
mod watch;

/// Starts reading. An error ends the channel: the input as a whole cannot be read (on).
pub(crate) fn start(
    input: Input,
    places: Arc<Places>,
    progress: Arc<Progress>,
    bound: usize,
) -> mpsc::Receiver<Result<Item, InputError>> {
    let (items, receiver) = mpsc::channel(bound);
    // Not tokio's pool for blocking work: its shutdown would wait for a read of standard input that never returns.
    thread::spawn(move || {
        let mut reader = Reader::new(places, progress, items);
        let name = input.name();
        if let Err(Ended::Broken(source)) = read(input, &mut reader) {
            // A receiver that is gone has stopped reading and does not want to know.
            let _ = reader.items.blocking_send(Err(InputError { name, source }));
        }
    });
    receiver
}

fn read(input: Input, reader: &mut Reader) -> Result<(), Ended> {
    match input {
        Input::Folder(folder) => reader.folder(&folder),
        Input::File(path) => {
            reader.progress.expect(1);
            // A pipe that was named is read, as a shell's <(…); one that lies in a folder is never opened for reading.
            let content = File::open(&path).map_err(TextError::Io).and_then(files::read_beginning);
            reader.file(path, content)
        }
        Input::Lines(path) => {
            if let Some(total) = lines::count(File::open(&path)?)? {
                reader.progress.expect(total);
            }
            reader.lines(Lines::new(File::open(&path)?)?)
        }
        Input::StandardInput => reader.lines(Lines::new(io::stdin())?),
        Input::Watch { folder, poll, settle, keep_days } => watch::watch(reader, &folder, poll, settle, keep_days),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]

    use std::{fs, path::Path};

    use base64::Engine;

    use super::{decode::LONGEST_TEXT, *};

    fn csr() -> Result<(Vec<u8>, String), Box<dyn std::error::Error>> {
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
        Ok((csr.der().to_vec(), csr.pem()?))
    }

    fn read(input: Input, out: &Path) -> Vec<Result<Item, InputError>> {
        let places = Arc::new(Places::new(Some(out.to_owned()), false, None));
        let mut items = start(input, places, Arc::new(Progress::silent()), 2);
        std::iter::from_fn(|| items.blocking_recv()).collect()
    }

    #[test]
    fn folder_gives_csrs_of_every_encoding_and_names_others() -> Result<(), Box<dyn std::error::Error>> {
        let (der, pem) = csr()?;
        let folder = tempfile::tempdir()?;
        let put = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content);
        put("a.csr", pem.as_bytes())?;
        put("b.DER", &der)?;
        put("c.pem", format!("Certificate Request:\n    Data:\n{pem}").as_bytes())?;
        put("d.req", b"")?;
        put("e.p10", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
        put("no id.csr", pem.as_bytes())?;
        put("readme.txt", b"")?;
        put(".a.csr", b"")?;
        fs::create_dir(folder.path().join("f.csr"))?;
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere", folder.path().join("g.csr"))?;
        let mut found: Vec<_> = read(Input::Folder(folder.path().to_owned()), folder.path())
            .into_iter()
            .map(|item| match item {
                Ok(Item::Wanted(wanted)) => {
                    assert_eq!(wanted.csr, der);
                    (wanted.device_id, "wanted".to_owned())
                }
                Ok(Item::Refused(refused)) => (refused.device_id, refused.reason),
                other => ("?".to_owned(), format!("{other:?}")),
            })
            .collect();
        found.sort();
        let expected = [
            ("a", "wanted"),
            ("b", "wanted"),
            ("c", "wanted"),
            ("d", "CSR_MALFORMED"),
            ("e", "CSR_MALFORMED"),
            ("g", "CSR_UNREADABLE"),
            ("no id", "REQUEST_INVALID"),
        ];
        assert_eq!(found, expected.map(|(id, what)| (id.to_owned(), what.to_owned())));
        Ok(())
    }

    #[test]
    fn lines_take_pem_and_base64_and_survive_bad_ones() -> Result<(), Box<dyn std::error::Error>> {
        let (der, pem) = csr()?;
        let (_, other) = csr()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("in.jsonl");
        let line = |id: &str, csr: &str| serde_json::json!({"device_id": id, "csr": csr}).to_string();
        let lines = [
            line("a", &pem),
            line("b", &base64::prelude::BASE64_STANDARD.encode(&der)),
            "{\"device_id\": \"c\"}".to_owned(),
            String::new(),
            line("../../etc/passwd", &pem),
            line("d", &"A".repeat(LONGEST_TEXT)),
            line("a", &other),
            line("a", &pem),
        ];
        fs::write(&path, lines.join("\r\n"))?;
        let found: Vec<_> = read(Input::at(&path)?, folder.path())
            .into_iter()
            .map(|item| match item {
                Ok(Item::Wanted(wanted)) => (wanted.device_id, "wanted".to_owned()),
                Ok(Item::Refused(refused)) => (refused.device_id, refused.reason),
                other => ("?".to_owned(), format!("{other:?}")),
            })
            .collect();
        let expected = [
            ("a", "wanted"),
            ("b", "wanted"),
            ("(line 3)", "REQUEST_INVALID"),
            ("../../etc/passwd", "REQUEST_INVALID"),
            ("(line 6)", "REQUEST_INVALID"),
            ("a", "DUPLICATE_DEVICE"),
            ("a", "wanted"),
        ];
        assert_eq!(found, expected.map(|(id, what)| (id.to_owned(), what.to_owned())));
        Ok(())
    }
}
