//! Where the files of a bundle go.

mod folder;
mod interface;
pub(super) mod tar;

pub use self::{
    folder::FolderSink,
    interface::{Sink, SinkError},
    tar::TarSink,
};
