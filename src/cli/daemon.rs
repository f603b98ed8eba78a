//! What commands that ask the daemon one thing have in common.

use birthmark::{client::Connection, proto::admin_client::AdminClient};
use tonic::transport::Channel;

/// The form of the answer, and the daemon to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct DaemonArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

impl DaemonArgs {
    /// Connects.
    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(self.connection.daemon()?.connect().await?)
    }

    /// Connects to the operators' service.
    pub(crate) async fn admin(&self) -> anyhow::Result<AdminClient<Channel>> {
        Ok(AdminClient::new(self.channel().await?))
    }
}
