//! One accepted connection, as the HTTP/2 server sees it: it looks closed by its peer when it has been idle for too
//! long or has to make room for another one.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::{peer::Peer, transport::Transport};
use crate::connections::{Reason, Seat};

/// HTTP/2 begins with the client's preface (RFC 9113 section 3.4).
const PREFACE: Duration = Duration::from_secs(10);

/// How long a connection may be without a call. Clients connect again when they have one.
const IDLE: Duration = Duration::from_secs(300);

/// A connection that has a seat.
pub(crate) struct Connection {
    transport: Transport,
    peer: Peer,
    seat: Seat<Arc<str>>,
    /// When it is checked next whether the connection is idle.
    check: Pin<Box<Sleep>>,
    /// Resolves when the peer may not be connected any more, and its calls have been told.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    heard: bool,
    closed: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection of {}", self.peer)
    }
}

/// How long the calls of a peer that may not be connected any more have for their last words.
const FAREWELL: Duration = Duration::from_millis(500);

async fn ended(peer: Peer) {
    let ended = peer.ended().await;
    sleep(ended.grace + FAREWELL).await;
}

impl Connection {
    pub(super) fn new(transport: Transport, peer: Peer, seat: Seat<Arc<str>>) -> Self {
        let (check, ended) = (Box::pin(sleep(PREFACE)), Box::pin(ended(peer.clone())));
        Connection { transport, peer, seat, check, ended, heard: false, closed: false }
    }

    /// The other end, before its first call.
    pub(super) fn peer_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }

    /// Whether it has made room for another one or has been idle for too long; otherwise it is checked again in time.
    fn must_close(&mut self, context: &mut Context<'_>) -> bool {
        if !self.closed && self.seat.poll_told_to_leave(context).is_ready() {
            self.seat.refused(Reason::Crowded, || self.peer.to_string());
            self.closed = true;
        }
        if !self.closed && self.ended.as_mut().poll(context).is_ready() {
            tracing::debug!(peer = %self.peer, "closed the connection of a peer whose certificate is not taken any more");
            self.closed = true;
        }
        while !self.closed && self.check.as_mut().poll(context).is_ready() {
            let allowed = if self.heard { IDLE } else { PREFACE };
            let quiet = self.peer.activity().quiet_since().map_or(Duration::ZERO, |since| since.elapsed());
            if quiet < allowed {
                self.check.as_mut().reset(Instant::now() + (allowed - quiet));
                continue;
            }
            if self.heard {
                tracing::debug!(peer = %self.peer, "closed an idle connection");
            } else {
                self.seat.refused(Reason::Silent, || self.peer.to_string());
            }
            self.closed = true;
        }
        self.closed
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.transport).poll_read(cx, buf);
        if polled.is_ready() {
            if !self.heard && !buf.filled().is_empty() {
                self.heard = true;
                self.peer.activity().hear();
            }
            return polled;
        }
        // Nothing read is the end of the stream, as if the peer had closed the connection.
        if self.must_close(cx) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
