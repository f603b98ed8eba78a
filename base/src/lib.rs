//! What the daemon and its clients have in common, and nothing that only one of them needs: the ids and identities of the
//! protocol, the octets of certificates as others wrote them, PEM and text from anywhere, and files that are whole after a
//! crash. It builds for Linux and other Unix systems and for Windows; where those differ stands in [`durable`],
//! [`secret_file`], [`temporary`] and [`text_file`].

pub mod asn1;
pub mod console;
pub mod csr;
pub mod durable;
pub mod fields;
pub mod hash;
pub mod id;
pub mod identity;
pub mod name;
pub mod pem;
pub mod quote;
pub mod secrecy;
pub mod secret_file;
pub mod serial;
pub mod temporary;
pub mod text_file;
pub mod version;
pub mod x509;
pub mod x509_time;
