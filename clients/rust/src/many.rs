//! Many devices at once: a stream of requests in, answers out.

use std::fmt;

use tokio_stream::{Stream, StreamExt};

use crate::{Certificate, Daemon, Error, Event, Failure, Options, Request, Session};

/// What became of a device.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The device that was asked for.
    pub device_id: String,
    /// Its certificate, or why it gets none.
    pub result: Result<Certificate, Failure>,
}

/// The certificates of many devices, as [`Client::issue_many`](crate::Client::issue_many) gets them.
pub struct IssueMany<R> {
    session: Session<String>,
    requests: R,
    /// The requests have come to their end.
    ended: bool,
}

impl<R> fmt::Debug for IssueMany<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueMany").field("session", &self.session).finish_non_exhaustive()
    }
}

impl<R: Stream<Item = Request> + Unpin> IssueMany<R> {
    pub(crate) fn new(daemon: Daemon, requests: R, options: Options) -> Self {
        IssueMany { session: Session::new(daemon, options), requests, ended: false }
    }

    /// What became of the next device, in any order; none after the last one. It may be dropped at any time and called again.
    ///
    /// # Errors
    /// What ends all of it: see [`Error`]. What is unanswered then may be asked for again: a retry is free.
    pub async fn next(&mut self) -> Option<Result<Answer, Error>> {
        loop {
            match self.next_event().await? {
                Ok(Event::Answer(device_id, result)) => return Some(Ok(Answer { device_id, result })),
                Ok(Event::Waiting(_) | Event::Back(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// As [`IssueMany::next`], and tells of outages too.
    ///
    /// # Errors
    /// As [`IssueMany::next`].
    pub async fn next_event(&mut self) -> Option<Result<Event<String>, Error>> {
        loop {
            let (reading, waiting) = (!self.ended && self.session.has_room(), self.session.unanswered() > 0);
            if self.ended && !waiting {
                return None;
            }
            tokio::select! {
                request = self.requests.next(), if reading => match request {
                    Some(request) => {
                        // There is room.
                        let _ = self.session.push(request.device_id.clone(), request);
                    }
                    None => self.ended = true,
                },
                event = self.session.next(), if waiting => return Some(event),
            }
        }
    }
}
