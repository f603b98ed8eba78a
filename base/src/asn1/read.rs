//! Reads DER that others wrote: value after value, as the octets stand there. It judges tags and lengths (definite, in as
//! few octets as possible) and nothing else: a value that is not used cannot refuse a certificate.

use super::{
    error::DerError,
    oid::Oid,
    tag::{BIT_STRING, BOOLEAN, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE},
};

/// An Extension (RFC 5280 section 4.1), as it stands there.
pub struct RawExtension<'a> {
    /// Its type.
    pub oid: Oid,
    /// Whether whoever does not know it must refuse the whole.
    pub critical: bool,
    /// DER.
    pub value: &'a [u8],
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its tag, one octet.
    pub tag: u8,
    /// Without tag and length.
    pub content: &'a [u8],
    /// Tag and length included.
    pub whole: &'a [u8],
}

impl<'a> Value<'a> {
    /// The only value in `octets`.
    pub fn only(octets: &'a [u8]) -> Result<Self, DerError> {
        let mut reader = Reader::new(octets);
        let value = reader.value()?;
        reader.finish()?;
        Ok(value)
    }

    /// Its content, if it has this tag.
    pub fn of(self, expected: u8) -> Result<&'a [u8], DerError> {
        if self.tag == expected { Ok(self.content) } else { Err(DerError::Unexpected { expected, found: self.tag }) }
    }
}

/// Values one after another.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first octet.
    pub fn new(octets: &'a [u8]) -> Self {
        Reader { rest: octets }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next value.
    pub fn value(&mut self) -> Result<Value<'a>, DerError> {
        let (header, length) = header(self.rest)?;
        let end = header.saturating_add(length);
        let (Some(whole), Some(rest)) = (self.rest.get(..end), self.rest.get(end..)) else {
            return Err(DerError::Truncated { expected: end, found: self.rest.len() });
        };
        let value = Value {
            tag: whole.first().copied().unwrap_or_default(),
            content: whole.get(header..).unwrap_or_default(),
            whole,
        };
        self.rest = rest;
        Ok(value)
    }

    /// The content of the next value, which must have this tag.
    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        self.value()?.of(tag)
    }

    /// The content of the next value if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, DerError> {
        if self.rest.first() == Some(&tag) { self.expect(tag).map(Some) } else { Ok(None) }
    }

    /// The octets of a BIT STRING that has whole ones.
    pub fn bit_string(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(BIT_STRING)?.split_first() {
            Some((0, octets)) => Ok(octets),
            _ => Err(DerError::Content("BIT STRING")),
        }
    }

    /// An Extension (RFC 5280 section 4.1).
    pub fn extension(&mut self) -> Result<RawExtension<'a>, DerError> {
        let mut reader = Reader::new(self.expect(SEQUENCE)?);
        let oid = Oid::from_content(reader.expect(OBJECT_IDENTIFIER)?)?;
        let critical = match reader.optional(BOOLEAN)? {
            None => false,
            Some([value]) => *value != 0,
            Some(_) => return Err(DerError::Content("BOOLEAN")),
        };
        let value = reader.expect(OCTET_STRING)?;
        reader.finish()?;
        Ok(RawExtension { oid, critical, value })
    }

    /// Checks that nothing is left.
    pub fn finish(self) -> Result<(), DerError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DerError::Trailing(self.rest.len())) }
    }
}

/// The lengths of a value's header and content.
fn header(octets: &[u8]) -> Result<(usize, usize), DerError> {
    let short = |expected| DerError::Truncated { expected, found: octets.len() };
    let (Some(tag), Some(first)) = (octets.first(), octets.get(1)) else { return Err(short(2)) };
    if tag & 0x1f == 0x1f {
        return Err(DerError::Tag);
    }
    if *first < 0x80 {
        return Ok((2, usize::from(*first)));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return Err(DerError::Length);
    }
    let length = octets.get(2..2 + count).ok_or_else(|| short(2 + count))?;
    let length = length.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
    let fewest = if length < 0x80 { 0 } else { (usize::BITS - length.leading_zeros()).div_ceil(8) as usize };
    if fewest == count { Ok((2 + count, length)) } else { Err(DerError::Length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_read_with_its_octets() {
        let mut reader = Reader::new(&[0x30, 3, 2, 1, 5, 0x05, 0]);
        let sequence = reader.value().unwrap();
        assert_eq!((sequence.tag, sequence.content, sequence.whole), (0x30, &[2, 1, 5][..], &[0x30, 3, 2, 1, 5][..]));
        assert_eq!(reader.optional(2), Ok(None));
        assert_eq!(reader.optional(5), Ok(Some(&[][..])));
        assert!(reader.is_empty());
        let long = [&[4, 0x81, 128][..], &[7; 128]].concat();
        assert_eq!(Value::only(&long).unwrap().content.len(), 128);
    }

    /// What BER has and DER has not is refused.
    #[test]
    fn value_in_ber_only_is_refused() {
        for (octets, error) in [
            (&[][..], DerError::Truncated { expected: 2, found: 0 }),
            (&[0x30, 2, 1], DerError::Truncated { expected: 4, found: 3 }),
            (&[0x30, 0x80, 0, 0], DerError::Length),
            (&[0x30, 0x81, 5, 0, 0, 0, 0, 0], DerError::Length),
            (&[0x30, 0x82, 0, 0x80], DerError::Length),
            (&[0x30, 0x85, 1, 1, 1, 1, 1], DerError::Length),
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], DerError::Truncated { expected: 0x1_0000_0005, found: 6 }),
            (&[0x1f, 1, 0], DerError::Tag),
            (&[5, 0, 0], DerError::Trailing(1)),
        ] {
            assert_eq!(Value::only(octets), Err(error), "{octets:02x?}");
        }
        assert_eq!(Value::only(&[5, 0]).unwrap().of(4), Err(DerError::Unexpected { expected: 4, found: 5 }));
    }
}
