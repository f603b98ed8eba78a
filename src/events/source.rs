//! The daemon's events, from a number on, over whatever happens to the daemon.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Code, Status};

use super::{
    attempts::{Backoff, Report},
    error::EventsError,
};
use crate::{
    client::{ClientError, Daemon},
    failure::Failure,
    proto::{WatchReply, WatchRequest, admin_client::AdminClient},
};

/// A stream that gave something for so long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(30);

/// How a stream ended.
enum End {
    /// Nobody takes events any more.
    Unwanted,
    Again(String),
    /// Unless it was right once: certificates may be renewed.
    Never(EventsError),
    /// The ledger does not have what is published.
    Lost(EventsError),
}

/// Sends the events after a number, each once and in order, until nobody takes them, or the daemon never will.
pub(super) async fn follow(
    daemon: Daemon,
    mut after: u64,
    events: mpsc::Sender<WatchReply>,
    connected: &watch::Sender<Option<Instant>>,
    report: &Report,
) -> Result<(), EventsError> {
    let mut backoff = Backoff::new();
    let mut answered = false;
    loop {
        let begun = Instant::now();
        let ended = stream(&daemon, &mut after, &events, connected).await;
        answered |= connected.send_replace(None).is_some();
        match ended {
            End::Unwanted => return Ok(()),
            End::Lost(error) => return Err(error),
            End::Never(error) if answered => report(&error.to_string()),
            End::Never(error) => return Err(error),
            End::Again(why) => {
                if begun.elapsed() > GOOD {
                    backoff = Backoff::new();
                }
                report(&format!("no events from the daemon at {}: {why}; trying again", daemon.address()));
            }
        }
        tokio::select! {
            () = backoff.pause() => {}
            () = events.closed() => return Ok(()),
        }
    }
}

async fn stream(
    daemon: &Daemon,
    after: &mut u64,
    events: &mpsc::Sender<WatchReply>,
    connected: &watch::Sender<Option<Instant>>,
) -> End {
    let channel = match daemon.connect().await {
        Ok(channel) => channel,
        Err(
            error @ (ClientError::Settings(_) | ClientError::NotTls(_) | ClientError::Connect { lasting: true, .. }),
        ) => {
            return End::Never(error.into());
        }
        Err(error) => return End::Again(error.to_string()),
    };
    let mut stream = match AdminClient::new(channel).watch(WatchRequest { after: *after }).await {
        Ok(stream) => stream.into_inner(),
        Err(status) if status.code() == Code::InvalidArgument => return End::Lost(EventsError::Watch(said(status))),
        Err(status) if refuses(&status) => return End::Never(EventsError::Watch(said(status))),
        Err(status) => return End::Again(said(status)),
    };
    connected.send_replace(Some(Instant::now()));
    loop {
        let event = match stream.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return End::Again("it shut down".into()),
            Err(status) => return End::Again(said(status)),
        };
        let sequence = event.sequence;
        if events.send(event).await.is_err() {
            return End::Unwanted;
        }
        *after = sequence;
    }
}

fn refuses(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
}

fn said(status: Status) -> String {
    Failure::from(status).to_string()
}
