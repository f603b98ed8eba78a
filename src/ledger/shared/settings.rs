//! Where the database is, and how long is waited for whom.

use std::{path::PathBuf, time::Duration};

/// What a daemon is told of the ledger that it shares.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `postgresql://USER@HOST[,HOST…]/DATABASE?…`, without a password.
    pub url: String,
    /// A file with the password of that user, which only its owner may read.
    pub password: Option<PathBuf>,
    /// Files that the URL names are looked for from here.
    pub folder: PathBuf,
    /// This daemon's name, which no other one has.
    pub daemon: String,
    /// How many machines must have a batch before it counts: 1 or 2.
    pub copies: u8,
    /// How long a daemon may not be heard of until the others abandon what it has reserved.
    pub lease: Duration,
    /// How long requests wait for a database that is away.
    pub patience: Duration,
}
