//! The conversation with the daemon.
//!
//! One task owns the unanswered requests and does everything in turn; it is never in two places. What it must not
//! lose is in `Session`, not in a future, so that each future may be dropped when another is ready first. (tokio's
//! channels and timers and tonic's `Streaming` lose nothing when their futures are dropped.)

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{self, Future},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tonic::Code;

use super::{
    failure::{Break, LONGEST_RETRY, concerns_all, concerns_order, passing, stream_failure},
    job::{End, Job, Stop},
    open::{Chains, open},
};
use crate::{
    ca::fits_der,
    client::{Daemon, Failure},
    hash::sha256,
    proto::{IssueReply, IssueRequest, IssuedCertificate, issue_reply::Result as Answer},
    station::{
        fields,
        input::{Input, InputError},
        item::{Item, Refused, Wanted},
        output::Outcome,
        progress::Progress,
    },
};

/// The longest pause before connecting again. The actual pause is random below this, so that the stations of a hall do
/// not come back all at once.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The first pause, doubled each time.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(100);

/// When to ask again if the daemon does not say.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// How long a station that was told to stop waits for outstanding replies.
const LAST_REPLIES: Duration = Duration::from_secs(5);

/// A run's unanswered requests, and all that is done about them.
pub(super) struct Session<'a> {
    daemon: &'a Daemon,
    job: Job,
    items: mpsc::Receiver<Result<Item, InputError>>,
    /// Never more than the window. Sorted, so that requests are repeated in their order.
    unanswered: BTreeMap<u64, Unanswered>,
    /// The unanswered requests that are to be repeated later, by time.
    again: BTreeSet<(Instant, u64)>,
    next_id: u64,
    outcomes: mpsc::Sender<Outcome>,
    /// Since when the daemon owes an answer; none if nothing is outstanding.
    waiting_since: Option<Instant>,
    /// Since when the daemon cannot sign.
    outage: Option<Instant>,
    /// Whether the outage was reported to the user.
    reported: bool,
    /// How often the connection failed since the daemon last answered a request.
    attempts: u32,
    /// Whether the daemon ever accepted this run.
    connected: bool,
    stop: watch::Receiver<Option<Stop>>,
    progress: Arc<Progress>,
}

struct Unanswered {
    wanted: Wanted,
    /// It was delayed by the outage, which is over when no unanswered request is.
    delayed: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        daemon: &'a Daemon,
        job: Job,
        items: mpsc::Receiver<Result<Item, InputError>>,
        outcomes: mpsc::Sender<Outcome>,
        progress: Arc<Progress>,
        stop: watch::Receiver<Option<Stop>>,
    ) -> Self {
        Session {
            daemon,
            job,
            items,
            unanswered: BTreeMap::new(),
            again: BTreeSet::new(),
            next_id: 0,
            outcomes,
            waiting_since: None,
            outage: None,
            reported: false,
            attempts: 0,
            connected: false,
            stop,
            progress,
        }
    }

    pub(super) async fn run(&mut self) -> End {
        let endless = matches!(self.job.input, Input::StandardInput | Input::Watch { .. });
        // A run with nothing left to sign needs no daemon; one that waits for CSRs should find out now.
        if !endless && let Err(end) = self.pass_what_needs_no_daemon().await {
            return end;
        }
        loop {
            self.waiting_since.get_or_insert_with(Instant::now);
            let outage = match self.exchange().await {
                Ok(()) => return End::Done,
                Err(Break::End(end)) => return end,
                Err(Break::Outage(outage)) => outage,
            };
            self.note_outage(&outage.message, outage.vague && self.attempts == 0);
            for unanswered in self.unanswered.values_mut() {
                unanswered.delayed = true;
            }
            let pause = backoff(self.attempts, rand::random()).max(outage.retry_after);
            self.attempts = self.attempts.saturating_add(1);
            let over = sleep_until(Instant::now() + pause);
            let interrupted = self.interrupted();
            tokio::select! {
                end = interrupted => return end,
                () = over => {}
            }
        }
    }

    /// Takes items up to the first that needs the daemon.
    async fn pass_what_needs_no_daemon(&mut self) -> Result<(), End> {
        while self.unanswered.is_empty() {
            let interrupted = self.interrupted();
            let item = tokio::select! {
                item = self.items.recv() => item,
                end = interrupted => return Err(end),
            };
            match item {
                Some(item) => drop(self.take(item).await?),
                None => return Err(End::Done),
            }
        }
        Ok(())
    }

    /// One connection, until all is answered (`Ok`) or it breaks.
    async fn exchange(&mut self) -> Result<(), Break> {
        let interrupted = self.interrupted();
        let (mut chains, requests, mut replies) = tokio::select! {
            opened = open(self.daemon, &self.job, self.connected) => opened?,
            end = interrupted => return Err(end.into()),
        };
        self.connected = true;
        if self.unanswered.is_empty() {
            self.waiting_since = None;
        }
        // The channel has room for the whole window and holds each unanswered request at most once: sending never
        // waits, so that replies are always read while requests are written.
        for id in self.unanswered.keys() {
            if !self.again.iter().any(|(_, waiting)| waiting == id) {
                self.send(&requests, *id);
            }
        }
        self.note_recovery();

        let mut reading = true;
        let mut stopping: Option<(Stop, Instant)> = None;
        while reading || !self.unanswered.is_empty() {
            let room = reading && self.unanswered.len() < self.job.window;
            let (stopped, deadline) = (stopped(self.stop.clone()), self.deadline());
            tokio::select! {
                reply = replies.message() => match reply {
                    Ok(Some(reply)) => {
                        chains.learn(&reply).await?;
                        self.settle(reply, &chains).await?;
                    }
                    // When stopping, what cannot be answered now is left for the next run.
                    Ok(None) => return Err(self.broken(stopping, passing("the daemon ended the stream".to_owned()))),
                    Err(status) => return Err(self.broken(stopping, stream_failure(status.into()))),
                },
                item = self.items.recv(), if room => match item {
                    Some(item) => if let Some(id) = self.take(item).await? {
                        self.send(&requests, id);
                    },
                    None => reading = false,
                },
                () = until(self.again.first().map(|(when, _)| *when)) => {
                    if let Some((_, id)) = self.again.pop_first() {
                        self.send(&requests, id);
                    }
                }
                stop = stopped, if stopping.is_none() => {
                    reading = false;
                    stopping = Some((stop, Instant::now() + LAST_REPLIES));
                    if !self.unanswered.is_empty() {
                        self.progress.say(&format!(
                            "stopping; waiting up to {} s for {} unanswered (again: stop at once)",
                            LAST_REPLIES.as_secs(),
                            self.unanswered.len()
                        ));
                    }
                }
                () = until(stopping.map(|(_, deadline)| deadline)) => break,
                () = until(deadline) => return Err(self.timed_out().into()),
            }
        }
        // A closed request side lets the daemon end the stream in good order; it need not.
        drop(requests);
        let _ = timeout(Duration::from_secs(1), replies.message()).await;
        match stopping {
            Some((stop, _)) => Err(End::Stopped(stop).into()),
            None => Ok(()),
        }
    }

    fn broken(&self, stopping: Option<(Stop, Instant)>, why: Break) -> Break {
        match stopping {
            Some((stop, _)) => End::Stopped(stop).into(),
            None => why,
        }
    }

    /// Takes an item of the input and gives its request, if it needs one.
    async fn take(&mut self, item: Result<Item, InputError>) -> Result<Option<u64>, End> {
        let outcome = match item {
            Err(error) => return Err(End::Failed(error.to_string())),
            Ok(Item::Wanted(wanted)) => {
                let id = self.next_id;
                self.next_id += 1;
                self.waiting_since.get_or_insert_with(Instant::now);
                self.unanswered.insert(id, Unanswered { wanted, delayed: false });
                return Ok(Some(id));
            }
            Ok(Item::AlreadyThere { device_id, certificate, file }) => {
                Outcome::AlreadyThere { device_id, certificate, file }
            }
            Ok(Item::Refused(refused)) => Outcome::Refused(refused),
        };
        self.pass(outcome).await.map(|()| None)
    }

    fn send(&self, requests: &mpsc::Sender<IssueRequest>, id: u64) {
        let Some(Unanswered { wanted, .. }) = self.unanswered.get(&id) else { return };
        let request = IssueRequest {
            request_id: id.to_string(),
            device_id: wanted.device_id.clone(),
            order: wanted.terms.order.as_ref().unwrap_or(&self.job.order).clone(),
            profile: wanted.terms.profile.as_ref().unwrap_or(&self.job.profile).clone(),
            csr: wanted.csr.clone(),
            reissue: wanted.terms.reissue.unwrap_or(self.job.reissue),
            with_chain: false,
        };
        // It is never full (see `exchange`). If it is closed, the stream is broken, and its replies say why.
        let _ = requests.try_send(request);
    }

    async fn settle(&mut self, reply: IssueReply, chains: &Chains) -> Result<(), End> {
        let Some(id) = reply.request_id.parse().ok().filter(|id| self.unanswered.contains_key(id)) else {
            // A second answer to a request that is settled.
            return Ok(());
        };
        let outcome = match reply.result {
            Some(Answer::Issued(issued)) => match self.unanswered.remove(&id) {
                Some(Unanswered { wanted, .. }) => self.checked(wanted, issued, chains),
                None => return Ok(()),
            },
            Some(Answer::Error(status)) => {
                let failure = Failure::from(&status);
                if failure.retry_after.is_some() || failure.code == Code::Unavailable {
                    self.ask_again(id, &failure);
                    return Ok(());
                }
                let Some(Unanswered { wanted, .. }) = self.unanswered.remove(&id) else { return Ok(()) };
                let watched = matches!(self.job.input, Input::Watch { .. });
                if watched && concerns_order(&failure) {
                    let (reason, message) = (failure.reason(), failure.message);
                    Outcome::Held { wanted, reason, message }
                } else if concerns_all(&failure) && wanted.terms.are_of_the_run() {
                    return Err(End::Failed(format!("the daemon refuses: {failure}")));
                } else {
                    refused(wanted, &failure.reason(), failure.message)
                }
            }
            None => {
                let Some(Unanswered { wanted, .. }) = self.unanswered.remove(&id) else { return Ok(()) };
                refused(wanted, "REPLY_MISMATCH", "the daemon's reply holds neither certificate nor error".to_owned())
            }
        };
        self.attempts = 0;
        self.waiting_since = (!self.unanswered.is_empty()).then(Instant::now);
        self.note_recovery();
        self.pass(outcome).await
    }

    /// A certificate is written only if it is this device's.
    fn checked(&self, wanted: Wanted, issued: IssuedCertificate, chains: &Chains) -> Outcome {
        let mismatch = match fields::certificate_key(&issued.certificate) {
            Ok(key) if key != wanted.key => "the certificate carries another key than the CSR".to_owned(),
            Ok(_) if hex::encode(sha256(&issued.certificate)) != issued.certificate_id => {
                "the certificate does not have the certificate id that came with it".to_owned()
            }
            Ok(_) => match chains.of(&issued) {
                Some(chain) => match fits_der(&issued.certificate, &chain.ca) {
                    Ok(()) => return Outcome::Issued { chain: chain.presented.clone(), wanted, issued },
                    Err(cause) => {
                        let IssuedCertificate { issuer, issuer_generation, .. } = &issued;
                        format!("it does not fit its issuer \"{issuer}\", generation {issuer_generation}: {cause}")
                    }
                },
                None => {
                    format!("the certificate is of the issuer \"{}\", which the daemon does not list", issued.issuer)
                }
            },
            Err(error) => format!("what came is {error}"),
        };
        refused(wanted, "REPLY_MISMATCH", mismatch)
    }

    fn ask_again(&mut self, id: u64, failure: &Failure) {
        if let Some(unanswered) = self.unanswered.get_mut(&id) {
            unanswered.delayed = true;
        }
        let delay = failure.retry_after.unwrap_or(DEFAULT_RETRY).min(LONGEST_RETRY);
        // Up to a quarter later, so that a window of requests does not come back at once.
        let delay = delay + delay.mul_f64(rand::random::<f64>() / 4.0);
        self.again.insert((Instant::now() + delay, id));
        self.note_outage(&format!("the daemon cannot sign for now: {failure}"), false);
    }

    /// Waits while the writer lags: then replies are not read, and the daemon waits too.
    async fn pass(&self, outcome: Outcome) -> Result<(), End> {
        // The writer itself says why it ended.
        self.outcomes.send(outcome).await.map_err(|_| End::Failed("the certificates cannot be written".to_owned()))
    }

    /// Reports an outage, once; `later` if the next try may know the cause better.
    fn note_outage(&mut self, message: &str, later: bool) {
        self.outage.get_or_insert_with(Instant::now);
        if later || std::mem::replace(&mut self.reported, true) {
            return;
        }
        match self.job.give_up_after {
            Some(bound) => self.progress.say(&format!("{message}; waiting for up to {bound:?}")),
            None => self.progress.say(&format!("{message}; waiting; use --give-up-after to limit this")),
        }
    }

    fn note_recovery(&mut self) {
        if self.unanswered.values().any(|unanswered| unanswered.delayed) {
            return;
        }
        let Some(since) = self.outage.take() else { return };
        if std::mem::replace(&mut self.reported, false) {
            self.progress.say(&format!("the daemon is back after {:.1} s", since.elapsed().as_secs_f64()));
        }
    }

    /// When to give up: the user's bound after the beginning of the outage, or after the last answer, which is the
    /// earlier one if the daemon itself waits, for its HSM or its disk.
    fn deadline(&self) -> Option<Instant> {
        let since = [self.outage, self.waiting_since].into_iter().flatten().min()?;
        Some(since + self.job.give_up_after?)
    }

    fn timed_out(&self) -> End {
        let bound = self.job.give_up_after.unwrap_or_default();
        End::Failed(format!("gave up: the daemon could not sign for {bound:?}; run it again to go on"))
    }

    /// Ends when the user stops the run or the wait for the daemon has lasted too long. Borrows nothing.
    fn interrupted(&self) -> impl Future<Output = End> + use<> {
        let (stopped, timed_out, deadline) = (stopped(self.stop.clone()), self.timed_out(), self.deadline());
        async move {
            tokio::select! {
                stop = stopped => End::Stopped(stop),
                () = until(deadline) => timed_out,
            }
        }
    }
}

fn refused(wanted: Wanted, reason: &str, message: String) -> Outcome {
    let Wanted { device_id, file, terms, .. } = wanted;
    Outcome::Refused(Refused { device_id, file, terms, reason: reason.to_owned(), message })
}

/// Full jitter: anything from nothing to an exponentially growing bound; `random` is from 0 to 1.
fn backoff(attempts: u32, random: f64) -> Duration {
    let bound = SHORTEST_BACKOFF.saturating_mul(2_u32.saturating_pow(attempts)).min(LONGEST_BACKOFF);
    bound.mul_f64(random)
}

async fn stopped(mut stop: watch::Receiver<Option<Stop>>) -> Stop {
    let stopped = stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
    match stopped {
        Some(stop) => stop,
        // The sender is gone, so the run cannot be stopped any more.
        None => future::pending().await,
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_five_seconds() {
        let bounds: Vec<_> = (0..8).map(|attempts| backoff(attempts, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX, 1.0), LONGEST_BACKOFF);
        assert_eq!(backoff(3, 0.0), Duration::ZERO);
    }
}
