//! A connection with a stream on it.

use std::{collections::HashMap, time::Duration};

use birthmark_base::quote::quoted;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

use super::{
    options::Options,
    verdict::{Break, passing, stream_failure},
};
use crate::{
    ClientError, Daemon, Error,
    proto::{
        GetIssuerRequest, IssueReply, IssueRequest, IssuedCertificate, Issuer, OrderRequirement, Profile,
        issuance_client::IssuanceClient, issue_reply::Result as Answer,
    },
    request::Chain,
};

/// How long opening a stream may take.
const OPENING: Duration = Duration::from_secs(10);

/// A stream that is open.
pub(super) struct Stream {
    pub(super) chains: Chains,
    pub(super) requests: mpsc::Sender<IssueRequest>,
    pub(super) replies: Streaming<IssueReply>,
}

/// The chains of the issuers that certificates stand for, one for each generation of a name. Those that the daemon does
/// not use any more are asked for when a certificate of them comes.
pub(super) struct Chains {
    client: IssuanceClient<Channel>,
    known: HashMap<(String, u32), Chain>,
}

impl Chains {
    pub(super) fn add(&mut self, Issuer { name, generation, chain, .. }: Issuer) {
        if let Some(chain) = Chain::of(&chain) {
            self.known.insert((name, generation), chain);
        }
    }

    /// The chain of a certificate's issuer, if the daemon has it.
    pub(super) fn of(&self, issued: &IssuedCertificate) -> Option<&Chain> {
        self.known.get(&(issued.issuer.clone(), issued.issuer_generation))
    }

    /// The issuer of a reply's certificate, unless its chain is known.
    pub(super) fn unknown(&self, reply: &IssueReply) -> Option<GetIssuerRequest> {
        let Some(Answer::Issued(issued)) = &reply.result else { return None };
        let of = || GetIssuerRequest { issuer: issued.issuer.clone(), generation: issued.issuer_generation };
        self.of(issued).is_none().then(of)
    }

    /// Asks for an issuer; gives none if the daemon has none: the device is refused then.
    pub(super) fn ask(
        &self,
        issuer: GetIssuerRequest,
    ) -> impl Future<Output = Result<Vec<Issuer>, Break>> + Send + use<> {
        let mut client = self.client.clone();
        async move {
            match timeout(OPENING, client.get_issuer(issuer)).await.map_err(silent)? {
                Ok(reply) => Ok(reply.into_inner().issuers),
                Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => Ok(Vec::new()),
                Err(status) => Err(stream_failure(status.into())),
            }
        }
    }
}

fn silent<T>(_: T) -> Break {
    passing("the daemon does not answer".to_owned())
}

/// Connects, learns the issuers' chains and opens a stream. `again`: the daemon has accepted this session before.
pub(super) async fn open(daemon: Daemon, options: Options, again: bool) -> Result<Stream, Break> {
    let channel = daemon.connect().await.map_err(|error| match error {
        ClientError::Connect { lasting: false, .. } => passing(error.to_string()),
        // Something stands in for a daemon that was there before.
        ClientError::NotTls(_) if again => passing(error.to_string()),
        error => Break::End(error.into()),
    })?;
    let mut client: IssuanceClient<Channel> = IssuanceClient::new(channel);
    let known = timeout(OPENING, client.get_issuer(GetIssuerRequest::default())).await.map_err(silent)?;
    let known = known.map_err(|status| stream_failure(status.into()))?.into_inner();
    if let Some(message) = options.profile.as_ref().and_then(|name| obstacle(name, &options, &known.profiles)) {
        // A changed configuration may be changed back; a hot folder that was served waits for that.
        return Err(if again { passing(message) } else { Break::End(Error::Profile(message)) });
    }
    let mut chains = Chains { client: client.clone(), known: HashMap::new() };
    known.issuers.into_iter().for_each(|issuer| chains.add(issuer));
    let (requests, outgoing) = mpsc::channel(options.window());
    let replies = timeout(OPENING, client.issue(ReceiverStream::new(outgoing))).await.map_err(silent)?;
    let replies = replies.map_err(|status| stream_failure(status.into()))?.into_inner();
    Ok(Stream { chains, requests, replies })
}

/// What keeps all requests from getting a certificate of this profile.
fn obstacle(name: &str, options: &Options, known: &[Profile]) -> Option<String> {
    match known.iter().find(|profile| profile.name == *name) {
        None if known.is_empty() => Some("this station may use no profile of the daemon".to_owned()),
        None => {
            let names: Vec<_> = known.iter().map(|profile| profile.name.as_str()).collect();
            Some(format!("this station may use no profile {}; it may use: {}", quoted(name), names.join(", ")))
        }
        Some(profile) if options.without_order && profile.order_requirement() == OrderRequirement::Required => {
            Some(format!("the profile {} requires an order; name one", quoted(name)))
        }
        Some(_) => None,
    }
}
