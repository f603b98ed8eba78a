//! The daemon as stations meet it.

use std::fs;

use tonic::Code;

use crate::support::{
    fixtures::{Good, fixture, good},
    site::{Answer, IssueStream, Site, csr, judge, request},
};

/// CSRs of foreign programs become certificates that foreign programs verify.
#[tokio::test(flavor = "multi_thread")]
async fn csr_of_foreign_program_gets_what_foreign_programs_verify() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 100);
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let mut certificates = Vec::new();
    for Good { file, asks_ca, .. } in good() {
        let device = file.replace('.', "-");
        let csr = fs::read(fixture("csr").join(&file)).unwrap();
        let issued = stream.ask(request(&device, "o1", csr)).await.issued();
        assert!(!issued.replay && issued.issuer == "main" && issued.serial_number.len() == 20, "{file}");

        let path = site.path(&format!("{device}.pem"));
        fs::write(&path, pem::encode(&pem::Pem::new("CERTIFICATE", issued.certificate.to_vec()))).unwrap();
        let shown = site.token.openssl(&["x509", "-in", path.to_str().unwrap(), "-noout", "-text"]);
        assert!(shown.contains("CA:FALSE"), "{file} (asks to be a CA: {asks_ca})");
        assert!(!shown.contains("Certificate Sign") && !shown.contains("DNS:"), "{file}: {shown}");
        assert!(shown.contains(&format!("Subject: O = Acme, CN = {device}")), "{file}: {shown}");
        certificates.push(path);
    }
    assert!(good().iter().any(|fixture| fixture.asks_ca));
    for name in ["openssl", "gnutls", "go", "python"] {
        judge(&site, name, &certificates);
    }
    daemon.end();
}

/// A retry gives the same bytes and costs nothing, also after a crash (invariant 4).
#[tokio::test(flavor = "multi_thread")]
async fn retry_gives_the_same_bytes_also_after_a_crash() {
    let site = Site::new();
    let mut daemon = site.start();
    site.create_order("o1", 2);
    let again = request("d1", "o1", csr("d1"));
    let mut stream = site.stream(&daemon, "line1/t1").await;
    let first = stream.ask(again.clone()).await.issued();
    let second = stream.ask(again.clone()).await.issued();
    assert!(!first.replay && second.replay);
    assert_eq!(first.certificate, second.certificate);
    daemon.kill();

    let daemon = site.start();
    let mut stream = site.stream(&daemon, "line2/t9").await;
    let third = stream.ask(again).await.issued();
    assert!(third.replay);
    assert_eq!(first.certificate, third.certificate);
    assert_eq!(site.order("o1")["issued"], 1);
    daemon.end();
}

/// Every refusal has its code and reason, and the stream goes on.
#[tokio::test(flavor = "multi_thread")]
async fn refusal_has_its_code_and_reason_and_the_stream_goes_on() {
    let site = Site::new();
    site.configure(|usual| {
        usual
            + "\n[profiles.strict]\nissuer = \"main\"\nkey_types = [\"p384\"]\nsubject = [\"CN={device_id}\"]\n\
               csr_subject = \"cn-is-device-id\"\nvalidity_days = 30\nstations = [\"line9/*\"]\n"
    });
    let daemon = site.start();
    for (id, quantity) in [("o1", 50), ("small", 1), ("closed", 5)] {
        site.create_order(id, quantity);
    }
    crate::support::token::succeeded(&site.operator(&["order", "close", "closed"]));
    let created = |arguments: &[&str]| crate::support::token::succeeded(&site.operator(arguments));
    created(&["order", "create", "strict", "--profile", "strict", "--quantity", "9"]);
    created(&[
        "order",
        "create",
        "later",
        "--profile",
        "device",
        "--quantity",
        "9",
        "--not-before",
        "2999-01-01T00:00:00Z",
    ]);
    created(&["order", "create", "line7", "--profile", "device", "--quantity", "9", "--station", "line7/*"]);

    let mut stream = site.stream(&daemon, "line9/t1").await;
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let bound = csr("bound");
    stream.ask(request("bound", "o1", bound.clone())).await.issued();
    stream.ask(request("last", "small", csr("last"))).await.issued();

    let profile = |name: &str, device: &str, csr: Vec<u8>| {
        let order = if name == "strict" { "strict" } else { "o1" };
        birthmark::proto::IssueRequest { profile: name.into(), ..request(device, order, csr) }
    };
    let cases = [
        (request("", "o1", csr("x")), Code::InvalidArgument, "REQUEST_INVALID"),
        (request("../x", "o1", csr("x")), Code::InvalidArgument, "REQUEST_INVALID"),
        (request(&"x".repeat(129), "o1", csr("x")), Code::InvalidArgument, "REQUEST_INVALID"),
        (request(&"x".repeat(128), "o1", csr("x")), Code::PermissionDenied, "SUBJECT_REFUSED"),
        (request("d1", "o1", vec![]), Code::InvalidArgument, "CSR_MALFORMED"),
        (request("d1", "o1", vec![0x30; 300]), Code::InvalidArgument, "CSR_MALFORMED"),
        (request("d1", "o1", vec![0x30; 900_000]), Code::InvalidArgument, "CSR_MALFORMED"),
        (request("d1", "none", csr("d1")), Code::NotFound, "ORDER_UNKNOWN"),
        (request("d1", "closed", csr("d1")), Code::FailedPrecondition, "ORDER_CLOSED"),
        (request("d1", "later", csr("d1")), Code::FailedPrecondition, "ORDER_OUTSIDE_WINDOW"),
        (request("d1", "line7", csr("d1")), Code::PermissionDenied, "STATION_REFUSED"),
        (request("d1", "small", csr("d1")), Code::ResourceExhausted, "ORDER_EXHAUSTED"),
        (request("d1", "o1", bound.clone()), Code::AlreadyExists, "KEY_REUSED"),
        (request("bound", "o1", csr("bound")), Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE"),
        (request("bound", "small", bound), Code::AlreadyExists, "DEVICE_HAS_CERTIFICATE"),
        (profile("none", "d1", csr("d1")), Code::NotFound, "PROFILE_UNKNOWN"),
        (request("d1", "strict", csr("d1")), Code::PermissionDenied, "PROFILE_REFUSED"),
        (profile("strict", "d1", csr("d1")), Code::InvalidArgument, "KEY_UNSUPPORTED"),
        (profile("strict", "d1", crate::support::site::csr_of(&p384, "d2")), Code::PermissionDenied, "SUBJECT_REFUSED"),
    ];
    for (request, code, reason) in cases {
        stream.ask(request).await.must_be(code, reason);
        assert!(daemon.metric("birthmark_refusals_total", &[&format!("reason=\"{reason}\"")]) >= 1.0, "{reason}");
    }
    // The stream is as good as new.
    stream.ask(profile("strict", "d1", crate::support::site::csr_of(&p384, "d1"))).await.issued();
    let other = site.stream(&daemon, "line1/t1").await;
    let mut other = other;
    other.ask(profile("strict", "d3", csr("d3"))).await.must_be(Code::PermissionDenied, "STATION_REFUSED");
    assert!(other.finish().await.unwrap().is_empty());

    // Beyond what is read at all, the stream ends, and only this stream.
    other = site.stream(&daemon, "line1/t1").await;
    other.send(request("huge", "o1", vec![0x30; 2_000_000])).await;
    assert_eq!(other.receive().await.unwrap_err().code(), Code::OutOfRange);
    stream.ask(request("after", "o1", csr("after"))).await.issued();
    assert!(!site.log().contains("panicked"), "{}", site.log());
    daemon.end();
}

/// A peer of another role may not call.
#[tokio::test(flavor = "multi_thread")]
async fn role_of_another_kind_may_not_call() {
    let site = Site::new();
    let daemon = site.start();
    site.create_order("o1", 5);
    for (role, name) in [("operator", "alice"), ("auditor", "bob")] {
        let channel = site.connect(&daemon, role, name).await;
        let refused = match IssueStream::open(channel).await {
            Err(status) => status,
            Ok(_) => panic!("a stream for an {role}"),
        };
        Answer::of_call(&refused).must_be(Code::PermissionDenied, "ROLE_REQUIRED");
    }
    use birthmark::proto::{
        AcknowledgeBatchRequest, CloseOrderRequest, ConfirmRequest, CreateBatchRequest, CreateOrderRequest,
        GetBundleRequest, GetExportRequest, GetIssuerRequest, GetOrderRequest, GetRecordRequest, ListBatchesRequest,
        ListExportsRequest, ListIssuersRequest, ListOrdersRequest, ListRecordsRequest, PlanBatchRequest,
        RevokeCertificateRequest, ScrapCertificateRequest, admin_client::AdminClient, issuance_client::IssuanceClient,
    };
    let order = GetOrderRequest { id: "o1".into() };
    let close = CloseOrderRequest { id: "o1".into() };
    let mut auditor = AdminClient::new(site.connect(&daemon, "auditor", "bob").await);
    assert!(auditor.get_order(order.clone()).await.is_ok());
    assert!(auditor.list_orders(ListOrdersRequest {}).await.is_ok());
    let denied = [
        auditor.close_order(close.clone()).await.unwrap_err(),
        auditor.create_order(CreateOrderRequest::default()).await.unwrap_err(),
        auditor.scrap_certificate(ScrapCertificateRequest::default()).await.unwrap_err(),
        auditor.revoke_certificate(RevokeCertificateRequest::default()).await.unwrap_err(),
        auditor.create_batch(CreateBatchRequest::default()).await.unwrap_err(),
        auditor.acknowledge_batch(tokio_stream::iter([AcknowledgeBatchRequest::default()])).await.unwrap_err(),
        IssuanceClient::new(site.connect(&daemon, "auditor", "bob").await)
            .confirm(ConfirmRequest::default())
            .await
            .unwrap_err(),
    ];
    assert!(auditor.list_records(ListRecordsRequest { order: "o1".into() }).await.is_ok());
    assert_eq!(auditor.list_issuers(ListIssuersRequest {}).await.unwrap().into_inner().issuers.len(), 1);
    assert!(auditor.list_exports(ListExportsRequest { order: "o1".into() }).await.is_ok());
    let mut station = AdminClient::new(site.connect(&daemon, "station", "line1/t1").await);
    // Its own orders it may read.
    assert!(station.get_order(order.clone()).await.is_ok());
    assert!(station.list_orders(ListOrdersRequest {}).await.is_ok());
    let all = [
        station.close_order(close.clone()).await.unwrap_err(),
        station.create_order(CreateOrderRequest::default()).await.unwrap_err(),
        station.get_record(GetRecordRequest::default()).await.unwrap_err(),
        station.list_records(ListRecordsRequest { order: "o1".into() }).await.unwrap_err(),
        station.scrap_certificate(ScrapCertificateRequest::default()).await.unwrap_err(),
        station.revoke_certificate(RevokeCertificateRequest::default()).await.unwrap_err(),
        station.create_batch(CreateBatchRequest::default()).await.unwrap_err(),
        station.plan_batch(PlanBatchRequest::default()).await.unwrap_err(),
        station.list_batches(ListBatchesRequest::default()).await.unwrap_err(),
        station.get_bundle(GetBundleRequest { id: "cloud.0001".into() }).await.unwrap_err(),
        station.list_exports(ListExportsRequest { order: "o1".into() }).await.unwrap_err(),
        station.get_export(GetExportRequest { id: "o1.0001".into() }).await.unwrap_err(),
        station.list_issuers(ListIssuersRequest {}).await.unwrap_err(),
        station.acknowledge_batch(tokio_stream::iter([AcknowledgeBatchRequest::default()])).await.unwrap_err(),
    ];
    for status in denied.iter().chain(&all) {
        Answer::of_call(status).must_be(Code::PermissionDenied, "ROLE_REQUIRED");
    }
    let mut operator = AdminClient::new(site.connect(&daemon, "operator", "alice").await);
    assert!(operator.close_order(close).await.unwrap().into_inner().closed);
    let issuers = IssuanceClient::new(site.connect(&daemon, "auditor", "bob").await)
        .get_issuer(GetIssuerRequest::default())
        .await;
    assert_eq!(issuers.unwrap().into_inner().issuers[0].chain.len(), 2);
    daemon.end();
}

/// Of many at once one wins a key, a device, and the last unit of an order.
#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_have_one_winner_for_key_device_and_unit() {
    let site = Site::new();
    let daemon = site.start();
    let rounds = 300;
    site.create_order("plenty", 10 * rounds);
    let mut one = site.stream(&daemon, "line1/t1").await;
    let mut two = site.stream(&daemon, "line1/t2").await;
    for round in 0..rounds {
        // The same device with two keys.
        let device = format!("device-{round}");
        let racers = [request(&device, "plenty", csr("a")), request(&device, "plenty", csr("b"))];
        race(&mut one, &mut two, racers, "DEVICE_HAS_CERTIFICATE").await;

        // The same key for two devices.
        let shared = csr("shared");
        let racers = ["x", "y"].map(|name| request(&format!("{name}-{round}"), "plenty", shared.clone()));
        race(&mut one, &mut two, racers, "KEY_REUSED").await;

        // The same request twice: both get the one certificate.
        let same = request(&format!("same-{round}"), "plenty", csr("same"));
        one.send(same.clone()).await;
        two.send(same).await;
        let [first, second] =
            [one.receive().await, two.receive().await].map(|reply| Answer::of(reply.unwrap().unwrap()).issued());
        assert_eq!(first.certificate, second.certificate);
        assert!(first.replay != second.replay);
    }
    assert_eq!(site.order("plenty")["issued"], 3 * rounds);

    // The last unit of an order, many times.
    for round in 0..50 {
        let order = format!("one-{round}");
        site.create_order(&order, 1);
        let racers = ["p", "q"].map(|name| request(&format!("{name}-{round}"), &order, csr(name)));
        race(&mut one, &mut two, racers, "ORDER_EXHAUSTED").await;
        assert_eq!(site.order(&order)["left"], 0);
    }
    daemon.end();
}

/// Sends both at once; exactly one must be issued, the other refused for this reason.
async fn race(
    one: &mut IssueStream,
    two: &mut IssueStream,
    [first, second]: [birthmark::proto::IssueRequest; 2],
    reason: &str,
) {
    tokio::join!(one.send(first), two.send(second));
    let answers = [one.receive().await, two.receive().await].map(|reply| Answer::of(reply.unwrap().unwrap()));
    let (issued, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| matches!(answer, Answer::Issued(_)));
    assert_eq!(issued.len(), 1, "{answers:?}");
    match refused[0] {
        Answer::Refused { reason: found, .. } => assert_eq!(found, reason),
        Answer::Issued(_) => unreachable!(),
    }
}
