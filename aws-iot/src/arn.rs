//! What AWS calls its things: partitions, accounts, ARNs, certificate ids.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The partition that a region belongs to: the second part of its ARNs.
pub fn partition_of(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        region if region.starts_with("us-isob-") => "aws-iso-b",
        region if region.starts_with("us-iso-") => "aws-iso",
        _ => "aws",
    }
}

/// The id of a certificate in AWS IoT: the SHA-256 of its DER, in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateId([u8; 32]);

/// The text is no certificate id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is no certificate id: 64 lower-case hex digits", birthmark::quote::quoted(.0))]
pub struct NoCertificateId(String);

impl CertificateId {
    /// That of a DER certificate.
    pub fn of(der: &[u8]) -> Self {
        CertificateId(birthmark::hash::sha256(der))
    }

    /// From its octets.
    pub fn from_octets(octets: [u8; 32]) -> Self {
        CertificateId(octets)
    }

    /// Its octets.
    pub fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// That of the certificate that an ARN names, `arn:…:cert/ID` or `arn:…:cacert/ID`.
    pub fn of_arn(arn: &str) -> Option<Self> {
        let (_, id) = arn.rsplit_once('/')?;
        id.parse().ok()
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for CertificateId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CertificateId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for CertificateId {
    type Err = NoCertificateId;

    fn from_str(text: &str) -> Result<Self, NoCertificateId> {
        let mut octets = [0; 32];
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut octets) {
            Ok(()) if lower => Ok(CertificateId(octets)),
            _ => Err(NoCertificateId(text.to_owned())),
        }
    }
}

/// Whose resources are meant: what stands between `arn:` and the resource in every ARN of AWS IoT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `aws`, `aws-cn` …
    pub partition: String,
    /// Such as `cn-north-1`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

impl Place {
    /// The place of the resource that an ARN names.
    pub fn of_arn(arn: &str) -> Option<Place> {
        let mut parts = arn.splitn(6, ':');
        let mut part = || parts.next().map(str::to_owned);
        let (_arn, partition, _service, region, account) = (part()?, part()?, part()?, part()?, part()?);
        Some(Place { partition, region, account })
    }

    /// The ARN of a certificate there.
    pub fn certificate(&self, id: &CertificateId) -> String {
        self.resource(&format!("cert/{id}"))
    }

    /// The ARN of a resource of AWS IoT there.
    pub fn resource(&self, resource: &str) -> String {
        format!("arn:{}:iot:{}:{}:{resource}", self.partition, self.region, self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// China, GovCloud and the isolated regions have partitions of their own.
    #[test]
    fn partition_follows_from_the_region() {
        for (region, partition) in [
            ("cn-north-1", "aws-cn"),
            ("cn-northwest-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-central-1", "aws"),
            ("us-east-1", "aws"),
        ] {
            assert_eq!(partition_of(region), partition, "{region}");
        }
    }

    /// The id is the SHA-256 of the DER, in lower case alone.
    #[test]
    fn certificate_id_is_the_digest_in_lower_case() {
        let id = CertificateId::of(b"abc");
        assert_eq!(id.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "ba78", &id.to_string().to_uppercase(), &format!("{id}0")] {
            assert!(wrong.parse::<CertificateId>().is_err(), "{wrong}");
        }
    }

    /// An ARN of the platform tells where all others are.
    #[test]
    fn place_comes_from_an_arn_and_makes_others() {
        let place = Place::of_arn("arn:aws-cn:iot:cn-north-1:123456789012:policy/device").unwrap();
        let id = CertificateId::of(b"abc");
        let arn = place.certificate(&id);
        assert_eq!(arn, format!("arn:aws-cn:iot:cn-north-1:123456789012:cert/{id}"));
        assert_eq!(CertificateId::of_arn(&arn), Some(id));
        assert_eq!(Place::of_arn("arn:aws"), None);
    }
}
