//! Makes the devices of a birthmark factory known to AWS IoT Core.
//!
//! It runs where the internet is, holds the AWS credentials and has no HSM. What the factory says comes in bundles, which
//! its audit key has signed; what goes back is a file of results. The ways in which a device becomes known:
//!
//! | | who acts | when | module |
//! |---|---|---|---|
//! | pre-registration | `register` | before the device first connects | [`mod@register`] |
//! | just-in-time registration (JITR) | `activate` | at its first connection | [`activate`] |
//! | just-in-time provisioning (JITP) | AWS IoT itself, for whatever the CA ever signed | at its first connection | [`register_ca`] |
//!
//! What always holds:
//!
//! 1. A certificate that the factory withdrew is never made active, and is revoked where it is.
//! 2. A certificate that no bundle names is never made active.
//! 3. What somebody switched off (INACTIVE, REVOKED) is never switched on here.
//! 4. Everything may be killed anywhere and done again. What earlier runs have done is on disk to save calls, and is not
//!    believed; only what bundles said is, once their signature was verified.

pub mod activate;
pub mod arn;
pub mod bundle;
pub mod doctor;
pub mod documents;
pub mod failure;
pub mod issuing_ca;
pub mod limits;
pub mod list;
pub mod lists;
pub mod metrics;
pub mod platform;
mod progress;
pub mod register;
pub mod register_ca;
pub mod settle;
pub mod status;
pub mod template;
