//! How far the index follows the journal.

use jiff::Timestamp;

use crate::{
    ledger::{
        entry::{Entry, Event},
        head::ChainHash,
        journal::Position,
        recovery::Recovery,
    },
    serial::SerialNumber,
};

/// How far the index follows the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The journal's id.
    pub(crate) journal: [u8; 16],
    /// The last applied frame and the chain hash after it; none if there is none.
    pub(crate) last: Option<(Position, ChainHash)>,
    /// The next frame to apply.
    pub(crate) next: Position,
    /// Where the reading begins at a start: the oldest reservation that had no certificate, or `next`.
    pub(crate) replay_from: Position,
    /// The greatest serial number so far.
    pub(crate) newest_serial: Option<SerialNumber>,
    /// The time of the newest entry.
    pub(crate) newest_time: Timestamp,
    /// How many certificates of devices were recorded.
    pub(crate) certificates: u64,
}

impl Applied {
    /// Nothing of the journal is applied.
    pub(crate) fn nothing(journal: [u8; 16]) -> Self {
        let start = Position::start();
        Applied {
            journal,
            last: None,
            next: start,
            replay_from: start,
            newest_serial: None,
            newest_time: Timestamp::UNIX_EPOCH,
            certificates: 0,
        }
    }

    /// Takes note of the newest entry.
    pub(crate) fn note(&mut self, entry: &Entry) {
        // Times do not decrease, but when an operator has set them right.
        self.newest_time = entry.time;
        self.certificates += u64::from(matches!(entry.event, Event::Issued { .. } | Event::Recovered(_)));
        if let Event::Reserved { serial_number, .. }
        | Event::ProofReserved { serial_number, .. }
        | Event::Recovered(Recovery { serial_number, .. }) = &entry.event
        {
            self.newest_serial = self.newest_serial.max(Some(*serial_number));
        }
    }

    /// Bytes as the manifest stores it.
    pub(super) const LENGTH: usize = 16 + 8 + 32 + 8 + 8 + SerialNumber::LENGTH + 8 + 8;

    pub(super) fn encode(&self) -> Vec<u8> {
        let (position, chain) = self.last.unwrap_or((Position::from_bytes([0; 8]), [0; 32]));
        let newest_serial = self.newest_serial.map_or([0; SerialNumber::LENGTH], |serial| *serial.as_bytes());
        [
            &self.journal[..],
            &position.to_bytes(),
            &chain,
            &self.next.to_bytes(),
            &self.replay_from.to_bytes(),
            &newest_serial,
            &self.newest_time.as_microsecond().to_be_bytes(),
            &self.certificates.to_be_bytes(),
        ]
        .concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Applied> {
        let (journal, rest) = bytes.split_first_chunk::<16>()?;
        let (position, rest) = rest.split_first_chunk::<8>()?;
        let (chain, rest) = rest.split_first_chunk::<32>()?;
        let (next, rest) = rest.split_first_chunk::<8>()?;
        let (replay_from, rest) = rest.split_first_chunk::<8>()?;
        let (newest_serial, rest) = rest.split_first_chunk::<{ SerialNumber::LENGTH }>()?;
        let (newest_time, rest) = rest.split_first_chunk::<8>()?;
        let certificates = u64::from_be_bytes(rest.try_into().ok()?);
        Some(Applied {
            journal: *journal,
            last: (*position != [0; 8]).then(|| (Position::from_bytes(*position), *chain)),
            next: Position::from_bytes(*next),
            replay_from: Position::from_bytes(*replay_from),
            newest_serial: SerialNumber::try_from(newest_serial.as_slice()).ok(),
            newest_time: Timestamp::from_microsecond(i64::from_be_bytes(*newest_time)).ok()?,
            certificates,
        })
    }
}
