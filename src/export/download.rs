//! A bundle from the daemon, written as it comes.

use std::path::{Path, PathBuf};

use super::sink::{FolderSink, Sink, SinkError, TarSink};
use crate::{
    client::MarkedChannel,
    failure::Failure,
    proto::{GetBundleRequest, admin_client::AdminClient, bundle_chunk::Chunk},
};

/// Why there is no bundle. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The daemon refused or went away.
    #[error(transparent)]
    Daemon(#[from] Failure),
    /// The files could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// Writes the files of a batch to the folder `out`/`id`, or to `out`/`id`.tar: whole, or not at all. `progress` is called
/// with the number of octets of each piece. Gives the path.
///
/// # Errors
/// [`DownloadError`].
pub async fn download(
    channel: impl Into<MarkedChannel>,
    id: &str,
    out: &Path,
    as_tar: bool,
    progress: &dyn Fn(u64),
) -> Result<PathBuf, DownloadError> {
    if as_tar {
        let path = out.join(format!("{id}.tar"));
        Ok(receive(channel, id, TarSink::create(&path, id)?, progress).await?.finish()?)
    } else {
        Ok(receive(channel, id, FolderSink::create(&out.join(id))?, progress).await?.finish()?)
    }
}

async fn receive<S: Sink>(
    channel: impl Into<MarkedChannel>,
    id: &str,
    mut sink: S,
    progress: &dyn Fn(u64),
) -> Result<S, DownloadError> {
    let request = GetBundleRequest { id: id.to_owned() };
    let mut chunks = AdminClient::new(channel.into()).get_bundle(request).await.map_err(Failure::from)?.into_inner();
    while let Some(message) = chunks.message().await.map_err(Failure::from)? {
        match message.chunk {
            Some(Chunk::File(file)) => sink.start(&file.name)?,
            Some(Chunk::Data(data)) => {
                sink.write(&data)?;
                progress(data.len() as u64);
            }
            None => {}
        }
    }
    Ok(sink)
}
