//! One connection: made, checked, and watched for what the server says beside its answers.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::{join_all, try_join_all};
use tokio::{task::AbortHandle, time::timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Statement, error::SqlState, tls::TlsStream};

use super::{
    error::{SharedError, ends_session, sentence},
    sql,
    target::{self, Target},
};

/// The form of the tables that this version knows.
pub(super) const FORMAT: i64 = 1;

/// The oldest server, as `server_version_num` has it.
const OLDEST: i32 = 130_000;

/// Why no host could be connected to: each with what it said, or nothing where it did not answer in time.
struct Faults(Vec<(String, Option<tokio_postgres::Error>)>);

impl Faults {
    fn told(&self) -> String {
        let told = self.0.iter().map(|(host, fault)| {
            let told = fault.as_ref().map_or_else(|| "it does not answer".to_owned(), sentence);
            if self.0.len() == 1 { told } else { format!("{host}: {told}") }
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// Nothing was heard of one, or it is about to start or to stop, or has no connection left.
    fn may_pass(&self) -> bool {
        self.0.iter().any(|(_, fault)| {
            let code = fault.as_ref().and_then(tokio_postgres::Error::code).map(SqlState::code);
            code.is_none_or(|code| code.starts_with("57P") || code.starts_with("53"))
        })
    }
}

/// A connection that was found fit, with its statements prepared.
pub(super) struct Link {
    pub(super) client: Client,
    /// Set when the server has warned: a COMMIT that comes with a warning is no COMMIT.
    warned: Arc<AtomicBool>,
    pub(super) statements: Vec<Statement>,
    /// How many servers have what is acknowledged.
    copies: u8,
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    /// Connects to the first host that answers and is what the URL asks for, without a look at what is there.
    pub(super) async fn plain(target: &Target) -> Result<Link, SharedError> {
        let away = |faults: Faults| SharedError::Away { place: target.place.clone(), what: faults.told() };
        Link::to_any(target).await.map_err(away)
    }

    /// One host after the other, each with its time: one that takes a connection and says nothing keeps nobody from the others.
    async fn to_any(target: &Target) -> Result<Link, Faults> {
        let mut faults = Vec::new();
        for (host, config) in &target.hosts {
            let warned = Arc::new(AtomicBool::new(false));
            let connecting = async {
                Ok::<_, tokio_postgres::Error>(match &target.tls {
                    Some(tls) => {
                        let (client, connection) = config.connect(tls.clone()).await?;
                        (client, tokio::spawn(drive(connection, Arc::clone(&warned))).abort_handle())
                    }
                    None => {
                        let (client, connection) = config.connect(NoTls).await?;
                        (client, tokio::spawn(drive(connection, Arc::clone(&warned))).abort_handle())
                    }
                })
            };
            match timeout(target::ANSWER, connecting).await {
                Ok(Ok((client, driver))) => {
                    return Ok(Link { client, warned, statements: Vec::new(), copies: 1, driver });
                }
                Ok(Err(error)) => faults.push((host.clone(), Some(error))),
                Err(_) => faults.push((host.clone(), None)),
            }
        }
        Err(Faults(faults))
    }

    /// What is in the way where it may answer later by itself.
    pub(super) async fn is_away(target: &Target) -> Option<String> {
        let faults = Link::to_any(target).await.err()?;
        faults.may_pass().then(|| faults.told())
    }

    /// Connects as a daemon: with its statements, to a database that loses nothing.
    pub(super) async fn fit(target: &Target, copies: u8) -> Result<Link, SharedError> {
        let mut link = Link::plain(target).await?;
        link.check(target, copies).await?;
        let away =
            |error: tokio_postgres::Error| SharedError::Away { place: target.place.clone(), what: sentence(&error) };
        link.client.batch_execute(sql::SESSION).await.map_err(away)?;
        let statements = sql::ALL.iter().map(|text| link.client.prepare(text));
        link.statements = try_join_all(statements).await.map_err(away)?;
        link.copies = copies;
        Ok(link)
    }

    /// Whether the server keeps what it acknowledges.
    pub(super) async fn check_durable(&self, target: &Target, copies: u8) -> Result<(), SharedError> {
        let unfit = |what: String| SharedError::Unfit { place: target.place.clone(), what };
        let away =
            |error: tokio_postgres::Error| SharedError::Away { place: target.place.clone(), what: sentence(&error) };
        let found = self.client.query_one(sql::FITNESS, &[]).await.map_err(away)?;
        let version: String = found.get(0);
        // Others keep their copies by a consensus of their own, which these settings do not describe.
        if version.starts_with("PostgreSQL") && !version.contains("-YB-") {
            if found.get::<_, i32>(6) < OLDEST {
                return Err(unfit(format!("it is {version}, and a ledger needs PostgreSQL 13 or newer")));
            }
            if found.get::<_, bool>(1) {
                return Err(unfit(
                    "it is a standby (in recovery): add target_session_attrs=read-write to the URL".into(),
                ));
            }
            for (column, name) in [(2, "fsync"), (3, "full_page_writes")] {
                if found.get::<_, String>(column) != "on" {
                    return Err(unfit(format!(
                        "{name} is off: a crash would lose acknowledged batches; set {name} = on"
                    )));
                }
            }
            if let Some(what) = too_few_copies(copies, &found.get::<_, String>(5)) {
                return Err(unfit(what));
            }
        }
        if found.get::<_, String>(4) != "UTF8" {
            return Err(unfit("its encoding is not UTF8".into()));
        }
        Ok(())
    }

    /// Whether the database keeps what it acknowledges, and this role can only add to the journal.
    async fn check(&self, target: &Target, copies: u8) -> Result<(), SharedError> {
        self.check_durable(target, copies).await?;
        let unfit = |what: String| SharedError::Unfit { place: target.place.clone(), what };
        let away =
            |error: tokio_postgres::Error| SharedError::Away { place: target.place.clone(), what: sentence(&error) };
        let tables = self.client.query_one(sql::PRIVILEGES, &[]).await.map_err(away)?;
        match tables.get::<_, Option<bool>>(0) {
            None => return Err(unfit("it has no ledger: \"birthmark ledger create\" makes one".into())),
            Some(true) => {
                return Err(unfit(format!(
                    "the role {} may change or delete rows of the journal; a daemon's role is one that \"birthmark ledger \
                     create\" gave its rights, and no owner",
                    target.user
                )));
            }
            Some(false) => {}
        }
        let lacking: Vec<String> = self.client.query_one(&sql::lacking(), &[]).await.map_err(away)?.get(0);
        if !lacking.is_empty() {
            let role = &target.user;
            let grants = lacking.iter().map(|right| format!("GRANT {right} TO {role}")).collect::<Vec<_>>().join("; ");
            let what =
                format!("the role {role} lacks rights that a daemon needs; as the owner of the tables: {grants}");
            return Err(unfit(what));
        }
        let head = self.client.query_opt("SELECT format, closed FROM head", &[]).await.map_err(away)?;
        let Some(head) = head else {
            return Err(unfit("its table head is empty: \"birthmark ledger create\" fills it".into()));
        };
        let format: i64 = head.get(0);
        if format != FORMAT {
            return Err(unfit(format!(
                "its tables have the format {format}, and this version knows {FORMAT}; use the version that made them, or \
                 \"birthmark ledger upgrade\""
            )));
        }
        match head.get::<_, Option<String>>(1) {
            Some(why) => Err(unfit(format!("its ledger is closed: {why}"))),
            None => Ok(()),
        }
    }

    /// From now on warnings are those of what is sent next.
    pub(super) fn forget_warnings(&self) {
        self.warned.store(false, Ordering::Relaxed);
    }

    /// Whether the server has warned since.
    pub(super) fn warned(&self) -> bool {
        self.warned.load(Ordering::Relaxed)
    }

    /// Sends statements one after the other without waiting, and then COMMIT; gives what came of each.
    pub(super) async fn commit(
        &self,
        sent: Vec<sql::Sent<'_>>,
    ) -> (Vec<Result<u64, tokio_postgres::Error>>, Committed) {
        self.forget_warnings();
        let statements = join_all(sent.iter().map(|(index, parameters)| {
            let statement = self.statements.get(*index);
            async move {
                match statement {
                    Some(statement) => self.client.execute(statement, parameters).await,
                    None => Ok(0),
                }
            }
        }));
        // Once it is told to have no standby, a server lets all go that wait for one, without a warning.
        let standbys = async {
            match self.statements.get(sql::STANDBYS).filter(|_| self.copies > 1) {
                Some(statement) => {
                    self.client.query_one(statement, &[]).await.map(|row| row.get::<_, String>(0)).map(Some)
                }
                None => Ok(None),
            }
        };
        let (done, committed, standbys) = tokio::join!(statements, self.client.batch_execute("COMMIT"), standbys);
        let committed = match committed {
            Ok(()) if self.warned() => Committed::Unknown("the server has warned at COMMIT".into()),
            Ok(()) => match standbys {
                Ok(standbys) => standbys
                    .and_then(|standbys| too_few_copies(self.copies, &standbys))
                    .map_or(Committed::Yes, Committed::Unknown),
                Err(error) => Committed::Unknown(sentence(&error)),
            },
            Err(error) if ends_session(&error) => Committed::Unknown(sentence(&error)),
            Err(error) => Committed::No(error),
        };
        (done, committed)
    }
}

/// What is known of a COMMIT.
pub(super) enum Committed {
    /// It is durable, unless a statement before it failed.
    Yes,
    /// It was refused.
    No(tokio_postgres::Error),
    /// It may have happened.
    Unknown(String),
}

/// Why the copies are too few, if they are.
pub(super) fn too_few_copies(copies: u8, standbys: &str) -> Option<String> {
    (copies > 1 && standbys.is_empty()).then(|| {
        "it has no synchronous standby (synchronous_standby_names is empty), and ledger.copies is 2: what it acknowledges would be \
         lost with it; bring a standby back (Patroni: synchronous_mode and synchronous_mode_strict), or set ledger.copies = 1 where \
         that loss is accepted"
            .into()
    })
}

/// Drives a connection until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, warned: Arc<AtomicBool>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: TlsStream + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                if *notice.code() == SqlState::WARNING {
                    tracing::warn!(message = notice.message(), "the ledger's database warns");
                    warned.store(true, Ordering::Relaxed);
                }
            }
            Ok(_) => {}
            // Whoever waits for an answer is told.
            Err(_) => return,
        }
    }
}
