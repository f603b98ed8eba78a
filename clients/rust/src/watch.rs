//! What happens in the ledger, told as it happens.

use std::{fmt, time::Duration};

use tokio::time::sleep;
use tonic::Streaming;

use crate::{
    Daemon, Error,
    backoff::backoff,
    proto::{WatchReply, WatchRequest, admin_client::AdminClient},
    session::verdict::{Break, Outage, connect, passing, stream_failure},
};

/// The ledger's entries after a number, without a gap: whatever breaks the stream, it goes on after the last entry that was
/// given.
pub struct Watch {
    daemon: Daemon,
    after: u64,
    stream: Option<Streaming<WatchReply>>,
    attempts: u32,
    /// How long to wait before the next connection.
    pause: Option<Duration>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("after", &self.after).finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(daemon: Daemon, after: u64) -> Self {
        Watch { daemon, after, stream: None, attempts: 0, pause: None }
    }

    /// The number of the last entry that was given: what to go on after in another program.
    pub fn position(&self) -> u64 {
        self.after
    }

    /// Waits for the next entry, for as long as that takes; connects again when the daemon was away. It may be dropped at
    /// any time and called again.
    ///
    /// # Errors
    /// What trying again cannot help: see [`Error`].
    pub async fn next(&mut self) -> Result<WatchReply, Error> {
        loop {
            match self.step().await {
                Ok(Some(entry)) => {
                    (self.after, self.attempts) = (entry.sequence, 0);
                    return Ok(entry);
                }
                Ok(None) => {}
                Err(Break::End(error)) => return Err(error),
                Err(Break::Outage(Outage { retry_after, .. })) => {
                    self.stream = None;
                    self.daemon.leave();
                    self.pause = Some(backoff(self.attempts, rand::random()).max(retry_after));
                    self.attempts = self.attempts.saturating_add(1);
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<WatchReply>, Break> {
        if let Some(pause) = self.pause {
            sleep(pause).await;
            self.pause = None;
        }
        let Some(stream) = &mut self.stream else {
            let mut client = AdminClient::new(connect(&self.daemon).await?);
            let opened = client.watch(WatchRequest { after: self.after }).await;
            self.stream = Some(opened.map_err(|status| stream_failure(status.into()))?.into_inner());
            return Ok(None);
        };
        match stream.message().await {
            Ok(Some(entry)) => Ok(Some(entry)),
            Ok(None) => Err(passing("the daemon ended the stream".to_owned())),
            Err(status) => Err(stream_failure(status.into())),
        }
    }
}
