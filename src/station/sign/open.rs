//! A connection with a stream on it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

use super::{
    failure::{Break, passing, stream_failure},
    job::{End, Job},
};
use crate::{
    client::{ClientError, Daemon},
    proto::{
        GetIssuerRequest, IssueReply, IssueRequest, IssuedCertificate, Issuer, issuance_client::IssuanceClient,
        issue_reply::Result as Answer,
    },
    quote::quoted,
    station::chain::presented_chain,
};

/// How long opening a stream may take.
const OPENING: Duration = Duration::from_secs(10);

/// The issuers' chains, where requests go and where replies come from.
type Opened = (Chains, mpsc::Sender<IssueRequest>, Streaming<IssueReply>);

/// The chains of the issuers that certificates stand for, one for each generation of a name. Those that the daemon does
/// not use any more are asked for when a certificate of them comes.
pub(super) struct Chains {
    client: IssuanceClient<Channel>,
    known: HashMap<(String, u32), Chain>,
}

/// An issuer's chain.
pub(super) struct Chain {
    /// The issuing CA's certificate, DER.
    pub(super) ca: Bytes,
    /// What a device presents after its own certificate, as PEM.
    pub(super) presented: Arc<str>,
}

impl Chains {
    fn add(&mut self, Issuer { name, generation, chain, .. }: Issuer) {
        let presented = presented_chain(&chain).into();
        if let Some(ca) = chain.into_iter().next() {
            self.known.insert((name, generation), Chain { ca, presented });
        }
    }

    /// The chain of a certificate's issuer, if the daemon has it.
    pub(super) fn of(&self, issued: &IssuedCertificate) -> Option<&Chain> {
        self.known.get(&(issued.issuer.clone(), issued.issuer_generation))
    }

    /// Asks for the chain of a reply's certificate, unless it is known.
    pub(super) async fn learn(&mut self, reply: &IssueReply) -> Result<(), Break> {
        let Some(Answer::Issued(issued)) = &reply.result else { return Ok(()) };
        if self.of(issued).is_some() {
            return Ok(());
        }
        let request = GetIssuerRequest { issuer: issued.issuer.clone(), generation: issued.issuer_generation };
        let asked = timeout(OPENING, self.client.get_issuer(request)).await.map_err(silent)?;
        match asked {
            Ok(reply) => reply.into_inner().issuers.into_iter().for_each(|issuer| self.add(issuer)),
            // The device is refused then.
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {}
            Err(status) => return Err(stream_failure(status.into())),
        }
        Ok(())
    }
}

fn silent<T>(_: T) -> Break {
    passing("the daemon does not answer".to_owned())
}

/// Connects, learns the issuers' chains and opens a stream.
pub(super) async fn open(daemon: &Daemon, job: &Job, again: bool) -> Result<Opened, Break> {
    let channel = daemon.connect().await.map_err(|error| match error {
        ClientError::Connect { lasting: false, .. } => passing(error.to_string()),
        // Something stands in for a daemon that was there before.
        ClientError::NotTls(_) if again => passing(error.to_string()),
        error => End::Failed(error.to_string()).into(),
    })?;
    let mut client: IssuanceClient<Channel> = IssuanceClient::new(channel);
    let known = timeout(OPENING, client.get_issuer(GetIssuerRequest::default())).await.map_err(silent)?;
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
    let mut chains = Chains { client: client.clone(), known: HashMap::new() };
    known.issuers.into_iter().for_each(|issuer| chains.add(issuer));
    let (requests, outgoing) = mpsc::channel(job.window);
    let replies = timeout(OPENING, client.issue(ReceiverStream::new(outgoing))).await.map_err(silent)?;
    let replies = replies.map_err(|status| stream_failure(status.into()))?.into_inner();
    Ok((chains, requests, replies))
}
