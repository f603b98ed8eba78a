//! `birthmark events`

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use birthmark::{
    events::{Broker, Credentials, Forms, Settings, Topic, publish},
    id::DeviceId,
};
use clap::value_parser;
use tokio::signal::unix::{SignalKind, signal};

use super::{block_on, daemon::ConnectionArgs};

/// Publish what happens to certificates and orders to an MQTT broker, as JSON and as IPC-CFX messages
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every entry of the ledger becomes messages, published in order with quality of service 1; the cursor, a file, passes \
    an event when the broker has acknowledged all of its messages. After a crash of anything the first that were not acknowledged \
    come again, with the same ids. It runs as an operator or auditor, beside the daemon or elsewhere. docs/events.md has the \
    messages.\n\nExit codes: 0 it was stopped (SIGTERM, SIGINT), or with --once all is published; 1 it cannot go on; 2 wrong usage."
)]
pub(crate) struct Args {
    /// The broker, as mqtts://HOST[:PORT]; mqtt:// to this machine alone
    #[arg(long, value_name = "URL")]
    mqtt: Broker,

    /// The file that says how far events are published; made if it is not there
    #[arg(long, value_name = "FILE")]
    cursor: PathBuf,

    /// Where a new cursor begins: after the event of this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,

    /// Publish plain JSON alone [default: both]
    #[arg(long, conflicts_with = "cfx")]
    json: bool,

    /// Publish IPC-CFX messages alone [default: both]
    #[arg(long)]
    cfx: bool,

    /// The CA of the broker's certificate, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Our certificate for the broker, with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// Its private key, PEM, readable by its owner alone
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Our name for a broker that wants one besides
    #[arg(long, value_name = "NAME")]
    username: Option<String>,

    /// The file with its password, readable by its owner alone
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,

    /// Our client id for the broker; two publishers of one id throw each other out
    #[arg(long, value_name = "ID", default_value = "birthmark-events")]
    client_id: String,

    /// The handle of the endpoint in CFX, as Vendor.Model.SerialNumber
    #[arg(long, value_name = "HANDLE", default_value = "Birthmark.Events.1", value_parser = handle)]
    handle: String,

    /// Where plain JSON goes; may have {event}, {order}, {station} and {handle}
    #[arg(long, value_name = "TOPIC", default_value = "birthmark/events/{event}")]
    json_topic: Topic,

    /// Where CFX messages go; may have {message}, {order}, {station} and {handle}
    #[arg(long, value_name = "TOPIC", default_value = "{handle}/{message}")]
    cfx_topic: Topic,

    /// How often CFX's heartbeat is published; the standard wants it every 5 minutes at least
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u64).range(1..=300))]
    heartbeat: u64,

    /// How many messages may be on their way without an acknowledgement
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u16).range(1..=1000))]
    in_flight: u16,

    /// End when all that there is, is published
    #[arg(long)]
    once: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let daemon = args.connection.daemon()?;
    let settings = Settings {
        broker: args.mqtt,
        credentials: Credentials {
            ca: args.ca,
            certificate: args.cert,
            key: args.key,
            username: args.username,
            password: args.password_file,
        },
        client_id: args.client_id,
        forms: Forms { json: !args.cfx, cfx: !args.json },
        handle: args.handle,
        json_topic: args.json_topic,
        cfx_topic: args.cfx_topic,
        heartbeat: Duration::from_secs(args.heartbeat),
        in_flight: usize::from(args.in_flight),
        cursor: args.cursor,
        after: args.after,
        once: args.once,
    };
    block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        publish(settings, daemon, stop, Arc::new(|text: &str| eprintln!("birthmark: {text}"))).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// A handle is a level of a topic.
fn handle(text: &str) -> Result<String, String> {
    DeviceId::check(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}
