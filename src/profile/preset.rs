//! What each preset decides where the configuration says nothing. `hsm-config/birthmark.toml` shows the same to people.

use const_oid::{ObjectIdentifier, db::rfc5280::ID_KP_CLIENT_AUTH};
use jiff::SignedDuration;

use super::validity::End;
use crate::{
    config::{
        KeyType,
        KeyType::{Ed25519, P256, P384, P521, Rsa2048, Rsa3072, Rsa4096},
        KeyUsage,
        KeyUsage::DigitalSignature,
        Preset, WhenOutlivingIssuer,
    },
    x509_time::Time,
};

/// A profile of which the configuration says no more than its preset and issuer.
pub(super) struct Defaults {
    pub(super) keys: &'static [KeyType],
    /// `None`: the configuration must say it.
    pub(super) subject: Option<&'static str>,
    pub(super) device_id: Option<&'static str>,
    pub(super) end: End,
    pub(super) when_outliving_issuer: WhenOutlivingIssuer,
    pub(super) key_usage: &'static [KeyUsage],
    pub(super) extended_key_usage: &'static [ObjectIdentifier],
    pub(super) subject_key_identifier: bool,
    /// The most octets of DER that a certificate may have.
    pub(super) longest: Option<usize>,
}

impl Defaults {
    pub(super) fn for_preset(preset: Preset) -> Defaults {
        let device = Defaults {
            keys: &[P256, P384, Rsa2048, Rsa3072, Rsa4096],
            subject: Some("CN={device_id}"),
            device_id: None,
            end: End::WithIssuer,
            when_outliving_issuer: WhenOutlivingIssuer::Refuse,
            key_usage: &[DigitalSignature],
            extended_key_usage: &[ID_KP_CLIENT_AUTH],
            subject_key_identifier: true,
            longest: None,
        };
        match preset {
            Preset::Device => device,
            // IEEE 802.1AR-2018 section 8: it identifies the device for as long as the device lives.
            Preset::Idevid => Defaults {
                keys: &[P256, P384, Rsa2048],
                subject: Some("serialNumber={device_id}"),
                end: End::At(Time::NEVER),
                when_outliving_issuer: WhenOutlivingIssuer::Allow,
                extended_key_usage: &[],
                subject_key_identifier: false,
                ..device
            },
            // Matter Core Specification section 6.2.2.3: VID and PID are the product's, so only the site knows them.
            Preset::MatterDac => {
                Defaults { keys: &[P256], subject: None, extended_key_usage: &[], longest: Some(600), ..device }
            }
            Preset::AzureDps => Defaults { device_id: Some("azure-registration-id"), ..device },
            Preset::TlsClient => Defaults {
                keys: &[P256, P384, P521, Ed25519, Rsa2048, Rsa3072, Rsa4096],
                end: End::After(SignedDuration::from_hours(365 * 24)),
                ..device
            },
        }
    }
}
