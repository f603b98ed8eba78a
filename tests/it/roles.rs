//! The table of roles and calls, cell by cell, against the daemon; and the role of the Unix socket.

use birthmark::{
    client::Connection,
    identity::{Duties, Duty, Role},
    proto::{
        AcknowledgeBatchRequest, CancelCodeRequest, ChangeOrderRequest, CheckRequest, CloseOrderRequest,
        ConfirmRequest, CreateBatchRequest, CreateCodesRequest, CreateOrderRequest, EnrollRequest, GetBundleRequest,
        GetExportRequest, GetIssuerRequest, GetOrderRequest, GetRecordRequest, GrantApprovalRequest, HistoryRequest,
        ImportRequest, IssueRequest, ListApprovalsRequest, ListAuditRequest, ListBatchesRequest, ListCodesRequest,
        ListExportsRequest, ListIssuersRequest, ListOrderDevicesRequest, ListOrdersRequest, ListRecordsRequest,
        ListStationsRequest, MakeCheckpointRequest, PauseOrderRequest, PlanBatchRequest, ProvePossessionRequest,
        ReloadRequest, RenewRequest, ResumeOrderRequest, RetryHsmRequest, RevokeCertificateRequest,
        RevokeCertificatesRequest, RevokeStationRequest, ScrapCertificateRequest, SupersedeRequest, WatchRequest,
        admin_client::AdminClient, approvals_client::ApprovalsClient, audit_client::AuditClient,
        issuance_client::IssuanceClient, stations_client::StationsClient, vending_client::VendingClient,
    },
    roles::{Call, TABLE},
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::support::{
    site::Site,
    token::{refused, succeeded},
};

/// Makes a call as emptily as it can be made: it changes nothing, and what answers it is not asked.
async fn make(call: Call, channel: Channel) -> Result<(), Status> {
    let mut issuance = IssuanceClient::new(channel.clone());
    let mut admin = AdminClient::new(channel.clone());
    let mut audit = AuditClient::new(channel.clone());
    let mut approvals = ApprovalsClient::new(channel.clone());
    let mut stations = StationsClient::new(channel.clone());
    let mut vending = VendingClient::new(channel);
    match call {
        Call::Issue => issuance.issue(tokio_stream::empty()).await.map(drop),
        Call::IssueOne => issuance.issue_one(IssueRequest::default()).await.map(drop),
        Call::Confirm => issuance.confirm(ConfirmRequest::default()).await.map(drop),
        Call::GetIssuer => issuance.get_issuer(GetIssuerRequest::default()).await.map(drop),
        Call::CreateOrder => admin.create_order(CreateOrderRequest::default()).await.map(drop),
        Call::GetOrder => admin.get_order(GetOrderRequest::default()).await.map(drop),
        Call::ListOrders => admin.list_orders(ListOrdersRequest::default()).await.map(drop),
        Call::CloseOrder => admin.close_order(CloseOrderRequest::default()).await.map(drop),
        Call::ChangeOrder => admin.change_order(ChangeOrderRequest::default()).await.map(drop),
        Call::PauseOrder => admin.pause_order(PauseOrderRequest::default()).await.map(drop),
        Call::ResumeOrder => admin.resume_order(ResumeOrderRequest::default()).await.map(drop),
        Call::AddOrderDevices => admin.add_order_devices(tokio_stream::empty()).await.map(drop),
        Call::ListOrderDevices => admin.list_order_devices(ListOrderDevicesRequest::default()).await.map(drop),
        Call::GetRecord => admin.get_record(GetRecordRequest::default()).await.map(drop),
        Call::ListRecords => admin.list_records(ListRecordsRequest::default()).await.map(drop),
        Call::ScrapCertificate => admin.scrap_certificate(ScrapCertificateRequest::default()).await.map(drop),
        Call::RevokeCertificate => admin.revoke_certificate(RevokeCertificateRequest::default()).await.map(drop),
        Call::RevokeCertificates => {
            let requests = tokio_stream::iter([RevokeCertificatesRequest::default()]);
            admin.revoke_certificates(requests).await.map(drop)
        }
        Call::PlanBatch => admin.plan_batch(PlanBatchRequest::default()).await.map(drop),
        Call::CreateBatch => admin.create_batch(CreateBatchRequest::default()).await.map(drop),
        Call::ListBatches => admin.list_batches(ListBatchesRequest::default()).await.map(drop),
        Call::GetBundle => admin.get_bundle(GetBundleRequest::default()).await.map(drop),
        Call::AcknowledgeBatch => {
            let requests = tokio_stream::iter([AcknowledgeBatchRequest::default()]);
            admin.acknowledge_batch(requests).await.map(drop)
        }
        Call::ListExports => admin.list_exports(ListExportsRequest::default()).await.map(drop),
        Call::GetExport => admin.get_export(GetExportRequest::default()).await.map(drop),
        Call::ListIssuers => admin.list_issuers(ListIssuersRequest::default()).await.map(drop),
        // A signer that does not exist.
        Call::RetryHsm => {
            let request = RetryHsmRequest { signer: "none".into(), ..RetryHsmRequest::default() };
            admin.retry_hsm(request).await.map(drop)
        }
        Call::MakeCheckpoint => admin.make_checkpoint(MakeCheckpointRequest {}).await.map(drop),
        Call::Watch => admin.watch(WatchRequest { after: 0 }).await.map(drop),
        Call::Reload => admin.reload(ReloadRequest {}).await.map(drop),
        Call::ProvePossession => admin.prove_possession(ProvePossessionRequest::default()).await.map(drop),
        Call::ListAudit => audit.list(ListAuditRequest::default()).await.map(drop),
        Call::History => audit.history(HistoryRequest::default()).await.map(drop),
        Call::ListApprovals => approvals.list(ListApprovalsRequest {}).await.map(drop),
        Call::GrantApproval => approvals.grant(GrantApprovalRequest::default()).await.map(drop),
        Call::Enroll => stations.enroll(EnrollRequest::default()).await.map(drop),
        Call::Import => stations.import(ImportRequest::default()).await.map(drop),
        Call::Renew => stations.renew(RenewRequest::default()).await.map(drop),
        Call::Supersede => stations.supersede(SupersedeRequest {}).await.map(drop),
        Call::Check => stations.check(CheckRequest::default()).await.map(drop),
        Call::ListStations => stations.list(ListStationsRequest::default()).await.map(drop),
        Call::RevokeStation => stations.revoke(RevokeStationRequest::default()).await.map(drop),
        Call::CreateVendingCodes => vending.create_codes(CreateCodesRequest::default()).await.map(drop),
        Call::ListVendingCodes => vending.list_codes(ListCodesRequest::default()).await.map(drop),
        Call::CancelVendingCode => vending.cancel_code(CancelCodeRequest::default()).await.map(drop),
    }
}

/// Whether the table let a call through: whatever else is wrong with it is told by another reason.
async fn is_let_through(call: Call, channel: Channel) -> bool {
    match make(call, channel).await {
        Ok(()) => true,
        Err(status) => {
            let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
            let by_role = reason == "ROLE_REQUIRED";
            assert_eq!(by_role, status.code() == Code::PermissionDenied, "{call:?}: {status:?}");
            !by_role
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn role_may_make_the_calls_of_the_table_and_no_other() {
    let site = Site::new();
    let daemon = site.start();
    let mut peers = vec![
        (Role::Station, Duties::NONE, site.identity("station", "line1/t1")),
        (Role::Operator, Duties::ALL, site.identity("operator", "all")),
        (Role::Auditor, Duties::NONE, site.identity("auditor", "eve")),
    ];
    let both = Duties::of(&[Duty::Planner, Duty::Export]);
    for duties in Duty::ALL.map(|duty| Duties::of(&[duty])).into_iter().chain([both]) {
        let (name, duties_text) = (duties.to_string().replace('+', "-"), duties.to_string());
        let arguments = ["station", "enroll", &name, "--role", "operator", "--duties", &duties_text, "--out", &name];
        succeeded(&site.token.birthmark(&arguments));
        peers.push((Role::Operator, duties, site.path(&name)));
    }
    let mut cells = 0;
    for (role, duties, identity) in peers {
        let channel = daemon.connect(identity).await;
        for call in Call::ALL {
            let expected = call.rule().allows(role, duties);
            assert_eq!(is_let_through(*call, channel.clone()).await, expected, "{role} {duties} {}", call.rule().call);
            cells += 1;
        }
    }
    assert_eq!(cells, 8 * TABLE.len());
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_has_the_role_that_the_configuration_says() {
    let site = Site::new();
    let usual = std::fs::read_to_string(site.path("birthmark.toml")).unwrap();
    let with_role = |role: &str| {
        usual.replace("[http]", "# roles\n[http]").replacen(
            "socket = ",
            &format!("socket_role = \"{role}\"\nsocket = "),
            1,
        )
    };
    for (text, role, duties) in [
        ("operator", Role::Operator, Duties::ALL),
        ("operator:quality", Role::Operator, Duties::of(&[Duty::Quality])),
        ("auditor", Role::Auditor, Duties::NONE),
    ] {
        site.token.write("birthmark.toml", &with_role(text));
        let daemon = site.start();
        let connection = Connection { socket: Some(daemon.socket.clone()), ..Connection::default() };
        let channel = connection.daemon().unwrap().connect().await.unwrap();
        for call in [Call::CreateOrder, Call::ScrapCertificate, Call::ListOrders, Call::RevokeStation] {
            let expected = call.rule().allows(role, duties);
            assert_eq!(is_let_through(call, channel.clone()).await, expected, "{text}: {call:?}");
        }
        daemon.end();
    }
    for wrong in ["station", "root", "operator:", "auditor:planner", "operator:root"] {
        site.token.write("birthmark.toml", &with_role(wrong));
        assert!(site.refuse_to_start().contains("server.socket_role"), "{wrong}");
    }
}

#[test]
fn roles_command_prints_the_table() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_birthmark"));
        succeeded(&command.arg("roles").args(arguments).output().unwrap())
    };
    let printed: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(printed.as_array().unwrap().len(), TABLE.len());
    let (text, csv) = (run(&[]), run(&["--csv"]));
    for rule in TABLE {
        assert!(text.contains(rule.call) && csv.contains(rule.call), "{}", rule.call);
    }
    // The documentation has the same cells.
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/stations.md")).unwrap();
    let documented: std::collections::BTreeSet<_> = documented.lines().collect();
    for rule in TABLE {
        let cell = |allowed: bool| if allowed { "yes" } else { "-" };
        let mut cells = vec![format!("`{}`", rule.call), cell(rule.allows(Role::Station, Duties::NONE)).to_owned()];
        cells.extend(Duty::ALL.map(|duty| cell(rule.operators.has(duty)).to_owned()));
        cells.extend([cell(rule.auditor).to_owned(), rule.commands.to_owned()]);
        let row = format!("| {} |", cells.join(" | "));
        assert!(documented.contains(row.as_str()), "docs/stations.md lacks: {row}");
    }
    let create = text.lines().find(|line| line.starts_with("Admin.CreateOrder")).unwrap();
    let cells: Vec<_> = create.split_whitespace().collect();
    assert_eq!(cells[1..7], ["-", "yes", "-", "-", "-", "-"], "{create}");
}

/// An operator that is limited is told by what.
#[tokio::test(flavor = "multi_thread")]
async fn operator_without_the_duty_is_told_which_it_is() {
    let site = Site::new();
    let daemon = site.start();
    let arguments = ["station", "enroll", "paul", "--role", "operator", "--duties", "planner", "--out", "paul"];
    succeeded(&site.token.birthmark(&arguments));
    let url = daemon.url();
    let as_paul =
        |arguments: &[&str]| site.token.birthmark(&[arguments, &["--server", &url, "--identity", "paul"]].concat());
    succeeded(&as_paul(&["order", "create", "o1", "--profile", "device", "--quantity", "2"]));
    let revoked = as_paul(&["station", "revoke", "line1/t1", "--reason", "x"]);
    refused(&revoked, &["operator (security)", "operator:paul:planner", "ROLE_REQUIRED"]);
    let wrong = ["station", "enroll", "eve", "--role", "auditor", "--duties", "planner"];
    refused(&site.token.birthmark(&wrong), &["only an operator"]);
    let local = ["station", "enroll", "local-root", "--role", "operator"];
    refused(&site.token.birthmark(&local), &["local-"]);
    // The journal has the name without its duties.
    let order = succeeded(&as_paul(&["order", "show", "o1"]));
    assert!(order.contains("by operator:paul\n"), "{order}");
    daemon.end();
}
