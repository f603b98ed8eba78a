//! Finds certificates in files, and tells what they are, so that a ledger that has lost them can take them back.
//!
//! Nothing in a file is believed that its certificate does not bear out: it must be signed by an issuer that the ledger
//! has recorded, have a serial number that this ledger gives, and name the device.
//!
//! `read` looks for files, `content` reads those that hold many certificates, `identify` tells what each is.

mod content;
mod found;
mod identify;
mod read;

pub use self::{
    found::{Charge, Found},
    identify::{NotOurs, Reconciler},
    read::{ReadError, Reading, read},
};
