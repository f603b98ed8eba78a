//! What tests stand on: the token and the site, streams of requests, faults, fixtures, and operations on
//! a ledger.

pub(crate) mod batch;
pub(crate) mod bundle;
pub(crate) mod faults;
pub(crate) mod fixtures;
pub(crate) mod issue;
pub(crate) mod ledger;
pub(crate) mod pair;
pub(crate) mod site;
pub(crate) mod token;
