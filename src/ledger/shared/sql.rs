//! Every statement, and what the rows are.

use tokio_postgres::{Row, types::ToSql};

use crate::ledger::head::ChainHash;

/// A statement by its place in [`ALL`], and its parameters.
pub(super) type Sent<'p> = (usize, &'p [&'p (dyn ToSql + Sync)]);

/// What each session of a daemon is told. There is no limit of a statement's time: it would cut short the wait for a standby. That
/// such a wait was cut short is told by a warning alone.
pub(super) const SESSION: &str = "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = '2s'; \
     SET lock_timeout = '10s'; SET statement_timeout = 0; SET client_min_messages = notice; SET birthmark.session = 'told'";

pub(super) const FITNESS: &str = "SELECT version(), pg_is_in_recovery(), current_setting('fsync'), \
     current_setting('full_page_writes'), current_setting('server_encoding'), \
     coalesce(current_setting('synchronous_standby_names', true), ''), \
     coalesce(current_setting('server_version_num', true), '0')::int";

/// Whether this role may do more to the journal than add to it; NULL if there is none.
pub(super) const PRIVILEGES: &str = "SELECT CASE WHEN to_regclass('journal') IS NOT NULL \
     THEN has_table_privilege('journal', 'UPDATE') OR has_table_privilege('journal', 'DELETE') \
     OR has_table_privilege('journal', 'TRUNCATE') OR has_any_column_privilege('journal', 'UPDATE') END";

/// What a daemon's role may do to each table.
pub(super) const RIGHTS: [(&str, &[&str]); 5] = [
    ("journal", &["SELECT", "INSERT"]),
    ("head", &["SELECT", "UPDATE"]),
    ("names", &["SELECT", "INSERT", "DELETE"]),
    ("orders", &["SELECT", "INSERT", "UPDATE"]),
    ("daemons", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
];

/// An array of those that this role lacks, each as `INSERT ON journal`.
pub(super) fn lacking() -> String {
    let lacking = RIGHTS.iter().flat_map(|(table, rights)| {
        let lacks =
            |right| format!("CASE WHEN NOT has_table_privilege('{table}', '{right}') THEN '{right} ON {table}' END");
        rights.iter().map(lacks).collect::<Vec<_>>()
    });
    format!("SELECT array_remove(ARRAY[{}], NULL)", lacking.collect::<Vec<_>>().join(", "))
}

pub(super) const LOCK_HEAD: usize = 0;
pub(super) const HEAD: usize = 1;
pub(super) const BATCHES: usize = 2;
pub(super) const DAEMONS: usize = 3;
pub(super) const DELETE_NAMES: usize = 4;
pub(super) const INSERT_NAMES: usize = 5;
pub(super) const INSERT_ORDERS: usize = 6;
pub(super) const UPDATE_ORDERS: usize = 7;
pub(super) const INSERT_BATCH: usize = 8;
pub(super) const MOVE_HEAD: usize = 9;
pub(super) const RENEW: usize = 10;
pub(super) const INSERT_DAEMON: usize = 11;
pub(super) const DELETE_DAEMONS: usize = 12;
pub(super) const TOUCH_HEAD: usize = 13;
pub(super) const STANDBYS: usize = 14;

/// The row of `head`, the database's clock, which is read when the lock is there, and what it was told and has not kept to.
macro_rules! head {
    ($lock:literal) => {
        concat!(
            "SELECT batch, sequence, chain, (extract(epoch from clock_timestamp()) * 1000000)::bigint, closed, \
             coalesce(current_setting('synchronous_standby_names', true), ''), CASE \
             WHEN coalesce(current_setting('birthmark.session', true), '') <> 'told' THEN 'session' \
             WHEN coalesce(current_setting('fsync', true), 'on') <> 'on' THEN 'fsync' \
             WHEN coalesce(current_setting('full_page_writes', true), 'on') <> 'on' THEN 'full_page_writes' END \
             FROM (SELECT batch, sequence, chain, closed FROM head",
            $lock,
            ") AS head"
        )
    };
}

/// What a daemon prepares.
pub(super) const ALL: [&str; 15] = [
    head!(" FOR UPDATE"),
    head!(""),
    "SELECT batch, epoch, first, place, frames FROM journal WHERE batch > $1 ORDER BY batch LIMIT $2",
    "SELECT epoch, name, (extract(epoch from renewed) * 1000000)::bigint, \
     (extract(epoch from clock_timestamp() - renewed) * 1000000)::bigint FROM daemons ORDER BY epoch",
    "DELETE FROM names USING unnest($1::bytea[], $2::bytea[]) AS t(name, serial_number) \
     WHERE names.name = t.name AND names.serial_number = t.serial_number",
    "INSERT INTO names (name, serial_number) SELECT * FROM unnest($1::bytea[], $2::bytea[])",
    "INSERT INTO orders (id, used, most) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])",
    "UPDATE orders SET used = orders.used + t.used, most = t.most \
     FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS t(id, used, most) WHERE orders.id = t.id",
    "INSERT INTO journal (batch, epoch, first, place, frames) VALUES ($1, $2, $3, $4, $5)",
    // NOT NULL makes it compare and set.
    "UPDATE head SET batch = CASE WHEN batch = $1::bigint AND chain = $2::bytea THEN $3::bigint END, sequence = $4::bigint, \
     chain = $5::bytea",
    // A row that somebody has deleted is there again: the others must know of this daemon.
    "INSERT INTO daemons (epoch, name, version, started, renewed) VALUES ($1, $2, $3, clock_timestamp(), clock_timestamp()) \
     ON CONFLICT (epoch) DO UPDATE SET renewed = clock_timestamp()",
    "INSERT INTO daemons (epoch, name, version, started, renewed) VALUES ($1, $2, $3, clock_timestamp(), clock_timestamp())",
    "DELETE FROM daemons WHERE epoch = ANY($1::bigint[])",
    // Changes nothing, and is a write.
    "UPDATE head SET sequence = sequence",
    "SELECT coalesce(current_setting('synchronous_standby_names', true), '')",
];

/// The table that a statement is about, where it must find rows.
pub(super) fn table(statement: usize) -> &'static str {
    match statement {
        DELETE_NAMES => "names",
        UPDATE_ORDERS => "orders",
        _ => "head",
    }
}

/// What the ledger has come to.
#[derive(Clone, Debug)]
pub(super) struct HeadRow {
    pub(super) batch: u64,
    pub(super) sequence: u64,
    pub(super) chain: ChainHash,
    /// The database's clock, in microseconds since 1970.
    pub(super) clock: i64,
    /// Why nobody writes any more.
    pub(super) closed: Option<String>,
    pub(super) standbys: String,
    /// A setting that is not as this session was told, or as a ledger needs it: `session`, or the setting's name.
    pub(super) unfit: Option<String>,
}

impl HeadRow {
    pub(super) fn of(row: &Row) -> Option<HeadRow> {
        Some(HeadRow {
            batch: row.try_get::<_, i64>(0).ok()?.try_into().ok()?,
            sequence: row.try_get::<_, i64>(1).ok()?.try_into().ok()?,
            chain: row.try_get::<_, &[u8]>(2).ok()?.try_into().ok()?,
            clock: row.try_get(3).ok()?,
            closed: row.try_get(4).ok()?,
            standbys: row.try_get(5).ok()?,
            unfit: row.try_get(6).ok()?,
        })
    }
}

/// A batch of the journal.
#[derive(Debug)]
pub(super) struct BatchRow {
    pub(super) batch: u64,
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) place: u64,
    row: Row,
}

impl BatchRow {
    pub(super) fn of(row: Row) -> Option<BatchRow> {
        let number = |column: usize| row.try_get::<_, i64>(column).ok().and_then(|number| u64::try_from(number).ok());
        let (batch, epoch, first, place) = (number(0)?, number(1)?, number(2)?, number(3)?);
        Some(BatchRow { batch, epoch, first, place, row })
    }

    pub(super) fn frames(&self) -> &[u8] {
        self.row.try_get(4).unwrap_or_default()
    }
}

/// A daemon that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DaemonRow {
    pub(super) epoch: u64,
    pub(super) name: String,
    /// When it was heard of, in microseconds; compared only with itself.
    pub(super) renewed: i64,
    /// How long ago that is, by the database's clock: for people.
    pub(super) age: i64,
}

impl DaemonRow {
    pub(super) fn of(row: &Row) -> Option<DaemonRow> {
        Some(DaemonRow {
            epoch: row.try_get::<_, i64>(0).ok()?.try_into().ok()?,
            name: row.try_get(1).ok()?,
            renewed: row.try_get(2).ok()?,
            age: row.try_get(3).ok()?,
        })
    }
}

/// As the database counts; it has no numbers without a sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
