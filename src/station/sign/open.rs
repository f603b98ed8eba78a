//! A connection with a stream on it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    failure::{Break, passing, stream_failure},
    job::{End, Job},
};
use crate::{
    client::{ClientError, Daemon},
    proto::{GetIssuerRequest, IssueReply, IssueRequest, issuance_client::IssuanceClient},
    quote::quoted,
    station::chain::presented_chain,
};

/// How long opening a stream may take.
const OPENING: Duration = Duration::from_secs(10);

/// The issuers' chains by name, where requests go and where replies come from.
type Opened = (HashMap<String, Arc<str>>, mpsc::Sender<IssueRequest>, Streaming<IssueReply>);

/// Connects, learns the issuers' chains (by name, as a device presents them) and opens a stream.
pub(super) async fn open(daemon: &Daemon, job: &Job, again: bool) -> Result<Opened, Break> {
    let channel = daemon.connect().await.map_err(|error| match error {
        ClientError::Connect { lasting: false, .. } => passing(error.to_string()),
        // Something stands in for a daemon that was there before.
        ClientError::NotTls(_) if again => passing(error.to_string()),
        error => End::Failed(error.to_string()).into(),
    })?;
    let silent = |_| passing("the daemon does not answer".to_owned());
    let mut client: IssuanceClient<Channel> = IssuanceClient::new(channel);
    let known = timeout(OPENING, client.get_issuer(GetIssuerRequest {})).await.map_err(silent)?;
    let known = known.map_err(|status| stream_failure(status.into()))?.into_inner();
    if !known.profiles.iter().any(|profile| profile.name == job.profile) {
        let names: Vec<_> = known.profiles.into_iter().map(|profile| profile.name).collect();
        let message = match &names[..] {
            [] => "this station may use no profile of the daemon".to_owned(),
            names => {
                format!("this station may use no profile {}; it may use: {}", quoted(&job.profile), names.join(", "))
            }
        };
        // A changed configuration may be changed back; a hot folder that was served waits for that.
        return Err(if again { passing(message) } else { End::Failed(message).into() });
    }
    let chains = known.issuers.into_iter().map(|issuer| (issuer.name, presented_chain(&issuer.chain).into()));
    let (requests, outgoing) = mpsc::channel(job.window);
    let replies = timeout(OPENING, client.issue(ReceiverStream::new(outgoing))).await.map_err(silent)?;
    let replies = replies.map_err(|status| stream_failure(status.into()))?.into_inner();
    Ok((chains.collect(), requests, replies))
}
