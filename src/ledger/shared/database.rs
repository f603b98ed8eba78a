//! What a daemon asks of the database: its turn, the journal's tail, an append. Each is one round trip.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::{runtime::Runtime, time::timeout};
use tokio_postgres::{Row, types::ToSql};

use super::{
    claims::Rows,
    error::{Failure, SharedError, ends_session, judge, sentence, unfit},
    link::{Committed, Link, too_few_copies},
    settings::DatabaseSettings,
    sql::{self, BatchRow, DaemonRow, HeadRow, signed},
    target::{self, Target},
};
use crate::{
    ledger::{copy::Written, journal::Journal},
    metrics,
};

/// What the table `daemons` has of this one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How the reason begins for which a ledger is closed until it is completed.
pub(super) const LOST: &str = "it has lost what it had acknowledged";

/// The most batches that are read at once; fewer, after so many did not come in time.
const PAGE: i64 = 64;

/// How long a turn is waited for: the server gives up a lock after 10 s.
const TURN: Duration = Duration::from_secs(12);

/// How long it may take to answer what is no turn.
const ANSWER: Duration = Duration::from_secs(6);

/// The daemon's side of the connection. Nothing runs but while something is asked for.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) runtime: Runtime,
    target: Target,
    copies: u8,
    patience: Duration,
    /// This daemon's name.
    daemon: String,
    pub(super) link: Option<Link>,
    /// How many batches are read at once.
    pub(super) page: i64,
    /// Since when it is away.
    away: Option<(Instant, Timestamp)>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}

/// The right to append, until it is used or given back.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) head: HeadRow,
    pub(super) rows: Vec<BatchRow>,
    /// There are no more rows.
    pub(super) is_whole: bool,
    pub(super) daemons: Vec<DaemonRow>,
}

/// What is appended.
pub(super) struct Append<'a> {
    pub(super) epoch: u64,
    pub(super) before: &'a HeadRow,
    pub(super) first: u64,
    pub(super) place: u64,
    pub(super) frames: &'a [u8],
    pub(super) after: HeadRow,
    pub(super) claims: Rows,
}

/// Why nothing was appended, as far as is known.
pub(super) enum NotAppended {
    /// Nothing has happened, or what has happened shows that this daemon must stop.
    Nothing(Failure),
    /// It may have happened.
    Unknown(String),
}

impl Database {
    pub(super) fn new(settings: &DatabaseSettings) -> Result<Database, SharedError> {
        let target = Target::of(settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let failed = |error: std::io::Error| SharedError::Away { place: target.place.clone(), what: error.to_string() };
        let runtime = runtime.map_err(failed)?;
        let (copies, patience) = (settings.copies, settings.patience);
        Ok(Database {
            runtime,
            target,
            copies,
            patience,
            daemon: settings.daemon.clone(),
            link: None,
            page: PAGE,
            away: None,
        })
    }

    pub(super) fn place(&self) -> &str {
        &self.target.place
    }

    /// Why it cannot be reached, if that may pass by itself.
    pub(super) fn is_unreachable(&self) -> Option<String> {
        self.runtime.block_on(Link::is_away(&self.target))
    }

    /// Connects, unless it is connected.
    pub(super) fn connect(&mut self) -> Result<(), SharedError> {
        if self.link.as_ref().is_some_and(|link| !link.client.is_closed()) {
            return Ok(());
        }
        self.disconnect();
        let silent = || SharedError::Away { place: self.target.place.clone(), what: "it does not answer".into() };
        // Each host has a time of its own.
        let wait = ANSWER + target::ANSWER * u32::try_from(self.target.hosts.len()).unwrap_or(u32::MAX);
        let connecting = async { timeout(wait, Link::fit(&self.target, self.copies)).await };
        self.link = Some(self.runtime.block_on(connecting).map_err(|_| silent())??);
        Ok(())
    }

    /// Ends the connection: what is open in it is rolled back by the server.
    pub(super) fn disconnect(&mut self) {
        if self.link.take().is_some() {
            // So that the task that holds the socket ends now.
            self.runtime.block_on(async { tokio::task::yield_now().await });
        }
    }

    /// Until when a request is worth waiting for.
    pub(super) fn deadline(&self) -> Instant {
        self.away.map_or_else(Instant::now, |(since, _)| since) + self.patience
    }

    /// Notes that it is away; gives the sentence for people, and whether it is news.
    pub(super) fn is_away(&mut self, what: &str) -> (String, bool) {
        self.disconnect();
        let news = self.away.is_none();
        let (_, since) = *self.away.get_or_insert_with(|| (Instant::now(), Timestamp::now()));
        (format!("the ledger's database at {} is away since {since:.0}: {what}", self.target.place), news)
    }

    /// It has answered; whether that is news.
    pub(super) fn is_back(&mut self) -> bool {
        self.away.take().is_some()
    }

    pub(super) fn seems_away(&self) -> bool {
        self.away.is_some()
    }

    fn link(&self) -> Result<&Link, Failure> {
        self.link.as_ref().ok_or_else(|| Failure::Away("there is no connection".into()))
    }

    /// Waits for the right to append, and reads what others have appended.
    pub(super) fn take_turn(&mut self, known: u64, with_daemons: bool) -> Result<Turn, Failure> {
        let begun = Instant::now();
        let taken = self.taken(known, with_daemons);
        metrics::ledger_lock_wait(begun.elapsed());
        match &taken {
            Ok(_) => {}
            Err(Failure::Again(_)) => self.give_back(),
            Err(_) => self.disconnect(),
        }
        taken
    }

    fn taken(&mut self, known: u64, with_daemons: bool) -> Result<Turn, Failure> {
        let (link, page) = (self.link()?, self.page);
        let number = signed(known);
        let asked = async {
            let parameters: [&(dyn ToSql + Sync); 2] = [&number, &page];
            let daemons = async {
                if with_daemons { link.client.query(&link.statements[sql::DAEMONS], &[]).await } else { Ok(Vec::new()) }
            };
            // Each is sent when it is first looked at, in this order.
            tokio::join!(
                link.client.batch_execute("BEGIN"),
                link.client.query_one(&link.statements[sql::LOCK_HEAD], &[]),
                link.client.query(&link.statements[sql::BATCHES], &parameters),
                daemons
            )
        };
        let wait = TURN.min(self.patience.max(Duration::from_secs(2)));
        let answered = self.runtime.block_on(async { timeout(wait, asked).await });
        let Ok((begun, head, rows, daemons)) = answered else {
            self.page = (page / 2).max(1);
            return Err(Failure::Away("it gives no turn".into()));
        };
        begun.map_err(|error| judge(&error))?;
        let head = HeadRow::of(&head.map_err(|error| judge(&error))?).ok_or_else(malformed)?;
        if let Some(why) = &head.closed {
            return Err(Failure::Away(format!("its ledger is closed: {why}")));
        }
        self.check(&head)?;
        let rows = batches(rows.map_err(|error| judge(&error))?)?;
        let daemons = self::daemons(&daemons.map_err(|error| judge(&error))?)?;
        Ok(Turn { head, is_whole: self.is_whole(&rows), rows, daemons })
    }

    /// Whether that is less than a page. What came in time lets the next be larger.
    fn is_whole(&mut self, rows: &[BatchRow]) -> bool {
        let page = self.page;
        self.page = (page * 2).min(PAGE);
        (rows.len() as i64) < page
    }

    /// Whether what it acknowledges now stays.
    fn check(&self, head: &HeadRow) -> Result<(), Failure> {
        let unfit = head.unfit.as_deref().map(unfit);
        unfit.or_else(|| too_few_copies(self.copies, &head.standbys)).map_or(Ok(()), |what| Err(Failure::Away(what)))
    }

    /// Where the database lacks what this daemon's copy has, nobody writes before it is completed: a daemon whose copy has no more
    /// than the database cannot see that anything is missing. In a turn that is written before anybody else has one.
    pub(super) fn note_loss(&self, error: &SharedError, in_turn: bool) {
        let (SharedError::Lost { what }, Some(link)) = (error, &self.link) else { return };
        let why = format!("{LOST}: {what}; \"birthmark ledger restore\" completes it");
        let noted = async {
            link.client.execute("UPDATE head SET closed = $1 WHERE closed IS NULL", &[&why]).await?;
            if in_turn { link.client.batch_execute("COMMIT").await } else { Ok(()) }
        };
        let noted = self.runtime.block_on(async { timeout(ANSWER, noted).await });
        match noted {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(error = sentence(&error), "the other daemons could not be told that batches are lost")
            }
            Err(_) => tracing::error!(
                "the other daemons could not be told that batches are lost: the database does not answer"
            ),
        }
    }

    /// Gives the right back; nothing has changed.
    pub(super) fn give_back(&mut self) {
        let given = self.link().map(|link| self.runtime.block_on(link.client.batch_execute("ROLLBACK")).is_ok());
        if !given.unwrap_or(false) {
            self.disconnect();
        }
    }

    /// Writes nothing but that this daemon lives, if it has an epoch that is open, and waits until that, with all before it, is durable.
    pub(super) fn renew(&mut self, epoch: Option<u64>) -> Result<(), NotAppended> {
        let Some(epoch) = epoch else { return self.commit(vec![(sql::TOUCH_HEAD, &[])], &[(0, sql::TOUCH_HEAD, 1)]) };
        let (epoch, name) = (signed(epoch), self.daemon.clone());
        let parameters: [&(dyn ToSql + Sync); 3] = [&epoch, &name, &VERSION];
        self.commit(vec![(sql::TOUCH_HEAD, &[]), (sql::RENEW, &parameters)], &[(0, sql::TOUCH_HEAD, 1)])
    }

    /// Appends what the copy's journal has staged, `entries` of them, and waits until it is durable.
    pub(super) fn append_staged(
        &mut self,
        journal: &Journal,
        written: &Written<'_>,
        epoch: u64,
        (before, entries): (&HeadRow, u64),
    ) -> Result<(), NotAppended> {
        let Some((batch, _, chain)) = journal.staged() else { return Ok(()) };
        let (number, sequence) = (before.batch + 1, batch.first + entries - 1);
        self.append(&Append {
            epoch,
            before,
            first: batch.first,
            place: batch.place.to_number(),
            frames: batch.frames,
            after: HeadRow { batch: number, sequence, chain, ..before.clone() },
            claims: Rows::of(written.claims),
        })
    }

    /// Appends a batch, and waits until it is durable.
    fn append(&mut self, append: &Append<'_>) -> Result<(), NotAppended> {
        let Append { before, after, claims, .. } = append;
        let [epoch, first, place] = [append.epoch, append.first, append.place].map(signed);
        let [old, new, sequence] = [before.batch, after.batch, after.sequence].map(signed);
        let (old_chain, new_chain) = (&before.chain[..], &after.chain[..]);
        let frames = append.frames;
        let batch: [&(dyn ToSql + Sync); 5] = [&new, &epoch, &first, &place, &frames];
        let head: [&(dyn ToSql + Sync); 5] = [&old, &old_chain, &new, &sequence, &new_chain];
        let name = self.daemon.clone();
        let renew: [&(dyn ToSql + Sync); 3] = [&epoch, &name, &VERSION];
        let freed: [&(dyn ToSql + Sync); 2] = [&claims.freed.0, &claims.freed.1];
        let bound: [&(dyn ToSql + Sync); 2] = [&claims.bound.0, &claims.bound.1];
        let created: [&(dyn ToSql + Sync); 3] = [&claims.created.0, &claims.created.1, &claims.created.2];
        let changed: [&(dyn ToSql + Sync); 3] = [&claims.changed.0, &claims.changed.1, &claims.changed.2];
        let ended: [&(dyn ToSql + Sync); 1] = [&claims.ended];
        let opened: Vec<[&(dyn ToSql + Sync); 3]> =
            claims.opened.iter().map(|(epoch, name)| -> [&(dyn ToSql + Sync); 3] { [epoch, name, &VERSION] }).collect();
        let mut sent: Vec<sql::Sent<'_>> = Vec::with_capacity(8);
        let mut found = Vec::new();
        if !claims.freed.0.is_empty() {
            found.push((sent.len(), sql::DELETE_NAMES, claims.freed.0.len() as u64));
            sent.push((sql::DELETE_NAMES, &freed));
        }
        if !claims.bound.0.is_empty() {
            sent.push((sql::INSERT_NAMES, &bound));
        }
        if !claims.created.0.is_empty() {
            sent.push((sql::INSERT_ORDERS, &created));
        }
        if !claims.changed.0.is_empty() {
            found.push((sent.len(), sql::UPDATE_ORDERS, claims.changed.0.len() as u64));
            sent.push((sql::UPDATE_ORDERS, &changed));
        }
        sent.push((sql::INSERT_BATCH, &batch));
        found.push((sent.len(), sql::MOVE_HEAD, 1));
        sent.push((sql::MOVE_HEAD, &head));
        if !claims.ended.is_empty() {
            sent.push((sql::DELETE_DAEMONS, &ended));
        }
        match opened.is_empty() {
            // Of an epoch that ends nothing more is heard.
            true if claims.ended.contains(&epoch) => {}
            true => sent.push((sql::RENEW, &renew)),
            false => opened.iter().for_each(|daemon| sent.push((sql::INSERT_DAEMON, daemon))),
        }
        self.commit(sent, &found)
    }

    /// `expected`: how many rows a statement, by its place among those sent, must find.
    fn commit(&mut self, sent: Vec<sql::Sent<'_>>, expected: &[(usize, usize, u64)]) -> Result<(), NotAppended> {
        let begun = Instant::now();
        let committed = self.committed(sent, expected);
        metrics::ledger_commit(begun.elapsed());
        // After a conflict COMMIT has rolled back.
        if committed.as_ref().is_err_and(|error| !matches!(error, NotAppended::Nothing(Failure::Again(_)))) {
            self.disconnect();
        }
        committed
    }

    fn committed(&self, sent: Vec<sql::Sent<'_>>, expected: &[(usize, usize, u64)]) -> Result<(), NotAppended> {
        let link = self.link().map_err(NotAppended::Nothing)?;
        let wait = self.patience.max(Duration::from_secs(1));
        let answered = self.runtime.block_on(async { timeout(wait, link.commit(sent)).await });
        let Ok((done, committed)) = answered else {
            return Err(NotAppended::Unknown("the database does not answer the COMMIT".into()));
        };
        // After a statement that failed, COMMIT rolls back.
        if let Some(error) =
            done.iter().filter_map(|done| done.as_ref().err()).find(|error| error.as_db_error().is_some())
        {
            return Err(match ends_session(error) {
                true => NotAppended::Unknown(sentence(error)),
                false => NotAppended::Nothing(judge(error)),
            });
        }
        match committed {
            Committed::Unknown(what) => return Err(NotAppended::Unknown(what)),
            Committed::No(error) => return Err(NotAppended::Nothing(judge(&error))),
            Committed::Yes => {}
        }
        if let Some(Err(error)) = done.iter().find(|done| done.is_err()) {
            return Err(NotAppended::Unknown(sentence(error)));
        }
        for (at, statement, rows) in expected {
            let found = done.get(*at).and_then(|done| done.as_ref().ok()).copied().unwrap_or(0);
            if found != *rows {
                let missing = SharedError::Missing { table: sql::table(*statement), found, expected: *rows };
                return Err(NotAppended::Nothing(Failure::Ledger(missing.fatal())));
            }
        }
        Ok(())
    }

    /// Says that this daemon lives if `renew`, and reads what others have appended, without waiting for a turn.
    pub(super) fn look(&mut self, known: u64, renew: Option<u64>) -> Result<Turn, Failure> {
        let looked = self.looked(known, renew);
        if looked.is_err() {
            self.disconnect();
        }
        looked
    }

    fn looked(&mut self, known: u64, renew: Option<u64>) -> Result<Turn, Failure> {
        let (link, page) = (self.link()?, self.page);
        let number = signed(known);
        // That a daemon lives need not survive a crash, so nobody waits for the disk or a standby.
        let renewal = renew.map_or(String::new(), |epoch| {
            format!(
                "BEGIN; SET LOCAL synchronous_commit = off; UPDATE daemons SET renewed = clock_timestamp() WHERE epoch = {epoch}; \
                 COMMIT"
            )
        });
        let asked = async {
            let parameters: [&(dyn ToSql + Sync); 2] = [&number, &page];
            let renewed = async { if renewal.is_empty() { Ok(()) } else { link.client.batch_execute(&renewal).await } };
            tokio::join!(
                renewed,
                link.client.query_one(&link.statements[sql::HEAD], &[]),
                link.client.query(&link.statements[sql::DAEMONS], &[]),
                link.client.query(&link.statements[sql::BATCHES], &parameters)
            )
        };
        let answered = self.runtime.block_on(async { timeout(ANSWER, asked).await });
        let Ok((renewed, head, daemons, rows)) = answered else {
            self.page = (page / 2).max(1);
            return Err(Failure::Away("it does not answer".into()));
        };
        renewed.map_err(|error| judge(&error))?;
        let head = HeadRow::of(&head.map_err(|error| judge(&error))?).ok_or_else(malformed)?;
        self.check(&head)?;
        let rows = batches(rows.map_err(|error| judge(&error))?)?;
        let daemons = self::daemons(&daemons.map_err(|error| judge(&error))?)?;
        Ok(Turn { head, is_whole: self.is_whole(&rows), rows, daemons })
    }

    /// The ledger's id.
    pub(super) fn ledger(&self) -> Result<[u8; 16], Failure> {
        let link = self.link()?;
        let asked = self.runtime.block_on(link.client.query_one("SELECT ledger FROM head", &[]));
        let row = asked.map_err(|error| judge(&error))?;
        row.try_get::<_, &[u8]>(0).ok().and_then(|id| id.try_into().ok()).ok_or_else(malformed)
    }

    /// The batch with this number, if there is one.
    pub(super) fn batch(&self, number: u64) -> Result<Option<BatchRow>, Failure> {
        let link = self.link()?;
        let parameters: [&(dyn ToSql + Sync); 2] = [&(signed(number) - 1), &1_i64];
        let asked = self.runtime.block_on(link.client.query(&link.statements[sql::BATCHES], &parameters));
        Ok(batches(asked.map_err(|error| judge(&error))?)?.pop().filter(|row| row.batch == number))
    }
}

fn batches(rows: Vec<Row>) -> Result<Vec<BatchRow>, Failure> {
    rows.into_iter().map(BatchRow::of).collect::<Option<_>>().ok_or_else(malformed)
}

fn daemons(rows: &[Row]) -> Result<Vec<DaemonRow>, Failure> {
    rows.iter().map(DaemonRow::of).collect::<Option<_>>().ok_or_else(malformed)
}

fn malformed() -> Failure {
    Failure::Ledger(SharedError::Differs { what: "a row of its tables cannot be read".into() }.fatal())
}
