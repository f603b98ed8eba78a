//! What is wrong with a database, or with what it holds.

use std::io;

use tokio_postgres::error::{DbError, SqlState};

use crate::ledger::error::LedgerError;

/// What is wrong with a database, or with what it holds.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The URL cannot be used.
    #[error("the URL of the ledger's database cannot be used: {0}")]
    Url(String),
    /// A file that the URL or the configuration names.
    #[error("the file {path} cannot be used: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The file with the password.
    #[error("the file {path} with the password of the ledger's database cannot be used: {what}")]
    Password {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing is heard of it, or it refuses.
    #[error("the ledger's database at {place} cannot be used: {what}")]
    Away {
        /// Hosts and database.
        place: String,
        /// What happened.
        what: String,
    },
    /// It would lose what it has acknowledged, or has not what a ledger needs.
    #[error("the ledger's database at {place} is not fit for a ledger: {what}")]
    Unfit {
        /// Hosts and database.
        place: String,
        /// What it lacks, and what would be right.
        what: String,
    },
    /// This copy knows batches that the database does not have.
    #[error(
        "the ledger's database has lost what it had acknowledged: {what}; no daemon signs anything until it is completed. Stop \
         all daemons, and use \"birthmark ledger restore\" with the configuration whose data folder has the most entries"
    )]
    Lost {
        /// What each has.
        what: String,
    },
    /// This copy has batches that were read, and never acknowledged.
    #[error(
        "the ledger's database lacks batches that this daemon has read, and that were never acknowledged to it: {what}; what it lacks \
         was shown before a standby had it. Started again, the daemon puts its copy aside and reads what the database has"
    )]
    Unacknowledged {
        /// What each has.
        what: String,
    },
    /// What it holds does not continue this copy.
    #[error(
        "the ledger's database and this daemon's copy differ: {what}; nothing is signed. \"birthmark journal verify\" tells \
         whether the copy is sound; a copy that is not is moved away, and read again from the database"
    )]
    Differs {
        /// Where, and how.
        what: String,
    },
    /// A rule that the database keeps by itself would have been broken.
    #[error(
        "the ledger's database refused a batch that this daemon had found right: {what}; this daemon's knowledge or the table is \
         wrong, and it stops. \"birthmark ledger rebuild\" makes the tables names and orders from the journal again"
    )]
    Constraint {
        /// The table, and what the database says.
        what: String,
    },
    /// Rows that must have been there were not; what was found out by that is committed.
    #[error(
        "the table {table} of the ledger's database lacks rows that it must have ({found} of {expected} were there): somebody has \
         changed it. \"birthmark ledger rebuild\" makes it from the journal again"
    )]
    Missing {
        /// The table.
        table: &'static str,
        /// How many rows there were.
        found: u64,
        /// How many there must be.
        expected: u64,
    },
    /// The folder holds another ledger, or one of its own.
    #[error("{0}")]
    Folder(String),
    /// What the owner asks for cannot be done.
    #[error("{0}")]
    Refused(String),
    /// Another daemon has this one's name.
    #[error(
        "the daemon \"{name}\" runs already, with another data folder (epoch {epoch}, since {since}); give each daemon a name of \
         its own (ledger.daemon)"
    )]
    SameName {
        /// The name.
        name: String,
        /// The other one's epoch.
        epoch: u64,
        /// When that began.
        since: String,
    },
}

impl SharedError {
    /// For a start that is refused.
    pub(super) fn at_start(self) -> LedgerError {
        match &self {
            SharedError::Lost { what } => LedgerError::Lost { what: what.clone(), cause: Box::new(self) },
            _ => LedgerError::Storage(Box::new(self)),
        }
    }

    /// For a daemon that must stop.
    pub(super) fn fatal(self) -> LedgerError {
        LedgerError::Fatal(Box::new(self))
    }
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Others came before: nothing has happened, and the next attempt may succeed at once.
    Again(String),
    /// The database cannot be used now; what it may have done is found out when it can.
    Away(String),
    /// No attempt will succeed.
    Ledger(LedgerError),
}

impl Failure {
    /// This daemon's own disk takes nothing now.
    pub(super) fn not_written(cause: io::Error) -> Failure {
        Failure::Ledger(LedgerError::NotWritten(Box::new(cause)))
    }
}

impl From<SharedError> for Failure {
    fn from(error: SharedError) -> Self {
        match error {
            SharedError::Away { what, .. } | SharedError::Unfit { what, .. } => Failure::Away(what),
            error => Failure::Ledger(error.fatal()),
        }
    }
}

/// What a statement that failed tells.
pub(super) fn judge(error: &tokio_postgres::Error) -> Failure {
    let Some(db) = error.as_db_error() else { return Failure::Away(sentence(error)) };
    let code = db.code();
    let again = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::LOCK_NOT_AVAILABLE];
    if again.contains(code) {
        return Failure::Again(db.message().to_owned());
    }
    let violated = [SqlState::UNIQUE_VIOLATION, SqlState::CHECK_VIOLATION, SqlState::NOT_NULL_VIOLATION];
    if violated.contains(code) {
        let what = format!("table {}: {}{}", db.table().unwrap_or("?"), db.message(), detail(db));
        return Failure::Ledger(SharedError::Constraint { what }.fatal());
    }
    Failure::Away(sentence(error))
}

fn detail(db: &DbError) -> String {
    db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default()
}

/// What hands a session on to others between two transactions.
const POOLER: &str =
    "; does a pooler in transaction mode stand before it? Its sessions forget what they are told: connect directly";

/// Where passwords come from.
const PASSWORD: &str = "; the password is in the file that ledger.database_password names, or --password-file";

/// What a setting that is not as it must be means.
pub(super) fn unfit(setting: &str) -> String {
    match setting {
        "session" => format!("its sessions do not keep what they are told{POOLER}"),
        name => format!("{name} is off: a crash would lose acknowledged batches; set {name} = on"),
    }
}

/// What happened, for people; tokio-postgres' own text leaves out the cause.
pub(super) fn sentence(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let advice = match *db.code() {
            SqlState::INVALID_PASSWORD => PASSWORD,
            SqlState::UNDEFINED_OBJECT | SqlState::INVALID_CATALOG_NAME => {
                "; make it first, as docs/cluster.md shows (CREATE ROLE, CREATE DATABASE)"
            }
            SqlState::UNDEFINED_TABLE => "; \"birthmark ledger create\" makes the tables",
            SqlState::DUPLICATE_PSTATEMENT | SqlState::INVALID_SQL_STATEMENT_NAME => POOLER,
            SqlState::INSUFFICIENT_PRIVILEGE => {
                "; --database names the owner of the tables, ledger.database the daemons' role"
            }
            _ => "",
        };
        return format!("{}{} (SQLSTATE {}){advice}", db.message(), detail(db), db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    if text.ends_with("password missing") {
        text.push_str(PASSWORD);
    }
    text
}

/// Whether the server has ended the session with this: what it says of a COMMIT is not known then.
pub(super) fn ends_session(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map(SqlState::code);
    code.is_none_or(|code| code.starts_with("57P") || code.starts_with("08") || code == "25P03" || code == "25P04")
}
