//! What a run is to do, and how it ends.

use std::{path::PathBuf, time::Duration};

use crate::input::Input;

/// What to sign, under which terms, and where to put it.
#[derive(Clone, Debug)]
pub struct Job {
    /// The production order that devices are charged to; empty without one.
    pub order: String,
    /// The profile of their certificates; empty: that of the order.
    pub profile: String,
    /// The devices' certificates were scrapped or revoked, and they are to have new ones.
    pub reissue: bool,
    /// Where the CSRs are.
    pub input: Input,
    /// The folder for certificates, created if it does not exist; none: they go into the report.
    pub out: Option<PathBuf>,
    /// Also write chain files, or the chain into the report.
    pub chain: bool,
    /// How many requests may be unanswered, at least 1.
    pub window: usize,
    /// How long to wait for a daemon that cannot sign; none: forever.
    pub give_up_after: Option<Duration>,
}

/// How the user stopped the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every device was answered.
    Done,
    /// The user stopped it.
    Stopped(Stop),
    /// Something that concerns all devices is wrong, as one sentence.
    Failed(String),
}
