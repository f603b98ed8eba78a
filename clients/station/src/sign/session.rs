//! A run's conversation with the daemon: what is read becomes requests, and answers become what is written.
//!
//! One task does everything in turn; the requests, their repetitions and the connections are the client's
//! ([`birthmark_client::Session`]). What must not be lost is in these two, not in a future, so that each future may be
//! dropped when another is ready first.

use std::{future, sync::Arc, time::Duration};

use birthmark_client::{Certificate, Daemon, Error, Event, Failure, Options, Reason, Request};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::job::{End, Job, Stop};
use crate::{
    input::{Input, InputError},
    item::{Item, Refused, Wanted},
    output::Outcome,
    places::Places,
    progress::Progress,
};

/// How long a station that was told to stop waits for outstanding replies.
const LAST_REPLIES: Duration = Duration::from_secs(5);

/// A run, and all that is done about its devices.
pub(super) struct Session {
    job: Job,
    items: mpsc::Receiver<Result<Item, InputError>>,
    requests: birthmark_client::Session<Wanted>,
    places: Arc<Places>,
    outcomes: mpsc::Sender<Outcome>,
    stop: watch::Receiver<Option<Stop>>,
    progress: Arc<Progress>,
}

impl Session {
    pub(super) fn new(
        daemon: &Daemon,
        job: Job,
        items: mpsc::Receiver<Result<Item, InputError>>,
        outcomes: mpsc::Sender<Outcome>,
        (places, progress): (Arc<Places>, Arc<Progress>),
        stop: watch::Receiver<Option<Stop>>,
    ) -> Self {
        // Lines may name their own.
        let lines = matches!(job.input, Input::Lines(_) | Input::StandardInput);
        let options = Options {
            window: job.window,
            give_up_after: job.give_up_after,
            profile: Some(job.profile.clone()).filter(|profile| !profile.is_empty()),
            without_order: job.order.is_empty() && !lines,
        };
        let requests = birthmark_client::Session::new(daemon.clone(), options);
        Session { job, items, requests, places, outcomes, stop, progress }
    }

    pub(super) async fn run(mut self) -> End {
        let ended = self.exchange().await;
        self.requests.close().await;
        match ended {
            Ok(()) => End::Done,
            Err(end) => end,
        }
    }

    async fn exchange(&mut self) -> Result<(), End> {
        // A run with nothing left to sign needs no daemon; one that waits for CSRs should find out now.
        let endless = matches!(self.job.input, Input::StandardInput | Input::Watch { .. });
        let mut needed = endless;
        let mut reading = true;
        let mut stopping: Option<(Stop, Instant)> = None;
        while reading || self.requests.unanswered() > 0 {
            let room = reading && self.requests.has_room();
            let stopped = stopped(self.stop.clone());
            tokio::select! {
                item = self.items.recv(), if room => match item {
                    Some(item) => needed |= self.take(item).await?,
                    None => reading = false,
                },
                event = self.requests.next(), if needed => match event {
                    Ok(event) => self.hear(event).await?,
                    // When stopping, what cannot be answered now is left for the next run.
                    Err(error) => return Err(stopping.map_or_else(|| ended(error), |(stop, _)| End::Stopped(stop))),
                },
                stop = stopped, if stopping.is_none() => {
                    reading = false;
                    stopping = Some((stop, Instant::now() + LAST_REPLIES));
                    self.requests.stay_on_this_connection();
                    if self.requests.is_connected() && self.requests.unanswered() > 0 {
                        self.progress.say(&format!(
                            "stopping; waiting up to {} s for {} unanswered (again: stop at once)",
                            LAST_REPLIES.as_secs(),
                            self.requests.unanswered()
                        ));
                    }
                }
                () = until(stopping.map(|(_, deadline)| deadline)) => break,
            }
        }
        match stopping {
            Some((stop, _)) => Err(End::Stopped(stop)),
            None => Ok(()),
        }
    }

    /// Takes an item of the input; gives whether it needs the daemon.
    async fn take(&mut self, item: Result<Item, InputError>) -> Result<bool, End> {
        let outcome = match item {
            Err(error) => return Err(End::Failed(error.to_string())),
            Ok(Item::Wanted(wanted)) => {
                let request = self.request(&wanted);
                // There is room.
                let _ = self.requests.push(wanted, request);
                return Ok(true);
            }
            Ok(Item::AlreadyThere { device_id, certificate, file }) => {
                Outcome::AlreadyThere { device_id, certificate, file }
            }
            Ok(Item::Refused(refused)) => Outcome::Refused(refused),
        };
        self.pass(outcome).await.map(|()| false)
    }

    fn request(&self, wanted: &Wanted) -> Request {
        let profile = wanted.terms.profile.as_ref().unwrap_or(&self.job.profile);
        let order = wanted.terms.order.as_ref().unwrap_or(&self.job.order);
        let request = Request::new(&wanted.device_id, profile, wanted.csr.clone()).order(order);
        if wanted.terms.reissue.unwrap_or(self.job.reissue) { request.reissue() } else { request }
    }

    async fn hear(&self, event: Event<Wanted>) -> Result<(), End> {
        match event {
            Event::Answer(wanted, result) => self.pass(self.outcome(wanted, result)?).await,
            Event::Waiting(message) => {
                match self.job.give_up_after {
                    Some(bound) => self.progress.say(&format!("{message}; waiting for up to {bound:?}")),
                    None => self.progress.say(&format!("{message}; waiting; use --give-up-after to limit this")),
                }
                Ok(())
            }
            Event::Back(after) => {
                self.progress.say(&format!("the daemon is back after {:.1} s", after.as_secs_f64()));
                Ok(())
            }
        }
    }

    fn outcome(&self, wanted: Wanted, result: Result<Certificate, Failure>) -> Result<Outcome, End> {
        let failure = match result {
            Ok(certificate) => return Ok(Outcome::Issued { wanted, certificate }),
            Err(failure) => failure,
        };
        self.places.release(&wanted.device_id);
        let watched = matches!(self.job.input, Input::Watch { .. });
        let (reason, message) = (failure.reason(), failure.message.clone());
        if watched && concerns_order(&failure) {
            return Ok(Outcome::Held { wanted, reason, message });
        }
        if concerns_all(&failure) && wanted.terms.are_of_the_run() {
            return Err(End::Failed(format!("the daemon refuses: {failure}")));
        }
        let Wanted { device_id, file, terms, .. } = wanted;
        Ok(Outcome::Refused(Refused { device_id, file, terms, reason, message }))
    }

    /// Waits while the writer lags: then replies are not read, and the daemon waits too.
    async fn pass(&self, outcome: Outcome) -> Result<(), End> {
        // The writer itself says why it ended.
        self.outcomes.send(outcome).await.map_err(|_| End::Failed("the certificates cannot be written".to_owned()))
    }
}

/// Whether the refusal is about the order or what else all devices of it have in common. It may pass.
fn concerns_order(failure: &Failure) -> bool {
    use Reason::{
        IssuerExpiring, OrderClosed, OrderDayExhausted, OrderExhausted, OrderListIncomplete, OrderOutsideWindow,
        OrderPaused,
    };
    let passing = [
        OrderExhausted,
        OrderDayExhausted,
        OrderListIncomplete,
        OrderClosed,
        OrderPaused,
        OrderOutsideWindow,
        IssuerExpiring,
    ];
    concerns_all(failure) || failure.kind().is_some_and(|reason| passing.contains(&reason))
}

/// Whether the refusal of one device is about what this run was started with: the next device would meet the same.
fn concerns_all(failure: &Failure) -> bool {
    use Reason::{OrderUnknown, ProfileRefused, ProfileUnknown, RoleRequired, StationRefused};
    let all = [OrderUnknown, ProfileUnknown, ProfileRefused, StationRefused, RoleRequired];
    failure.kind().is_some_and(|reason| all.contains(&reason))
}

fn ended(error: Error) -> End {
    End::Failed(match &error {
        Error::GaveUp { .. } => format!("{error}; run it again to go on"),
        Error::NotAllowed(_) => {
            format!("{error}; signing needs the identity of a station (see \"birthmark station enroll\")")
        }
        error => error.to_string(),
    })
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
