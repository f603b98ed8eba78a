//! What a process did to its files, in order, as strace recorded it.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// A call that succeeded, on a file of the ledger.
#[derive(Clone)]
pub(super) enum Event {
    MakeFolder(PathBuf),
    /// Opened with O_CREAT; with O_TRUNC if true.
    Create(PathBuf, bool),
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    /// The ledger told its caller that something is durable.
    Acknowledged(String),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::MakeFolder(path) => write!(f, "mkdir {}", path.display()),
            Event::Create(path, truncate) => write!(f, "create {} truncate={truncate}", path.display()),
            Event::Write(path, offset, bytes) => write!(f, "write {} {offset}+{}", path.display(), bytes.len()),
            Event::Truncate(path, length) => write!(f, "truncate {} {length}", path.display()),
            Event::Remove(path) => write!(f, "remove {}", path.display()),
            Event::Rename(from, to) => write!(f, "rename {} {}", from.display(), to.display()),
            Event::SyncFile(path) => write!(f, "sync {}", path.display()),
            Event::SyncFolder(path) => write!(f, "sync folder {}", path.display()),
            Event::Acknowledged(text) => write!(f, "acknowledged {text:?}"),
        }
    }
}

/// Reads the record of the one thread that owns the ledger: the one that acknowledges. Only it writes to the journal.
pub(super) fn read(traces: &Path, folder: &Path) -> Vec<Event> {
    let mut owner = None;
    for entry in fs::read_dir(traces).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(path).unwrap();
        let events: Vec<_> = text.lines().filter_map(|line| event(line, folder)).collect();
        if events.iter().any(|event| matches!(event, Event::Acknowledged(_))) {
            assert!(owner.replace(events).is_none(), "two threads acknowledge");
        } else {
            let strays: Vec<_> = events.iter().filter(|event| matches!(event, Event::Write(..))).collect();
            assert!(strays.is_empty(), "another thread writes: {strays:?}");
        }
    }
    owner.expect("nobody acknowledges")
}

fn event(line: &str, folder: &Path) -> Option<Event> {
    let (call, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(" = "))?;
    if result.starts_with('-') {
        return None;
    }
    let arguments = arguments.trim_end().trim_end_matches(')');
    let arguments: Vec<_> = arguments.split(", ").collect();
    // Strings are all hexadecimal, so no comma stands in them.
    let path = |argument: &str| -> PathBuf {
        let text = match argument.split_once('<') {
            Some((_, path)) => path.trim_end_matches('>'),
            None => argument.trim_matches('"'),
        };
        PathBuf::from(String::from_utf8(unescape(text)).unwrap())
    };
    let number = |argument: &str| argument.parse::<u64>().unwrap();
    let ours = |path: &Path| {
        path.starts_with(folder.join("site"))
            && !path.starts_with(folder.join("site/data/index"))
            && !path.ends_with("lock")
            // Whether it is torn or gone decides nothing but whether an operator is asked.
            && !path.file_name().is_some_and(|name| name.to_string_lossy().trim_start_matches('.').starts_with("place"))
    };
    let ours = |at: usize| Some(path(arguments[at])).filter(|path| ours(path));
    match call {
        "mkdir" => ours(0).map(Event::MakeFolder),
        "mkdirat" => ours(1).map(Event::MakeFolder),
        "openat" if arguments[2].contains("O_CREAT") => {
            ours(1).map(|path| Event::Create(path, arguments[2].contains("O_TRUNC")))
        }
        "write" if path(arguments[0]).ends_with("acknowledgements") => {
            Some(Event::Acknowledged(String::from_utf8(unescape(arguments[1].trim_matches('"'))).unwrap()))
        }
        "pwrite64" => ours(0).map(|path| {
            let bytes = unescape(arguments[1].trim_matches('"'));
            assert_eq!((bytes.len() as u64, number(arguments[2])), (number(result), number(result)), "{line:.100}");
            Event::Write(path, number(arguments[3]), bytes)
        }),
        "ftruncate" => ours(0).map(|path| Event::Truncate(path, number(arguments[1]))),
        "unlink" => ours(0).map(Event::Remove),
        "unlinkat" => ours(1).map(Event::Remove),
        "rename" => ours(0).map(|from| Event::Rename(from, path(arguments[1]))),
        "fsync" | "fdatasync" => {
            let path = path(arguments[0]);
            if path.is_dir() {
                // Also the folders above.
                Some(Event::SyncFolder(path))
            } else {
                ours(0).map(Event::SyncFile)
            }
        }
        // What the model does not know must not happen to the journal.
        "openat" | "write" => {
            let harmless = call == "openat" || ours(0).is_none();
            assert!(harmless, "{line:.200}");
            None
        }
        _ => {
            let touched = (0..arguments.len()).filter(|at| arguments[*at].contains(['<', '"'])).find_map(ours);
            assert!(touched.is_none(), "{line:.200}");
            None
        }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match tail {
            [b'x', high, low, tail @ ..] if *first == b'\\' => {
                let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}
