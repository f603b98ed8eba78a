//! Counts of what the entries record.

/// Counts of what the entries record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Certificates recorded.
    pub issued: u64,
    /// Of these: those that were lost and found again.
    pub recovered: u64,
    /// Reservations abandoned.
    pub abandoned: u64,
    /// Reservations without a certificate yet.
    pub reserved: u64,
    /// Certificates that are confirmed at the end.
    pub confirmed: u64,
    /// Certificates scrapped.
    pub scrapped: u64,
    /// Certificates revoked.
    pub revoked: u64,
    /// Proofs of possession recorded.
    pub proofs: u64,
    /// Orders created.
    pub orders: u64,
    /// Exports of orders created.
    pub exports: u64,
    /// Batches of destinations cut.
    pub batches: u64,
    /// Revocation lists signed.
    pub crls: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Issuers recorded, each generation of a name.
    pub issuers: u64,
    /// Certificates of stations, operators and auditors.
    pub enrolments: u64,
    /// Stations, operators and auditors revoked, each time.
    pub stations_revoked: u64,
    /// Requests for certificates refused.
    pub refused: u64,
}
