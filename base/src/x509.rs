//! Certificates that others made (RFC 5280 section 4), as the octets that came.
//!
//! Signatures are verified over the octets of the file, and names are compared as they stand there: an encoder that
//! writes the same content again may write other octets. Whoever is stricter than the verifiers of the world refuses
//! good certificates, so only what is needed is understood: a long serial number, a GeneralizedTime before 2050, a
//! `critical FALSE` written out, an unsorted RDN and string types of all kinds are read.

mod certificate;
mod extension;
mod fits;
mod name;

pub use self::{
    certificate::{Certificate, Extension},
    extension::{
        AuthorityKeyIdentifier, BasicConstraints, CONTENT_COMMITMENT, CRL_SIGN, DIGITAL_SIGNATURE, GeneralName,
        KEY_AGREEMENT, KEY_CERT_SIGN, KEY_ENCIPHERMENT, NameConstraints,
    },
    fits::{Misfit, fits, fits_der},
    name::{Attribute, Name, starts_with, text_of},
};
