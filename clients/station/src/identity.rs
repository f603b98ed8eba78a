//! The files of a station's identity: its key is made where it is used, and never leaves.

mod files;
mod pkcs12;

pub use self::{
    files::{Files, FilesError, NewKey, check_free, write_secret},
    pkcs12::{Pkcs12Error, pkcs12},
};
