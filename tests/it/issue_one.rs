//! One certificate by one call, as simple testers ask for it.

use std::time::Duration;

use birthmark::proto::{
    ConfirmRequest, IssueReply, IssueRequest, issuance_client::IssuanceClient, issue_reply::Result,
};
use tonic::{Code, Request};

use crate::support::site::{Answer, Site, csr, request};

fn issued(reply: &IssueReply) -> &birthmark::proto::IssuedCertificate {
    match &reply.result {
        Some(Result::Issued(issued)) => issued,
        other => panic!("{other:?}"),
    }
}

/// The same certificate as on a stream, with the chain that was asked for, and refusals with their reason in plain text.
#[tokio::test(flavor = "multi_thread")]
async fn single_call_answers_as_a_stream_does() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 1);
    let mut client = IssuanceClient::new(site.connect(&daemon, "station", "line1/t1").await);
    let wanted = IssueRequest { with_chain: true, ..request("d1", "o1", csr("d1")) };
    let first = client.issue_one(wanted.clone()).await.unwrap().into_inner();
    assert_eq!((first.request_id.as_str(), first.reason.as_str(), first.retry_after), ("d1", "", None));
    let issuers = client.get_issuer(birthmark::proto::GetIssuerRequest::default()).await.unwrap().into_inner().issuers;
    assert_eq!(issued(&first).chain, issuers[0].chain);

    let mut stream = site.stream(&daemon, "line1/t2").await;
    let again = stream.ask(IssueRequest { with_chain: false, ..wanted }).await.issued();
    assert_eq!((again.replay, again.chain.len()), (true, 0));
    assert_eq!(again.certificate, issued(&first).certificate);

    let refused = client.issue_one(request("d2", "o1", csr("d2"))).await.unwrap().into_inner();
    assert_eq!((refused.reason.as_str(), refused.retry_after), ("ORDER_EXHAUSTED", None));
    Answer::of(refused).must_be(Code::ResourceExhausted, "ORDER_EXHAUSTED");

    let serial_numbers = vec![issued(&first).serial_number.clone(), vec![1].into()];
    let confirmed =
        client.confirm(ConfirmRequest { serial_numbers, ..Default::default() }).await.unwrap().into_inner().results;
    assert_eq!(confirmed.iter().map(|result| result.reason.as_str()).collect::<Vec<_>>(), ["", "REQUEST_INVALID"]);

    let mut operator = IssuanceClient::new(site.connect(&daemon, "operator", "anna").await);
    let refused = operator.issue_one(request("d3", "o1", csr("d3"))).await.unwrap_err();
    Answer::of_call(&refused).must_be(Code::PermissionDenied, "ROLE_REQUIRED");
    daemon.end();
}

/// What may pass says after which time, in plain fields.
#[tokio::test(flavor = "multi_thread")]
async fn single_call_that_may_succeed_later_says_when() {
    let site = Site::new();
    site.configure(|text| {
        let text = text.replace("[ledger]\n", "[ledger]\nmin_free_mib = 4294967295\n");
        text.replace("validity_days = 7300", "validity_days = 7300\norder_requirement = \"optional\"")
    });
    let daemon = site.start();
    let mut client = IssuanceClient::new(site.connect(&daemon, "station", "line1/t1").await);
    let refused = client.issue_one(request("d1", "", csr("d1"))).await.unwrap().into_inner();
    assert_eq!(refused.reason, "STORAGE_LOW");
    assert!(refused.retry_after.is_some_and(|after| after.seconds > 0), "{refused:?}");
    daemon.end();
}

/// A call whose deadline has passed leaves nothing behind but the certificate that the next one gives (invariant 4).
#[tokio::test(flavor = "multi_thread")]
async fn single_call_given_up_is_answered_when_made_again() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 1);
    let mut client = IssuanceClient::new(site.connect(&daemon, "station", "line1/t1").await);
    let wanted = request("d1", "o1", csr("d1"));
    for micros in [1, 500, 1000, 2000, 4000] {
        let mut call = Request::new(wanted.clone());
        call.set_timeout(Duration::from_micros(micros));
        if let Err(status) = client.issue_one(call).await {
            assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status}");
        }
    }
    let first = client.issue_one(wanted.clone()).await.unwrap().into_inner();
    let second = client.issue_one(wanted).await.unwrap().into_inner();
    assert_eq!(issued(&first).certificate, issued(&second).certificate);
    assert_eq!(site.order("o1")["issued"], 1);
    daemon.end();
}
