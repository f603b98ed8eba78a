//! A channel that notices answers which are of an earlier moment.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    codegen::{Service, http},
    transport::{self, Channel},
};

/// The metadata of an answer that is of an earlier moment (RFC 3339): the daemon cannot see now what others have written since.
pub const AS_OF: &str = "birthmark-as-of";

/// A channel to a daemon that tells, once, when an answer is of an earlier moment: a daemon of several that share a ledger answers
/// from its copy while their database is away.
#[derive(Clone)]
pub struct MarkedChannel {
    channel: Channel,
    notice: Option<Notice>,
}

/// Is told the moment. After the first answer that has one no other is told.
type Notice = Arc<dyn Fn(&str) + Send + Sync>;

impl MarkedChannel {
    /// `notice` is told of the moment, once.
    pub fn new(channel: Channel, notice: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let told = std::sync::Once::new();
        MarkedChannel { channel, notice: Some(Arc::new(move |moment| told.call_once(|| notice(moment)))) }
    }
}

/// Nobody is told.
impl From<Channel> for MarkedChannel {
    fn from(channel: Channel) -> Self {
        MarkedChannel { channel, notice: None }
    }
}

impl fmt::Debug for MarkedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarkedChannel")
    }
}

impl Service<http::Request<Body>> for MarkedChannel {
    type Response = http::Response<Body>;
    type Error = transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answer, notice) = (self.channel.call(request), self.notice.clone());
        Box::pin(async move {
            let answer = answer.await?;
            let moment = answer.headers().get(AS_OF).and_then(|moment| moment.to_str().ok());
            if let (Some(notice), Some(moment)) = (notice, moment) {
                notice(moment);
            }
            Ok(answer)
        })
    }
}
