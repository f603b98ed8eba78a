//! A connection with a stream on it, and what it means if there is none.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

use super::{Break, End, Job, LONGEST_RETRY, Trouble};
use crate::{
    client::{ClientError, Daemon, Failure},
    proto::{GetIssuerRequest, IssueReply, IssueRequest, issuance_client::IssuanceClient},
    quote::quoted,
    station::output::presented_chain,
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
        // Whoever changes the daemon's configuration may change it back; a hot folder that was served waits for that.
        return Err(if again { passing(message) } else { End::Failed(message).into() });
    }
    let chains = known.issuers.into_iter().map(|issuer| (issuer.name, presented_chain(&issuer.chain).into()));
    let (requests, outgoing) = mpsc::channel(job.window);
    let replies = timeout(OPENING, client.issue(ReceiverStream::new(outgoing))).await.map_err(silent)?;
    let replies = replies.map_err(|status| stream_failure(status.into()))?.into_inner();
    Ok((chains.collect(), requests, replies))
}

/// Whether a failed call or stream is worth another try.
pub(super) fn stream_failure(failure: Failure) -> Break {
    if failure.certificate_refused {
        return End::Failed(failure.to_string()).into();
    }
    match failure.code {
        Code::PermissionDenied | Code::Unauthenticated => {
            let hint = "signing needs the identity of a station (see \"birthmark station enroll\")";
            End::Failed(format!("the daemon does not let this peer sign: {failure}; {hint}")).into()
        }
        Code::Unimplemented => End::Failed(format!("this is not a Birthmark daemon: {failure}")).into(),
        Code::Unavailable
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DeadlineExceeded => Break::Trouble(Trouble {
            retry_after: failure.retry_after.unwrap_or_default().min(LONGEST_RETRY),
            vague: failure.reason.is_none(),
            message: failure.to_string(),
        }),
        // Too many streams of this station, for example.
        _ if failure.retry_after.is_some() => Break::Trouble(Trouble {
            retry_after: failure.retry_after.unwrap_or_default().min(LONGEST_RETRY),
            vague: false,
            message: format!("the daemon opens no stream now: {failure}"),
        }),
        _ => End::Failed(format!("the daemon refuses the stream: {failure}")).into(),
    }
}

pub(super) fn passing(message: String) -> Break {
    Break::Trouble(Trouble { message, retry_after: Duration::ZERO, vague: false })
}
