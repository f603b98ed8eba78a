//! The side that changes.
//!
//! A batch takes its turn (the lock of one row), takes in what others have appended, is decided on that, and is appended and
//! committed: two round trips. What is answered stands behind a COMMIT that came without a warning. Where it is not known whether
//! one has happened, that is found out in the next turn, since the transaction before held the lock and so is over; then it is
//! answered only behind a write that came after it, because a server that was restarted may show what its standby lacks.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    database::{Database, NotAppended, Turn},
    error::{Failure, SharedError},
    follow::Following,
    lives::{Lives, UNHEARD},
    sql::HeadRow,
    unacknowledged,
};
use crate::{
    ledger::{
        actor::Actor,
        api::Ledger,
        copy::{Away, LedgerCopy},
        epoch::Epoch,
        error::LedgerError,
        folder_lock::FolderLock,
        marker::Marker,
        operation::{Action, Operation, Outcome},
    },
    metrics,
    serial::SerialNumber,
};

/// How often this daemon says that it lives, and looks what others do.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often it looks while somebody waits for what another daemon has reserved.
const WAITING: Duration = Duration::from_millis(50);

/// The pauses between attempts: the first, and the longest after doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

const STOPPED: &str = "the daemon stopped before the certificate was recorded";

/// The side that changes of a ledger that several daemons share.
#[derive(Debug)]
pub struct SharedLedger {
    pub(super) copy: LedgerCopy,
    pub(super) database: Database,
    pub(super) following: Following,
    /// All batches up to this one are durable: a write of this daemon stands behind them.
    pub(super) proven: u64,
    /// The newest batch up to which they were at any time: a database that lacks one of these has lost it.
    pub(super) acknowledged: u64,
    pub(super) life: Life,
    pub(super) lives: Lives,
    /// A batch whose COMMIT is not known.
    sent: Option<Unsettled>,
    /// What was reserved for requests that were told of an error.
    orphans: Vec<SerialNumber>,
    /// When the database last answered.
    heard: Timestamp,
    /// When something was last written that says that this daemon lives.
    renewed: Option<Instant>,
    /// There are batches that were read, and behind which no write of this daemon's own stands.
    proves: bool,
    /// Ends after all that uses the folder.
    pub(super) _lock: FolderLock,
}

/// This daemon's life.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) ledger: [u8; 16],
    /// The epochs that were begun from the folder, the newest last; whether one is open the journal says.
    pub(super) epochs: Vec<u64>,
    /// The newest was begun by this process.
    pub(super) begun: bool,
    pub(super) lease: Duration,
}

impl Life {
    /// The newest; 0: none was begun yet.
    pub(super) fn epoch(&self) -> u64 {
        self.epochs.last().copied().filter(|_| self.begun).unwrap_or(0)
    }

    fn is_open_in(&self, epochs: &BTreeMap<u64, Arc<Epoch>>) -> bool {
        epochs.get(&self.epoch()).is_some_and(|epoch| epoch.is_open() && epoch.daemon == self.name)
    }
}

/// A batch whose COMMIT is not known, or that the copy did not take; [`Following`] looks out for it.
#[derive(Debug)]
struct Unsettled {
    /// None: those who asked were told of an error.
    outcomes: Option<Vec<Outcome>>,
    reserved: Vec<SerialNumber>,
}

/// When something was asked for. It is decided, and recorded, at the time at which the turn for it comes: others may have written
/// meanwhile.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Timestamp,
    begun: Instant,
}

impl Asked {
    fn now(self) -> Timestamp {
        SignedDuration::try_from(self.begun.elapsed())
            .ok()
            .and_then(|waited| self.at.checked_add(waited).ok())
            .unwrap_or(self.at)
    }
}

impl SharedLedger {
    pub(super) fn new(
        (copy, database, following): (LedgerCopy, Database, Following),
        life: Life,
        lock: FolderLock,
    ) -> SharedLedger {
        SharedLedger {
            copy,
            database,
            following,
            proven: 0,
            acknowledged: 0,
            life,
            lives: Lives::default(),
            sent: None,
            orphans: Vec::new(),
            heard: Timestamp::now(),
            renewed: None,
            proves: false,
            _lock: lock,
        }
    }

    /// Whether this daemon's epoch is open.
    pub(super) fn is_alive(&self) -> bool {
        self.life.is_open_in(&self.copy.writer.common.memory().epochs)
    }

    /// Decides and appends, again and again until it is done or `patience` is over.
    pub(super) fn persist(&mut self, now: Timestamp, operations: &[Operation]) -> Result<Vec<Outcome>, LedgerError> {
        // What was sent before was asked for by others, who were told, or by nobody.
        self.answer_nobody(None);
        let deadline = self.database.deadline();
        let asked = Asked { at: now, begun: Instant::now() };
        let (mut stands, mut pause) = (None, FIRST_PAUSE);
        loop {
            let begun = Instant::now();
            let why = match self.attempt(asked, operations, &mut stands) {
                Ok(outcomes) => {
                    self.note_back(begun);
                    return Ok(outcomes);
                }
                Err(Failure::Ledger(error)) => {
                    self.answer_nobody(stands);
                    return Err(self.not_taken(error));
                }
                Err(Failure::Again(why)) => {
                    metrics::ledger_retry();
                    why
                }
                Err(Failure::Away(why)) => {
                    self.note_away(&why);
                    why
                }
            };
            if Instant::now() >= deadline {
                return Err(self.give_up(stands, &why));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What comes of what was asked is tidied up when that is known.
    fn answer_nobody(&mut self, stands: Option<Vec<Outcome>>) {
        self.orphans.extend(stands.iter().flatten().filter_map(Outcome::reserved));
        if let Some(sent) = &mut self.sent {
            sent.outcomes = None;
        }
    }

    fn give_up(&mut self, stands: Option<Vec<Outcome>>, why: &str) -> LedgerError {
        self.note_away(why);
        self.answer_nobody(stands);
        let cause = SharedError::Away { place: self.database.place().to_owned(), what: why.to_owned() };
        LedgerError::Unavailable { notice: "the ledger's database cannot be used now", cause: Box::new(cause) }
    }

    fn note_away(&mut self, why: &str) {
        let (sentence, news) = self.database.is_away(why);
        // That it takes writes again is known by one.
        self.proven = 0;
        self.note_blind(sentence, news);
    }

    /// The copy does not take what the database has, or may have. Gives what those are told who asked.
    fn not_taken(&mut self, error: LedgerError) -> LedgerError {
        self.database.disconnect();
        match error {
            LedgerError::NotWritten(cause) if cause.is::<io::Error>() => {
                let news = self.database.is_back();
                self.note_blind(format!("this daemon's copy of the ledger cannot be written: {cause}"), news);
                // Not that nothing has happened.
                LedgerError::Unavailable { notice: "this daemon's copy of the ledger cannot be written now", cause }
            }
            error => error,
        }
    }

    /// What others write cannot be taken in; it is tried again. `news`: not for the reason of before.
    fn note_blind(&mut self, why: String, news: bool) {
        self.lives.blind();
        let common = &self.copy.writer.common;
        let before = common.away.lock().replace(Away { why: why.clone(), as_of: self.heard });
        if news || before.is_none() {
            tracing::error!("{why}");
        }
        // Whoever waits for what others wrote is told.
        common.looked.send_modify(|_| {});
    }

    /// The database has answered what was asked from `begun` on.
    fn note_back(&mut self, begun: Instant) {
        self.heard = Timestamp::now();
        let common = &self.copy.writer.common;
        common.looked.send_replace(Some(begun));
        self.database.is_back();
        if common.away.lock().take().is_some() {
            tracing::info!(place = self.database.place(), "what other daemons write is taken in again");
        }
    }

    /// One turn. `stands` are the outcomes of these operations, once they are known to have been committed by an earlier attempt.
    fn attempt(
        &mut self,
        asked: Asked,
        operations: &[Operation],
        stands: &mut Option<Vec<Outcome>>,
    ) -> Result<Vec<Outcome>, Failure> {
        self.database.connect()?;
        let silent = self.lives.silent(self.life.lease, self.life.epoch());
        let turn = loop {
            let turn = self.database.take_turn(self.following.known, !silent.is_empty())?;
            self.compare_clocks(&turn.head);
            self.following.take_in(&mut self.copy, &turn).map_err(Failure::Ledger)?;
            // One that has less than the copy is looked at below.
            if self.following.known >= turn.head.batch {
                break turn;
            }
            // Too much to be read while everybody waits.
            self.database.give_back();
            self.catch_up()?;
        };
        self.following.check_head(&self.copy, &turn.head).map_err(|error| self.refused(error, &turn.head, true))?;
        self.settle(stands);
        if let Some(outcomes) = stands.take() {
            return match self.renew() {
                Ok(()) => Ok(outcomes),
                Err(failure) => {
                    *stands = Some(outcomes);
                    Err(failure)
                }
            };
        }
        let prefix = self.prefix(&turn, &silent)?;
        let outcomes = match prefix.is_empty() {
            true => self.decide(asked.now(), operations, &turn, 0),
            false => {
                let skip = prefix.len();
                let all: Vec<_> = prefix.into_iter().chain(operations.iter().cloned()).collect();
                self.decide(asked.now(), &all, &turn, skip)
            }
        }?;
        Ok(outcomes)
    }

    /// This daemon must stop. Where batches are lost that were acknowledged to it, so must the others. What it only read may never
    /// have been acknowledged to anybody: a server whose main process is killed shows for a moment what no standby has. Then this
    /// daemon begins again with what the database has; whoever was told of such a batch knows by itself. A server without
    /// standbys shows nothing before it is on its disk.
    fn refused(&self, error: SharedError, head: &HeadRow, in_turn: bool) -> Failure {
        let may_be_unacknowledged = head.batch >= self.acknowledged && self.following.shown_with_standbys;
        let error = match error {
            SharedError::Lost { what } if may_be_unacknowledged => match unacknowledged::note(&self.life.folder) {
                Ok(()) => SharedError::Unacknowledged { what },
                Err(cause) => {
                    let folder = self.life.folder.display().to_string();
                    return Failure::Ledger(LedgerError::Folder { folder, cause }.into_fatal());
                }
            },
            error => error,
        };
        self.database.note_loss(&error, in_turn);
        Failure::Ledger(error.fatal())
    }

    /// Reads what is more than a page, without anybody's turn.
    pub(super) fn catch_up(&mut self) -> Result<(), Failure> {
        loop {
            let looked = self.database.look(self.following.known, None)?;
            self.following.take_in(&mut self.copy, &looked).map_err(Failure::Ledger)?;
            if !self.life.begun {
                // Nobody waits for anything before the start is over.
                self.following.ended.clear();
            }
            if looked.is_whole {
                return Ok(());
            }
        }
    }

    fn compare_clocks(&self, head: &HeadRow) {
        if let Ok(theirs) = Timestamp::from_microsecond(head.clock) {
            let ahead: SignedDuration = Timestamp::now().duration_since(theirs);
            self.copy.writer.common.clock().compared(ahead);
        }
    }

    /// Whether the batch that was sent before is there: now that is known.
    fn settle(&mut self, stands: &mut Option<Vec<Outcome>>) {
        let Some(Unsettled { outcomes, reserved }) = self.sent.take() else { return };
        let happened = self.following.take_arrived();
        metrics::ledger_unknown(happened);
        match outcomes {
            Some(outcomes) if happened => *stands = Some(outcomes),
            None if happened => self.orphans.extend(reserved),
            _ => {}
        }
    }

    /// A write of this daemon's own: when it is acknowledged, all before it is durable.
    fn renew(&mut self) -> Result<(), Failure> {
        let epoch = self.is_alive().then(|| self.life.epoch());
        match self.database.renew(epoch) {
            Ok(()) => {
                (self.proven, self.renewed) = (self.following.known, Some(Instant::now()));
                self.acknowledged = self.proven;
                Ok(())
            }
            Err(NotAppended::Nothing(failure)) => Err(failure),
            Err(NotAppended::Unknown(what)) => Err(Failure::Away(what)),
        }
    }

    /// What has to be done before anything else: this daemon's epoch begins, and what nobody works on any more ends.
    fn prefix(&mut self, turn: &Turn, silent: &[(u64, i64)]) -> Result<Vec<Operation>, Failure> {
        let mut operations = Vec::new();
        let operation = |action| Operation { actor: Actor::daemon(), action };
        let memory = self.copy.writer.common.memory();
        let abandon =
            |serial_number, reason: &str| operation(Action::Abandon { serial_number, reason: reason.to_owned() });
        let mut opens = None;
        if !self.life.is_open_in(&memory.epochs) {
            // What has ended, or came to be another daemon's, needs no remembering.
            let (name, known) = (&self.life.name, &memory.epochs);
            self.life
                .epochs
                .retain(|number| known.get(number).is_none_or(|epoch| epoch.is_open() && epoch.daemon == *name));
            // The folder is locked: whoever wrote from here before is dead.
            for former in self.life.epochs.iter().filter_map(|epoch| memory.epochs.get(epoch)) {
                if former.daemon != self.life.name {
                    continue;
                }
                if former.is_open() {
                    operations.extend(memory.reservations_of(former.number).map(|serial| abandon(serial, STOPPED)));
                    operations.push(operation(Action::EndEpoch { epoch: former.number }));
                } else if self.renewed.is_some() {
                    tracing::error!(
                        epoch = former.number,
                        "the others had given up this daemon; it begins a new epoch"
                    );
                }
            }
            operations.push(operation(Action::OpenEpoch { daemon: self.life.name.clone() }));
            opens = Some(memory.epochs.keys().next_back().map_or(1, |newest| newest + 1));
        }
        let reserved = |serial: &&SerialNumber| memory.reservations().any(|known| known == **serial);
        let reason = "its request was told of an error";
        operations.extend(self.orphans.iter().filter(reserved).map(|serial| abandon(*serial, reason)));
        for (epoch, renewed) in silent {
            // Under the lock: it has not been heard of since.
            let row = turn.daemons.iter().find(|daemon| daemon.epoch == *epoch);
            let is_silent = row.map_or(UNHEARD, |daemon| daemon.renewed) == *renewed;
            let Some(known) = memory.epochs.get(epoch).filter(|known| known.is_open() && is_silent) else { continue };
            let reason = format!("nothing was heard of the daemon \"{}\" for too long", known.daemon);
            tracing::warn!(
                daemon = known.daemon,
                epoch,
                "a daemon was not heard of for too long; what it reserved is abandoned"
            );
            operations.extend(memory.reservations_of(*epoch).map(|serial| abandon(serial, &reason)));
            operations.push(operation(Action::EndEpoch { epoch: *epoch }));
        }
        drop(memory);
        if let Some(epoch) = opens {
            // Before it can be known to anybody: a start after a crash must know its own.
            if self.life.epochs.last() != Some(&epoch) {
                self.life.epochs.push(epoch);
            }
            self.life.begun = true;
            let marker = Marker { ledger: self.life.ledger, epochs: self.life.epochs.clone() };
            marker.write(&self.life.folder).map_err(Failure::not_written)?;
        }
        Ok(operations)
    }

    /// Decides, appends, and gives the outcomes but for the first `skip`.
    fn decide(
        &mut self,
        now: Timestamp,
        operations: &[Operation],
        turn: &Turn,
        skip: usize,
    ) -> Result<Vec<Outcome>, Failure> {
        let SharedLedger { copy, database, following, proven, acknowledged, life, sent, orphans, renewed, .. } = self;
        let mut failure = None;
        let stopped = || LedgerError::NotWritten("the batch was not appended".into());
        let decided = copy.writer.commit(now, operations, |journal, written| {
            let Some((_, entries, _)) = journal.staged() else {
                // Nothing to append; but what the answers rest on must be durable.
                orphans.clear();
                if following.known == *proven {
                    database.give_back();
                    return Ok(());
                }
                let done = database.renew(Some(life.epoch()));
                return match done {
                    Ok(()) => {
                        (*proven, *renewed) = (following.known, Some(Instant::now()));
                        *acknowledged = *proven;
                        Ok(())
                    }
                    Err(NotAppended::Nothing(error)) => Err(stop(&mut failure, error, stopped())),
                    Err(NotAppended::Unknown(what)) => Err(stop(&mut failure, Failure::Away(what), stopped())),
                };
            };
            let taken = match database.append_staged(journal, written, life.epoch(), (&turn.head, entries)) {
                Ok(()) => journal.commit_copied().map_err(LedgerError::from),
                Err(NotAppended::Nothing(error)) => {
                    journal.discard();
                    return Err(stop(&mut failure, error, stopped()));
                }
                Err(NotAppended::Unknown(what)) => Err(stop(&mut failure, Failure::Away(what), stopped())),
            };
            if let Err(error) = taken {
                // It may be durable there: then it comes as what others write does.
                let frames = journal.staged().map(|(batch, ..)| batch.frames.to_vec()).unwrap_or_default();
                let outcomes = written.outcomes.get(skip..).unwrap_or_default().to_vec();
                let reserved = outcomes.iter().filter_map(Outcome::reserved).collect();
                following.look_out(turn.head.batch + 1, life.epoch(), frames);
                *sent = Some(Unsettled { outcomes: Some(outcomes), reserved });
                journal.discard();
                return Err(error);
            }
            // Somebody here may wait for what another daemon had reserved.
            following.ended.extend(operations.iter().take(skip).filter_map(Operation::abandoned));
            following.known += 1;
            (*proven, *renewed) = (following.known, Some(Instant::now()));
            *acknowledged = *proven;
            orphans.clear();
            // Those before it have ended with it.
            life.epochs.drain(..life.epochs.len().saturating_sub(1));
            Ok(())
        });
        match (decided, failure) {
            (_, Some(failure)) => Err(failure),
            (Err(error), None) => Err(Failure::Ledger(error)),
            (Ok(mut outcomes), None) => Ok(outcomes.split_off(skip.min(outcomes.len()))),
        }
    }

    /// A heartbeat: says that this daemon lives, and takes in what others did.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        self.database.connect()?;
        let due = self.renewed.is_none_or(|renewed| renewed.elapsed() >= HEARTBEAT - WAITING);
        let looked = self.database.look(self.following.known, due.then_some(self.life.epoch()))?;
        if due {
            self.renewed = Some(Instant::now());
        }
        self.compare_clocks(&looked.head);
        metrics::ledger_follow_lag(looked.head.batch.saturating_sub(self.following.known));
        let refused = |error| self.refused(error, &looked.head, false);
        self.following.check_witness(&self.copy, &looked.head).map_err(refused)?;
        if let Some(why) = &looked.head.closed {
            return Err(Failure::Away(format!("its ledger is closed: {why}")));
        }
        self.following.take_in(&mut self.copy, &looked).map_err(Failure::Ledger)?;
        if self.following.known < looked.head.batch {
            self.catch_up()?;
        }
        // What was only read is made certain, so that it is known whether it can be lost.
        self.proves = due && self.following.known > self.acknowledged;
        self.lives.look(&looked.daemons, &self.open_epochs(), Instant::now());
        let daemons = looked.daemons.iter();
        metrics::ledger_daemons(daemons.map(|daemon| (daemon.name.as_str(), daemon.age as f64 / 1e6)));
        Ok(())
    }

    pub(super) fn open_epochs(&self) -> Vec<u64> {
        self.copy.writer.common.memory().open_epochs().map(|epoch| epoch.number).collect()
    }

    fn is_open(&self, epoch: u64) -> bool {
        self.copy.writer.common.memory().epochs.get(&epoch).is_some_and(|known| known.is_open())
    }

    /// Whether there is something to do that nobody asks for.
    fn has_chores(&self) -> bool {
        self.sent.is_some()
            || self.proves
            || self.database.seems_away()
            || !self.orphans.is_empty()
            || !self.is_alive()
            || self.lives.silent(self.life.lease, self.life.epoch()).iter().any(|(epoch, _)| self.is_open(*epoch))
    }
}

impl Ledger for SharedLedger {
    fn commit(&mut self, now: Timestamp, operations: &[Operation]) -> Result<Vec<Outcome>, LedgerError> {
        self.persist(now, operations)
    }

    fn follow_after(&self, waiting: bool) -> Option<Duration> {
        Some(if waiting && !self.database.seems_away() { WAITING } else { HEARTBEAT })
    }

    fn follow(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let begun = Instant::now();
        let done = self.look().and_then(|()| match self.has_chores() {
            true => self.attempt(Asked { at: now, begun: Instant::now() }, &[], &mut None).map(drop),
            false => Ok(()),
        });
        match done {
            Ok(()) => self.note_back(begun),
            Err(Failure::Ledger(error)) => {
                let why = format!("what other daemons write cannot be taken in: {error}");
                let error = self.not_taken(error);
                if error.is_fatal() {
                    return Err(error);
                }
                if self.copy.writer.common.away.lock().is_none() {
                    self.note_blind(why, true);
                }
            }
            Err(Failure::Again(_)) => metrics::ledger_retry(),
            Err(Failure::Away(why)) => self.note_away(&why),
        }
        if let Some(note) = self.following.take_checkpoint(self.acknowledged) {
            *self.copy.writer.common.followed_checkpoint.lock() = Some(note);
        }
        Ok(())
    }

    fn take_ended(&mut self) -> Vec<SerialNumber> {
        std::mem::take(&mut self.following.ended)
    }

    fn close(mut self) -> Result<(), LedgerError> {
        // What cannot be said now is found by the next life, or by the others.
        if self.is_alive() {
            let epoch = self.life.epoch();
            let reservations: Vec<_> = self.copy.writer.common.memory().reservations_of(epoch).collect();
            let abandon = |serial_number| Action::Abandon { serial_number, reason: STOPPED.to_owned() };
            let actions = reservations.into_iter().map(abandon).chain([Action::EndEpoch { epoch }]);
            let operations: Vec<_> = actions.map(|action| Operation { actor: Actor::daemon(), action }).collect();
            let asked = Asked { at: Timestamp::now(), begun: Instant::now() };
            self.answer_nobody(None);
            let ended = self.attempt(asked, &operations, &mut None);
            match ended {
                Err(Failure::Ledger(error)) if error.is_fatal() => return Err(error),
                _ => self.database.disconnect(),
            }
        }
        self.copy.close();
        Ok(())
    }
}

/// Keeps why an attempt failed, beside the error that stops the copy.
fn stop(failure: &mut Option<Failure>, why: Failure, error: LedgerError) -> LedgerError {
    *failure = Some(why);
    error
}
