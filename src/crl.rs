//! Certificate revocation lists (RFC 5280 section 5), version 2, for end-entity certificates of one CA.
//!
//! A list covers the whole CA, or one shard of it: the certificates whose serial numbers [`Shards::of`] maps there. A
//! shard's issuing distribution point names the URL that stands in its certificates (section 5.2.5), so that the list of
//! another shard cannot be taken for it.

mod directory;
mod encode;
mod read;
mod shards;
mod store;

pub use self::{
    directory::{Directory, Document, list_path},
    encode::{Revoked, Terms, to_be_signed},
    read::{RevocationList, RevokedEntry},
    shards::Shards,
    store::{ListId, Published, Store, StoreError},
};
