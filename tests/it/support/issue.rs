//! Requests, replies, and the stream that carries them.

use base64::{Engine, prelude::BASE64_STANDARD};
use birthmark::proto::{IssueReply, IssueRequest, issuance_client::IssuanceClient, issue_reply::Result as Reply};
use prost::Message;
use rcgen::{CertificateParams, DnType, KeyPair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use tonic_types::{RpcStatusExt, pb};

use birthmark_bench::process::PATIENCE;

/// A station's stream, request by request.
pub(crate) struct IssueStream {
    requests: mpsc::Sender<IssueRequest>,
    replies: Streaming<IssueReply>,
}

impl IssueStream {
    pub(crate) async fn open(channel: Channel) -> Result<IssueStream, Status> {
        let (requests, receiver) = mpsc::channel(1024);
        let replies = IssuanceClient::new(channel).issue(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(IssueStream { requests, replies })
    }

    pub(crate) async fn send(&self, request: IssueRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// As [`IssueStream::send`], but the daemon may be gone.
    pub(crate) async fn try_send(&self, request: IssueRequest) -> Result<(), ()> {
        self.requests.send(request).await.map_err(drop)
    }

    /// The next reply, or the stream's end.
    pub(crate) async fn receive(&mut self) -> Result<Option<IssueReply>, Status> {
        tokio::time::timeout(PATIENCE, self.replies.message()).await.expect("no reply")
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn ask(&mut self, request: IssueRequest) -> Answer {
        let id = request.request_id.clone();
        self.send(request).await;
        let reply = self.receive().await.unwrap().expect("the stream ended");
        assert_eq!(reply.request_id, id);
        Answer::of(reply)
    }

    /// No more requests; the daemon answers what it has and ends the stream.
    pub(crate) async fn finish(self) -> Result<Vec<IssueReply>, Status> {
        let IssueStream { requests, mut replies } = self;
        drop(requests);
        let mut rest = Vec::new();
        while let Some(reply) = tokio::time::timeout(PATIENCE, replies.message()).await.expect("no end")? {
            rest.push(reply);
        }
        Ok(rest)
    }
}

/// A reply: the certificate, or code and reason.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Issued(birthmark::proto::IssuedCertificate),
    Refused { code: tonic::Code, reason: String, message: String, retry: bool },
}

impl Answer {
    pub(crate) fn of(reply: IssueReply) -> Answer {
        match reply.result.expect("a reply without result") {
            Reply::Issued(issued) => Answer::Issued(issued),
            Reply::Error(status) => Answer::of_status(&status),
        }
    }

    pub(crate) fn of_status(status: &pb::Status) -> Answer {
        let details = status.get_error_details();
        let info = details.error_info().expect("an error without ErrorInfo");
        assert_eq!(info.domain, "birthmark");
        Answer::Refused {
            code: tonic::Code::from(status.code),
            reason: info.reason.clone(),
            message: status.message.clone(),
            retry: details.retry_info().is_some(),
        }
    }

    /// The status that ended a call.
    pub(crate) fn of_call(status: &Status) -> Answer {
        Answer::of_status(&pb::Status::decode(status.details()).unwrap())
    }

    #[track_caller]
    pub(crate) fn issued(self) -> birthmark::proto::IssuedCertificate {
        match self {
            Answer::Issued(issued) => issued,
            Answer::Refused { reason, message, .. } => panic!("{reason}: {message}"),
        }
    }

    #[track_caller]
    pub(crate) fn must_be(&self, expected: tonic::Code, expected_reason: &str) {
        match self {
            Answer::Refused { code, reason, .. } if *code == expected && reason == expected_reason => {}
            other => panic!("{other:?} instead of {expected:?} {expected_reason}"),
        }
    }
}

/// A new P-256 CSR with this CN, DER.
pub(crate) fn csr(name: &str) -> Vec<u8> {
    csr_of(&KeyPair::generate().unwrap(), name)
}

/// A CSR of this key with this CN, DER.
pub(crate) fn csr_of(key: &KeyPair, name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serialize_request(key).unwrap().der().to_vec()
}

/// A line of JSON lines, as `station sign` reads them.
pub(crate) fn json_line(device: &str, csr: &[u8]) -> String {
    serde_json::json!({ "device_id": device, "csr": BASE64_STANDARD.encode(csr) }).to_string() + "\n"
}

/// A request under the profile `device`; its id is the device's.
pub(crate) fn request(device: &str, order: &str, csr: Vec<u8>) -> IssueRequest {
    IssueRequest {
        request_id: device.chars().take(64).collect(),
        device_id: device.to_owned(),
        order: order.to_owned(),
        profile: "device".to_owned(),
        csr: csr.into(),
        reissue: false,
        with_chain: false,
    }
}
