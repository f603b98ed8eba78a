//! The ledger that several daemons share: the journal lies in a database that speaks PostgreSQL's protocol, one row a batch; every
//! daemon follows it and keeps what it knows in a copy of its own (`ledger::copy`).
//!
//! What the database does: it orders the batches (the lock of one row), makes them durable on as many machines as it was set up
//! for, and keeps keys, devices and units of orders unique by itself (the tables `names` and `orders`, whose constraints cannot fire
//! between sound daemons). What it is not trusted with: whether it has kept what it acknowledged. Each copy is a witness of that.
//!
//! All of tokio-postgres is in here.

mod claims;
mod database;
mod derive;
mod error;
mod follow;
mod ledger;
mod link;
mod lives;
mod open;
mod owner;
mod settings;
mod sql;
mod target;
#[cfg(test)]
mod tests;
mod unacknowledged;

pub use self::{
    error::SharedError,
    ledger::SharedLedger,
    owner::{Created, DaemonSeen, Owner, Restored, Status},
    settings::DatabaseSettings,
};
