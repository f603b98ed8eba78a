//! Where lists and CA certificates are found: the paths below the HTTP port and in the folder for a web server, which are
//! the same.
//!
//! | path | what |
//! |---|---|
//! | `crl/NAME.crl` | the list of the issuer NAME |
//! | `crl/NAME/SHARD.crl` | the list of one of its shards, if it has several |
//! | `ca/NAME.cer` | its CA certificate |
//!
//! `NAME-GENERATION` in the place of `NAME` is one generation of the issuer, forever.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    shards::Shards,
    store::{ListId, Published, Store},
};

/// What is at a path.
#[derive(Clone, Debug)]
pub enum Document {
    /// A list, if there is one yet.
    List(ListId),
    /// A CA certificate, DER.
    Certificate(Bytes),
}

/// All paths, and the newest lists.
#[derive(Debug)]
pub struct Directory {
    documents: BTreeMap<String, Document>,
    store: Arc<Store>,
}

impl Directory {
    /// Nothing yet.
    pub fn new(store: Arc<Store>) -> Directory {
        Directory { documents: BTreeMap::new(), store }
    }

    /// An issuer by this name: its CA certificate (DER), and its lists. What is at a path stays there.
    pub fn add(&mut self, name: &str, certificate: &[u8], shards: Shards, list: impl Fn(u16) -> ListId) {
        let certificate = Document::Certificate(Bytes::copy_from_slice(certificate));
        self.documents.entry(format!("ca/{name}.cer")).or_insert(certificate);
        for shard in 0..shards.count() {
            self.documents.entry(list_path(name, shards, shard)).or_insert_with(|| Document::List(list(shard)));
        }
    }

    /// What is at a path.
    pub fn find(&self, path: &str) -> Option<&Document> {
        self.documents.get(path)
    }

    /// All paths.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &Document)> {
        self.documents.iter().map(|(path, document)| (path.as_str(), document))
    }

    /// The paths of a list.
    pub fn paths_of(&self, list: &ListId) -> impl Iterator<Item = &str> {
        self.documents()
            .filter(move |(_, found)| matches!(found, Document::List(id) if id == list))
            .map(|(path, _)| path)
    }

    /// The newest of a list.
    pub fn list(&self, id: &ListId) -> Option<Arc<Published>> {
        self.store.get(id)
    }
}

/// The path of a list.
pub fn list_path(name: &str, shards: Shards, shard: u16) -> String {
    match shards.count() {
        1 => format!("crl/{name}.crl"),
        _ => format!("crl/{name}/{}.crl", shards.label(shard)),
    }
}
