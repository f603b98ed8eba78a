//! One station's requests to the daemon, for as long as there are any: a window of them on a stream, which is opened again
//! whenever it breaks.
//!
//! One task owns the unanswered requests and does everything in turn; it is never in two places. What it must not lose is
//! in [`Session`], not in a future, so that [`Session::next`] may be dropped when something else is ready first. (tokio's
//! channels and timers and tonic's `Streaming` lose nothing when their futures are dropped; what would begin anew, such as
//! a connection, is a task of its own.)

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, future,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tonic::Code;

pub use self::options::Options;
use self::{
    open::{Stream, open},
    verdict::{Break, LONGEST_RETRY, Outage, passing, stream_failure},
};
use crate::{
    Certificate, Daemon, Error, Failure, Request,
    backoff::backoff,
    proto::{IssueReply, IssueRequest, Issuer, issue_reply::Result as Answer},
    request::{checked, mismatched},
};

mod open;
mod options;
pub(crate) mod verdict;

/// When to ask again if the daemon does not say.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// What a session has to tell.
#[derive(Debug)]
pub enum Event<T> {
    /// The answer to a request, and what came with it: the certificate, or why there is none for this device.
    Answer(T, Result<Certificate, Failure>),
    /// The daemon is away or cannot sign for now, for this reason; what is unanswered waits. Told once for each outage.
    Waiting(String),
    /// It signs again, after this time.
    Back(Duration),
}

/// The unanswered requests of a station, each with what the caller wants to have beside its answer.
pub struct Session<T> {
    daemon: Daemon,
    options: Options,
    /// Never more than the window. Sorted, so that requests are repeated in their order.
    unanswered: BTreeMap<u64, Unanswered<T>>,
    /// The unanswered requests that are to be repeated later, by time.
    again: BTreeSet<(Instant, u64)>,
    next_id: u64,
    /// What is to be told next.
    events: VecDeque<Event<T>>,
    stream: Option<Stream>,
    /// A connection that is being made.
    opening: JoinSet<Result<Stream, Break>>,
    /// A reply whose issuer is asked for.
    reply: Option<IssueReply>,
    asking: JoinSet<Result<Vec<Issuer>, Break>>,
    /// No connection is made before.
    pause: Option<Instant>,
    /// No other connection is made.
    last: bool,
    /// Since when the daemon owes an answer; none if nothing is outstanding.
    waiting_since: Option<Instant>,
    /// Since when the daemon cannot sign, and why.
    outage: Option<(Instant, String)>,
    /// Whether the outage was told.
    told: bool,
    /// How often the connection failed since the daemon last answered a request.
    attempts: u32,
    /// Whether the daemon ever accepted this session.
    connected: bool,
}

struct Unanswered<T> {
    tag: T,
    request: Request,
    /// It was delayed by the outage, which is over when no unanswered request is.
    delayed: bool,
}

impl<T> fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("unanswered", &self.unanswered.len()).finish_non_exhaustive()
    }
}

impl<T> Session<T> {
    /// Prepares a session; [`Session::next`] connects.
    pub fn new(daemon: Daemon, options: Options) -> Self {
        Session {
            daemon,
            options,
            unanswered: BTreeMap::new(),
            again: BTreeSet::new(),
            next_id: 0,
            events: VecDeque::new(),
            stream: None,
            opening: JoinSet::new(),
            reply: None,
            asking: JoinSet::new(),
            pause: None,
            last: false,
            waiting_since: None,
            outage: None,
            told: false,
            attempts: 0,
            connected: false,
        }
    }

    /// How many requests have no answer yet that [`Session::next`] has given.
    pub fn unanswered(&self) -> usize {
        let ready = self.events.iter().filter(|event| matches!(event, Event::Answer(..))).count();
        self.unanswered.len() + ready
    }

    /// Whether another request may be given.
    pub fn has_room(&self) -> bool {
        self.unanswered.len() < self.options.window()
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Takes a request, with what the caller wants beside its answer.
    ///
    /// # Errors
    /// Gives both back if there is no room.
    pub fn push(&mut self, tag: T, request: Request) -> Result<(), (T, Request)> {
        if !self.has_room() {
            return Err((tag, request));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.waiting_since.get_or_insert_with(Instant::now);
        self.unanswered.insert(id, Unanswered { tag, request, delayed: false });
        self.send(id);
        Ok(())
    }

    /// From now on no other connection is made: [`Session::next`] takes what answers still come on this one.
    pub fn stay_on_this_connection(&mut self) {
        self.last = true;
    }

    /// Waits for the next event, and meanwhile connects, repeats and connects again as needed. Without unanswered requests
    /// it keeps the connection, or makes one. It may be dropped at any time and called again.
    ///
    /// # Errors
    /// What ends the session: see [`Error`].
    pub async fn next(&mut self) -> Result<Event<T>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if self.stream.is_none() && self.last {
                return Err(Error::Disconnected);
            }
            let deadline = self.deadline();
            tokio::select! {
                stepped = self.step() => match stepped {
                    Ok(()) => {}
                    Err(Break::Outage(outage)) => self.broken(outage),
                    Err(Break::End(error)) => return Err(error),
                },
                () = until(deadline) => return Err(self.timed_out()),
            }
        }
    }

    /// Ends the stream in good order, for which the daemon has a second.
    pub async fn close(mut self) {
        if let Some(Stream { requests, mut replies, .. }) = self.stream.take() {
            // A closed request side lets the daemon end the stream; it need not.
            drop(requests);
            let _ = timeout(Duration::from_secs(1), replies.message()).await;
        }
    }

    /// One thing that is to be done now, or waited for.
    async fn step(&mut self) -> Result<(), Break> {
        let Some(stream) = &mut self.stream else { return self.connect().await };
        if let Some(reply) = &self.reply {
            if let Some(issuer) = stream.chains.unknown(reply) {
                let asked = under_way(&mut self.asking, || stream.chains.ask(issuer)).await?;
                asked.into_iter().for_each(|issuer| stream.chains.add(issuer));
            }
            if let Some(reply) = self.reply.take() {
                self.settle(reply);
            }
            return Ok(());
        }
        tokio::select! {
            reply = stream.replies.message() => match reply {
                Ok(Some(reply)) => self.reply = Some(reply),
                Ok(None) => return Err(passing("the daemon ended the stream".to_owned())),
                Err(status) => return Err(stream_failure(status.into())),
            },
            () = until(self.again.first().map(|(when, _)| *when)) => {
                if let Some((_, id)) = self.again.pop_first() {
                    self.send(id);
                }
            }
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Break> {
        self.waiting_since.get_or_insert_with(Instant::now);
        if let Some(pause) = self.pause {
            sleep_until(pause).await;
            self.pause = None;
        }
        let begin = || open(self.daemon.clone(), self.options.clone(), self.connected);
        self.stream = Some(under_way(&mut self.opening, begin).await?);
        self.connected = true;
        if self.unanswered.is_empty() {
            self.waiting_since = None;
        }
        // The channel has room for the whole window and holds each unanswered request at most once: sending never
        // waits, so that replies are always read while requests are written.
        for id in self.unanswered.keys() {
            if !self.again.iter().any(|(_, waiting)| waiting == id) {
                self.send(*id);
            }
        }
        self.note_recovery();
        Ok(())
    }

    /// The connection is lost: another one is made after a pause.
    fn broken(&mut self, outage: Outage) {
        self.daemon.leave();
        (self.stream, self.reply, self.asking) = (None, None, JoinSet::new());
        self.note_outage(outage.message, outage.vague && self.attempts == 0);
        for unanswered in self.unanswered.values_mut() {
            unanswered.delayed = true;
        }
        let pause = backoff(self.attempts, rand::random()).max(outage.retry_after);
        self.attempts = self.attempts.saturating_add(1);
        self.pause = Some(Instant::now() + pause);
    }

    fn send(&self, id: u64) {
        let (Some(stream), Some(Unanswered { request, .. })) = (&self.stream, self.unanswered.get(&id)) else { return };
        let Request { device_id, order, profile, csr, reissue } = request.clone();
        let request_id = id.to_string();
        let request = IssueRequest { request_id, device_id, order, profile, csr, reissue, with_chain: false };
        // It is never full (see `connect`). If it is closed, the stream is broken, and its replies say why.
        let _ = stream.requests.try_send(request);
    }

    fn settle(&mut self, reply: IssueReply) {
        let Some(id) = reply.request_id.parse().ok().filter(|id| self.unanswered.contains_key(id)) else {
            // A second answer to a request that is settled.
            return;
        };
        let result = match reply.result {
            Some(Answer::Error(status)) => {
                let failure = Failure::from(&status);
                if failure.retry_after.is_some() || failure.code == Code::Unavailable {
                    return self.ask_again(id, &failure);
                }
                Err(failure)
            }
            Some(Answer::Issued(issued)) => Ok(issued),
            None => Err(mismatched("the daemon's reply holds neither certificate nor error".to_owned())),
        };
        let Some(Unanswered { tag, request, .. }) = self.unanswered.remove(&id) else { return };
        let chains = self.stream.as_ref().map(|stream| &stream.chains);
        let result = result.and_then(|issued| {
            let chain = chains.and_then(|chains| chains.of(&issued));
            checked(&request.csr, issued, chain)
        });
        self.attempts = 0;
        self.waiting_since = (!self.unanswered.is_empty()).then(Instant::now);
        self.note_recovery();
        self.events.push_back(Event::Answer(tag, result));
    }

    fn ask_again(&mut self, id: u64, failure: &Failure) {
        if let Some(unanswered) = self.unanswered.get_mut(&id) {
            unanswered.delayed = true;
        }
        let delay = failure.retry_after.unwrap_or(DEFAULT_RETRY).min(LONGEST_RETRY);
        // Up to a quarter later, so that a window of requests does not come back at once.
        let delay = delay + delay.mul_f64(rand::random::<f64>() / 4.0);
        self.again.insert((Instant::now() + delay, id));
        self.note_outage(format!("the daemon cannot sign for now: {failure}"), false);
    }

    /// Tells of an outage, once; `later` if the next try may know the cause better.
    fn note_outage(&mut self, message: String, later: bool) {
        let since = self.outage.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        self.outage = Some((since, message.clone()));
        if !later && !std::mem::replace(&mut self.told, true) {
            self.events.push_back(Event::Waiting(message));
        }
    }

    fn note_recovery(&mut self) {
        if self.unanswered.values().any(|unanswered| unanswered.delayed) {
            return;
        }
        let Some((since, _)) = self.outage.take() else { return };
        if std::mem::replace(&mut self.told, false) {
            self.events.push_back(Event::Back(since.elapsed()));
        }
    }

    /// When to give up: the caller's bound after the beginning of the outage, or after the last answer, which is the
    /// earlier one if the daemon itself waits, for its HSM or its disk.
    fn deadline(&self) -> Option<Instant> {
        let outage = self.outage.as_ref().map(|(since, _)| *since);
        let since = [outage, self.waiting_since].into_iter().flatten().min()?;
        Some(since + self.options.give_up_after?)
    }

    fn timed_out(&self) -> Error {
        let cause = self.outage.as_ref().map(|(_, message)| message.clone());
        Error::GaveUp { after: self.options.give_up_after.unwrap_or_default(), cause }
    }
}

/// Waits for what is under way, or begins it: whoever waits may give up and come again, and it goes on.
async fn under_way<T, F>(tasks: &mut JoinSet<Result<T, Break>>, begin: impl FnOnce() -> F) -> Result<T, Break>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Break>> + Send + 'static,
{
    if tasks.is_empty() {
        tasks.spawn(begin());
    }
    match tasks.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) => Err(passing(format!("the connection's task ended: {error}"))),
        None => Err(passing("the connection's task is gone".to_owned())),
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => future::pending().await,
    }
}
