//! The calls of a station, each with the retries that it needs.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::Stream;
use tonic::{Response, Status, transport::Channel};

use crate::{
    Certificate, ClientError, Connection, Daemon, Error, Failure, IssueMany, Options, Request, Watch,
    backoff::backoff,
    confirm::{Confirmation, Confirming, Named},
    proto::{
        CheckReply, CheckRequest, GetIssuerReply, GetIssuerRequest, IssueRequest, issuance_client::IssuanceClient,
        issue_reply::Result as Answer, stations_client::StationsClient,
    },
    request::{Chain, checked, mismatched},
    session::verdict::{Break, connect, passing, stream_failure},
};

/// How long one try of a unary call may take: a request waits for the HSM for up to 15 s before it is refused.
const CALL: Duration = Duration::from_secs(30);

/// A station's (or operator's) way to the daemon. It connects when it is first needed and again whenever that is needed, and
/// may be cloned and used by several tasks at once.
#[derive(Clone, Debug)]
pub struct Client {
    daemon: Daemon,
    patience: Duration,
}

impl From<Daemon> for Client {
    fn from(daemon: Daemon) -> Self {
        Client { daemon, patience: Duration::from_secs(60) }
    }
}

impl Client {
    /// Reads the identity; does not connect yet.
    ///
    /// # Errors
    /// [`ClientError::Settings`].
    pub fn new(connection: &Connection) -> Result<Self, ClientError> {
        connection.daemon().map(Client::from)
    }

    /// How long a call may take in all, retries and reconnects included, instead of a minute. Zero: one try.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Client { patience, ..self }
    }

    /// The daemon that it speaks with.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Gets one device's certificate over a stream, whatever it takes within the patience. Calling it again with the same
    /// request is free and gives the byte-identical certificate. The inner result is the device's: why it gets none.
    ///
    /// # Errors
    /// What concerns not this device alone: see [`Error`].
    pub async fn issue(&self, request: Request) -> Result<Result<Certificate, Failure>, Error> {
        let options = Options { window: 1, give_up_after: Some(self.patience), ..Options::default() };
        let mut answers = self.issue_many(tokio_stream::once(request), options);
        match answers.next().await {
            Some(answer) => answer.map(|answer| answer.result),
            None => Err(Error::Disconnected),
        }
    }

    /// Gets the certificates of many devices, a window of them at a time. After a lost connection, whatever is unanswered is
    /// asked for again. `requests` is read only as far as the window has room.
    pub fn issue_many<R: Stream<Item = Request> + Unpin>(&self, requests: R, options: Options) -> IssueMany<R> {
        IssueMany::new(self.daemon.clone(), requests, options)
    }

    /// Gets one device's certificate by the unary call: for those who make one device at a time. As [`Client::issue`]
    /// otherwise.
    ///
    /// # Errors
    /// What concerns not this device alone: see [`Error`].
    pub async fn issue_one(&self, request: Request) -> Result<Result<Certificate, Failure>, Error> {
        let Request { device_id, order, profile, csr, reissue } = request;
        let request_id = String::new();
        let sent = IssueRequest { request_id, device_id, order, profile, csr: csr.clone(), reissue, with_chain: true };
        let end = Instant::now() + self.patience;
        let mut attempts = 0;
        loop {
            let reply = self.call(end, |channel| {
                let sent = sent.clone();
                async move { IssuanceClient::new(channel).issue_one(sent).await }
            });
            let failure = match reply.await?.result {
                None => mismatched("the daemon's reply holds neither certificate nor error".to_owned()),
                Some(Answer::Issued(issued)) => {
                    let chain = Chain::of(&issued.chain);
                    return Ok(checked(&csr, issued, chain.as_ref()));
                }
                Some(Answer::Error(status)) => Failure::from(&status),
            };
            let Some(pause) = failure.retry_after else { return Ok(Err(failure)) };
            let pause = pause.max(backoff(attempts, rand::random()));
            if Instant::now() + pause >= end {
                return Ok(Err(failure));
            }
            sleep(pause).await;
            attempts += 1;
        }
    }

    /// Says that devices have taken their certificates; gives what became of each, in the order in which they were given.
    /// Confirming again is free. A refusal that may pass is tried again within the patience.
    ///
    /// # Errors
    /// What concerns all of them: see [`Error`].
    pub async fn confirm(&self, certificates: &[Named]) -> Result<Vec<Confirmation>, Error> {
        let end = Instant::now() + self.patience;
        let mut confirming = Confirming::new(certificates);
        let mut attempts = 0;
        loop {
            while let Some(request) = confirming.request() {
                let reply = self.call(end, |channel| {
                    let request = request.clone();
                    async move { IssuanceClient::new(channel).confirm(request).await }
                });
                confirming.answered(reply.await?);
            }
            let Some(pause) = confirming.pause() else { return Ok(confirming.results()) };
            let pause = pause.max(backoff(attempts, rand::random()));
            if Instant::now() + pause >= end {
                return Ok(confirming.results());
            }
            sleep(pause).await;
            confirming.again();
            attempts += 1;
        }
    }

    /// Asks what a shift needs to know: the daemon's time and obstacles, this station's profiles, an order, and with a
    /// profile how long the HSM takes. Both may be empty.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn check(&self, order: &str, profile: &str) -> Result<CheckReply, Error> {
        let request = CheckRequest { order: order.to_owned(), profile: profile.to_owned() };
        let call = |channel| {
            let request = request.clone();
            async move { StationsClient::new(channel).check(request).await }
        };
        self.call(Instant::now() + self.patience, call).await
    }

    /// Tells which issuers and profiles this peer may use.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn access(&self) -> Result<GetIssuerReply, Error> {
        let call = |channel| async move { IssuanceClient::new(channel).get_issuer(GetIssuerRequest::default()).await };
        self.call(Instant::now() + self.patience, call).await
    }

    /// Tells what happens in the ledger as it happens, from the entry after `after` on: for operators and auditors.
    pub fn watch(&self, after: u64) -> Watch {
        Watch::new(self.daemon.clone(), after)
    }

    /// Makes a call until it is answered, fails for good, or `end` has passed.
    async fn call<T, F>(&self, end: Instant, attempt: impl Fn(Channel) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut attempts = 0;
        loop {
            let outage = match self.attempt(end, &attempt).await {
                Ok(reply) => return Ok(reply),
                Err(Break::End(error)) => return Err(error),
                Err(Break::Outage(outage)) => outage,
            };
            self.daemon.leave();
            let pause = backoff(attempts, rand::random()).max(outage.retry_after);
            if Instant::now() + pause >= end {
                return Err(Error::GaveUp { after: self.patience, cause: Some(outage.message) });
            }
            sleep(pause).await;
            attempts += 1;
        }
    }

    async fn attempt<T, F>(&self, end: Instant, attempt: &impl Fn(Channel) -> F) -> Result<T, Break>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = connect(&self.daemon).await?;
        // One try has its time, even if there is no patience at all.
        let limit = match self.patience.is_zero() {
            true => Instant::now() + CALL,
            false => end.min(Instant::now() + CALL),
        };
        match timeout_at(limit, attempt(channel)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(stream_failure(status.into())),
            Err(_) => Err(passing("the daemon does not answer".to_owned())),
        }
    }
}
