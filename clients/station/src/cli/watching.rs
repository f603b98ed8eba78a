//! How a folder is watched.

use std::time::Duration;

use super::shared::duration;

/// The arguments beside `--watch`.
#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// The interval at which --watch looks into the folder
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration, requires = "watch")]
    pub(super) poll: Duration,

    /// How long --watch waits for the rest of a file that is not whole
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, requires = "watch")]
    pub(super) settle: Duration,

    /// For how many days --watch keeps what it moved to done/ and failed/; 0: forever
    #[arg(long, value_name = "DAYS", default_value_t = 365, requires = "watch")]
    pub(super) keep_days: u16,
}
