//! What commands that speak with the daemon have in common.

use std::path::PathBuf;

use birthmark_client::{ClientError, Connection, Daemon, MarkedChannel, proto::admin_client::AdminClient};

/// Which daemon to speak with and as whom.
// The environment is read by the library and not by clap: a flag must win over the other flag's variable instead of
// conflicting with it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// The daemon's address, as https://HOST:PORT; needs --identity. Of several daemons that serve one ledger, each; with commas in
    /// the variable [env: BIRTHMARK_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    server: Vec<String>,

    /// A folder with cert.pem, key.pem and ca.pem, as "birthmark station enroll" makes it [env: BIRTHMARK_IDENTITY]
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    identity: Option<PathBuf>,

    /// The daemon's Unix socket, for operators on its machine [env: BIRTHMARK_SOCKET] [default: /run/birthmark/admin.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl ConnectionArgs {
    /// As the client's library has it.
    pub fn connection(&self) -> Connection {
        let ConnectionArgs { server, identity, socket } = self.clone();
        let server = (!server.is_empty()).then(|| server.join(","));
        Connection { server, identity, socket }
    }

    /// The daemon that the flags and the environment name.
    ///
    /// # Errors
    /// If they name none, or its identity cannot be used.
    pub fn daemon(&self) -> Result<Daemon, ClientError> {
        self.connection().daemon()
    }
}

/// The form of the answer, and the daemon to ask.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The daemon.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

impl DaemonArgs {
    /// Connects; on the standard error it is said when an answer is of an earlier moment.
    ///
    /// # Errors
    /// As [`ConnectionArgs::daemon`], or that there is no connection.
    pub async fn channel(&self) -> anyhow::Result<MarkedChannel> {
        let channel = self.connection.daemon()?.connect().await?;
        Ok(MarkedChannel::new(channel, |moment| {
            eprintln!(
                "birthmark: as of {moment}: what others have written since cannot be seen, the ledger's database is away"
            );
        }))
    }

    /// Connects to the operators' service.
    ///
    /// # Errors
    /// As [`DaemonArgs::channel`].
    pub async fn admin(&self) -> anyhow::Result<AdminClient<MarkedChannel>> {
        Ok(AdminClient::new(self.channel().await?))
    }
}
