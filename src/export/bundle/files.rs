//! The files of a bundle as they are written: each is counted and hashed on its way.

use aws_lc_rs::digest::{Context, SHA256};

use super::super::{
    manifest::ListedFile,
    sink::{Sink, SinkError},
};

/// The largest piece that a sink is given.
pub(super) const PIECE: usize = 128 << 10;

/// One file after another.
pub(super) struct Files<S> {
    sink: S,
    open: Option<Open>,
    /// What the sink was not given yet.
    buffer: Vec<u8>,
    listed: Vec<ListedFile>,
}

struct Open {
    name: String,
    bytes: u64,
    lines: u64,
    sha256: Context,
}

impl<S: Sink> Files<S> {
    pub(super) fn new(sink: S) -> Self {
        Files { sink, open: None, buffer: Vec::with_capacity(PIECE), listed: Vec::new() }
    }

    pub(super) fn start(&mut self, name: &str) -> Result<(), SinkError> {
        self.close()?;
        self.sink.start(name)?;
        self.open = Some(Open { name: name.to_owned(), bytes: 0, lines: 0, sha256: Context::new(&SHA256) });
        Ok(())
    }

    pub(super) fn write(&mut self, mut octets: &[u8]) -> Result<(), SinkError> {
        while !octets.is_empty() {
            let room = PIECE.saturating_sub(self.buffer.len());
            let (now, later) = octets.split_at_checked(room).unwrap_or((octets, &[]));
            self.buffer.extend_from_slice(now);
            octets = later;
            if self.buffer.len() >= PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if let Some(open) = &mut self.open {
            open.bytes += self.buffer.len() as u64;
            open.lines += self.buffer.iter().map(|octet| u64::from(*octet == b'\n')).sum::<u64>();
            open.sha256.update(&self.buffer);
        }
        if !self.buffer.is_empty() {
            self.sink.write(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Ends the file that is open, if one is.
    pub(super) fn close(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        if let Some(open) = self.open.take() {
            let sha256 = hex::encode(open.sha256.finish());
            self.listed.push(ListedFile { name: open.name, bytes: open.bytes, lines: open.lines, sha256 });
        }
        Ok(())
    }

    /// The sink, and what it was given.
    pub(super) fn finish(mut self) -> Result<(S, Vec<ListedFile>), SinkError> {
        self.close()?;
        Ok((self.sink, self.listed))
    }
}
