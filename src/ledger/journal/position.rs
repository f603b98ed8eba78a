//! Where frames lie in the journal.

/// The length of the header of the first file, in bytes: where the first frame of all begins.
pub(super) const FIRST_HEADER: u32 = 72;

/// Where a frame begins: the file's number and the offset in it. A later frame has a greater position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(u64);

impl Position {
    pub(super) fn new(segment: u32, offset: u32) -> Self {
        Position(u64::from(segment) << 32 | u64::from(offset))
    }

    /// The first frame of all.
    pub(crate) fn start() -> Self {
        Position::new(1, FIRST_HEADER)
    }

    /// The beginning of a file.
    pub(crate) fn file_start(segment: u32) -> Self {
        Position::new(segment, 0)
    }

    pub(crate) fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn offset(self) -> u32 {
        self.0 as u32
    }

    /// Whether `other` is in the same file and less than `bytes` away.
    pub(crate) fn is_within(self, bytes: u32, other: Position) -> bool {
        self.segment() == other.segment() && self.offset().abs_diff(other.offset()) < bytes
    }

    /// How many bytes it is behind `other`, in the same file.
    pub(crate) fn distance_from(self, other: Position) -> Option<u32> {
        (self.segment() == other.segment()).then(|| self.offset().checked_sub(other.offset())).flatten()
    }

    /// The place this many bytes behind it, in the same file.
    pub(crate) fn plus(self, bytes: u32) -> Option<Position> {
        Some(Position::new(self.segment(), self.offset().checked_add(bytes)?))
    }

    /// As entries have it: it rises along the journal.
    pub(crate) fn to_number(self) -> u64 {
        self.0
    }

    /// As entries have it.
    pub(crate) fn from_number(number: u64) -> Self {
        Position(number)
    }

    /// As the index stores it.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// As the index stores it.
    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Self {
        Position(u64::from_be_bytes(bytes))
    }
}

/// For people: `byte 72 of the journal's file 00000001`.
impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "byte {} of the journal's file {:08}", self.offset(), self.segment())
    }
}

impl std::fmt::Debug for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
