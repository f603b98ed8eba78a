//! What is wrong with DER that others wrote.

/// Why octets are not the DER that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DerError {
    /// The octets end within a value.
    #[error("it ends too early: {expected} octets are announced, {found} are there")]
    Truncated {
        /// By the length of the value.
        expected: usize,
        /// Up to the end.
        found: usize,
    },
    /// A length that DER does not have.
    #[error("it has a length that DER does not allow (indefinite, or in more octets than it needs)")]
    Length,
    /// A tag above 30, which nothing here has.
    #[error("it has a tag above 30")]
    Tag,
    /// Another type than expected.
    #[error("it has the tag 0x{found:02x} where 0x{expected:02x} is due")]
    Unexpected {
        /// The tag that is due.
        expected: u8,
        /// The tag that is there.
        found: u8,
    },
    /// Something is left over.
    #[error("{0} octets follow its end")]
    Trailing(usize),
    /// The content is not that of its type.
    #[error("it has an impossible {0}")]
    Content(&'static str),
}
