//! The station against a daemon that misbehaves in ways the real one cannot be made to.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt, pb};

use parking_lot::Mutex;

use super::{
    input::Input,
    output::Summary,
    progress::Progress,
    sign::{End, Job, Stop, run},
};
use birthmark_base::hash::sha256;
use birthmark_client::{
    Connection, Daemon,
    proto::{
        ConfirmReply, ConfirmRequest, GetIssuerReply, GetIssuerRequest, IssueReply, IssueRequest, IssuedCertificate,
        Issuer as ListedIssuer, Profile,
        issuance_server::{Issuance, IssuanceServer},
        issue_reply::Result as Answer,
    },
};

mod hot_folder;

type TestResult = Result<(), Box<dyn Error>>;

/// What a fake daemon does with the n-th request (from 0) that it ever got.
type Behaviour = Arc<dyn Fn(usize, &IssueRequest) -> Act + Send + Sync>;

enum Act {
    Issue,
    /// Replies with a certificate for a different key.
    IssueForAnotherKey,
    Refuse(Status),
    /// Ends the stream with this status, whatever else is unanswered.
    Break(Status),
    /// Ends the stream as if all were done.
    EndStream,
    Silence,
}

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

struct Fake {
    ca: Ca,
    behaviour: Behaviour,
    requests: Arc<AtomicUsize>,
    /// By device: what a retry gives again.
    issued: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Fake {
    fn certificate(&self, device_id: &str, csr: &[u8]) -> Result<(Vec<u8>, bool), Box<dyn Error>> {
        let mut issued = self.issued.lock();
        if let Some(certificate) = issued.get(device_id) {
            return Ok((certificate.clone(), true));
        }
        let csr = CertificateSigningRequestParams::from_der(&csr.into())?;
        let certificate = csr.signed_by(&self.ca.issuer)?.der().to_vec();
        issued.insert(device_id.to_owned(), certificate.clone());
        Ok((certificate, false))
    }
}

#[derive(Clone)]
struct Service(Arc<Fake>);

#[tonic::async_trait]
impl Issuance for Service {
    type IssueStream = std::pin::Pin<Box<dyn Stream<Item = Result<IssueReply, Status>> + Send>>;

    async fn issue(&self, requests: Request<Streaming<IssueRequest>>) -> Result<Response<Self::IssueStream>, Status> {
        let fake = self.0.clone();
        let (replies, stream) = tokio::sync::mpsc::channel(1024);
        let mut requests = requests.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let number = fake.requests.fetch_add(1, Ordering::SeqCst);
                let act = (fake.behaviour)(number, &request);
                let issue = |csr: &[u8]| {
                    let (certificate, replay) = fake.certificate(&request.device_id, csr).ok()?;
                    Some(Answer::Issued(IssuedCertificate {
                        certificate_id: hex::encode(sha256(&certificate)),
                        certificate: certificate.into(),
                        serial_number: vec![1; 20].into(),
                        issuer: "ca".into(),
                        replay,
                        issuer_generation: 1,
                        chain: Vec::new(),
                    }))
                };
                let answer = match act {
                    Act::Issue => issue(&request.csr),
                    Act::IssueForAnotherKey => csr().ok().and_then(|csr| issue(&csr)),
                    Act::Refuse(status) => Some(Answer::Error(pb::Status {
                        code: status.code() as i32,
                        message: status.message().to_owned(),
                        details: details(&status),
                    })),
                    Act::Break(status) => {
                        let _ = replies.send(Err(status)).await;
                        return;
                    }
                    Act::EndStream => return,
                    Act::Silence => continue,
                };
                let reply =
                    IssueReply { request_id: request.request_id.clone(), result: answer, ..IssueReply::default() };
                if replies.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(stream))))
    }

    async fn issue_one(&self, _: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        Err(Status::unimplemented("streams are what is tried here"))
    }

    async fn confirm(&self, _: Request<ConfirmRequest>) -> Result<Response<ConfirmReply>, Status> {
        Err(Status::unimplemented("signing is what is tried here"))
    }

    async fn get_issuer(&self, _: Request<GetIssuerRequest>) -> Result<Response<GetIssuerReply>, Status> {
        let chain = vec![self.0.ca.der.clone().into()];
        Ok(Response::new(GetIssuerReply {
            issuers: vec![ListedIssuer { name: "ca".into(), chain, generation: 1, id: 1 }],
            profiles: vec![Profile {
                name: "device".into(),
                issuer: "ca".into(),
                key_types: vec!["p256".into()],
                order_requirement: birthmark_client::proto::OrderRequirement::Required.into(),
            }],
        }))
    }
}

fn details(status: &Status) -> Vec<prost_types::Any> {
    use prost::Message;
    pb::Status::decode(status.details()).map(|status| status.details).unwrap_or_default()
}

fn with_reason(code: Code, reason: &str, retry: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "birthmark", HashMap::new());
    if let Some(retry) = retry {
        details.set_retry_info(Some(retry));
    }
    Status::with_error_details(code, "as the test says", details)
}

fn csr() -> Result<Vec<u8>, rcgen::Error> {
    Ok(CertificateParams::default().serialize_request(&KeyPair::generate()?)?.der().to_vec())
}

fn pem_csr() -> Result<String, Box<dyn Error>> {
    Ok(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", csr()?)))
}

/// A station with CSRs, and a fake daemon.
struct Scene {
    folder: tempfile::TempDir,
    requests: Arc<AtomicUsize>,
    stop: watch::Sender<Option<Stop>>,
    job: Job,
}

impl Scene {
    fn new(devices: usize) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let csrs = folder.path().join("in");
        fs::create_dir(&csrs)?;
        for device in 0..devices {
            fs::write(csrs.join(format!("dev-{device}.der")), csr()?)?;
        }
        let job = Job {
            order: "order-1".into(),
            profile: "device".into(),
            reissue: false,
            input: Input::Folder(csrs),
            out: Some(folder.path().join("out")),
            chain: true,
            window: 4,
            give_up_after: None,
        };
        Ok(Scene { folder, requests: Arc::default(), stop: watch::Sender::new(None), job })
    }

    fn out(&self) -> std::path::PathBuf {
        self.folder.path().join("out")
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("socket")
    }

    fn daemon(&self) -> Result<Daemon, Box<dyn Error>> {
        Ok(Connection { socket: Some(self.socket()), ..Connection::default() }.daemon()?)
    }

    fn serve(&self, behaviour: impl Fn(usize, &IssueRequest) -> Act + Send + Sync + 'static) -> TestResult {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let der = params.self_signed(&key)?.der().to_vec();
        let ca = Ca { issuer: Issuer::new(params, key), der };
        let requests = self.requests.clone();
        let fake = Fake { ca, behaviour: Arc::new(behaviour), requests, issued: Arc::default() };
        let listener = UnixListenerStream::new(UnixListener::bind(self.socket())?);
        let server = tonic::transport::Server::builder().add_service(IssuanceServer::new(Service(Arc::new(fake))));
        tokio::spawn(server.serve_with_incoming(listener));
        Ok(())
    }

    async fn run(&self) -> Result<(Summary, End), Box<dyn Error>> {
        let progress = Arc::new(Progress::silent());
        let run = run(&self.daemon()?, self.job.clone(), progress, None, self.stop.subscribe()).await;
        Ok(run)
    }

    fn written(&self, ending: &str) -> Result<usize, Box<dyn Error>> {
        let names = fs::read_dir(self.out())?.map(|entry| entry.map(|entry| entry.file_name()));
        Ok(names.collect::<Result<Vec<_>, _>>()?.iter().filter(|name| name.to_string_lossy().ends_with(ending)).count())
    }
}

/// Every device gets its certificate, and a second run asks for what a crash tore alone, or for nothing.
#[tokio::test]
async fn run_twice_asks_for_each_device_once() -> TestResult {
    let scene = Scene::new(20)?;
    scene.serve(|_, _| Act::Issue)?;
    let (summary, end) = scene.run().await?;
    assert_eq!((end, summary.issued, summary.refused), (End::Done, 20, 0));
    assert_eq!((scene.written(".pem")?, scene.written(".chain.pem")?), (40, 20));

    // What a crash tore is asked for again, and is free.
    fs::write(scene.out().join("dev-3.pem"), "-----BEGIN CERT")?;
    fs::remove_file(scene.out().join("dev-4.chain.pem"))?;
    let (summary, end) = scene.run().await?;
    assert_eq!((end, summary.already_there, summary.replayed, summary.issued), (End::Done, 18, 2, 0));
    assert_eq!(scene.requests.load(Ordering::SeqCst), 22);

    // Nothing is left to ask, so no daemon is needed.
    fs::remove_file(scene.socket())?;
    let (summary, end) = scene.run().await?;
    assert_eq!((end, summary.already_there), (End::Done, 20));
    Ok(())
}

#[tokio::test]
async fn unavailable_daemon_delays_devices_but_loses_none() -> TestResult {
    let scene = Scene::new(12)?;
    scene.serve(|number, _| match number % 5 {
        0 | 1 => Act::Refuse(with_reason(Code::Unavailable, "HSM_UNAVAILABLE", Some(Duration::from_millis(20)))),
        _ => Act::Issue,
    })?;
    let (summary, end) = scene.run().await?;
    assert_eq!((end, summary.issued, summary.refused), (End::Done, 12, 0));
    Ok(())
}

/// However the stream ends, the unanswered requests are repeated on the next one.
#[tokio::test]
async fn broken_stream_is_reopened_and_unanswered_repeated() -> TestResult {
    let scene = Scene::new(30)?;
    scene.serve(|number, _| match number {
        3 => Act::Break(with_reason(Code::Unavailable, "DRAINING", Some(Duration::from_millis(10)))),
        6 | 7 => Act::Silence,
        9 => Act::Break(Status::internal("a reset stream")),
        15 => Act::EndStream,
        _ => Act::Issue,
    })?;
    let (summary, end) = scene.run().await?;
    assert_eq!((end, summary.succeeded(), summary.refused), (End::Done, 30, 0));
    assert_eq!(scene.written(".chain.pem")?, 30);
    Ok(())
}

#[tokio::test]
async fn daemon_that_starts_later_is_waited_for() -> TestResult {
    let scene = Scene::new(2)?;
    let (run, served) = tokio::join!(scene.run(), async {
        tokio::task::yield_now().await;
        scene.serve(|_, _| Act::Issue)
    });
    served?;
    assert_eq!(run?.1, End::Done);
    Ok(())
}

#[tokio::test]
async fn outage_longer_than_the_bound_ends_the_run() -> TestResult {
    let mut scene = Scene::new(2)?;
    scene.job.give_up_after = Some(Duration::from_millis(50));
    assert!(matches!(scene.run().await?.1, End::Failed(message) if message.starts_with("gave up")));
    scene.serve(|_, _| Act::Refuse(with_reason(Code::Unavailable, "STORAGE_LOW", Some(Duration::from_millis(5)))))?;
    assert!(matches!(scene.run().await?.1, End::Failed(message) if message.starts_with("gave up")));
    Ok(())
}

/// A refusal concerns its device alone, and its error file goes when the device succeeds.
#[tokio::test]
async fn refused_device_stops_no_other_and_may_succeed_later() -> TestResult {
    let scene = Scene::new(5)?;
    fs::write(scene.folder.path().join("in/dev-bad.csr"), "no CSR")?;
    scene.serve(|number, request| match (number, request.device_id.as_str()) {
        (0..5, "dev-2") => Act::Refuse(with_reason(Code::InvalidArgument, "KEY_WEAK", None)),
        _ => Act::Issue,
    })?;
    let (summary, end) = scene.run().await?;
    assert_eq!((end, summary.issued, summary.refused), (End::Done, 4, 2));
    let error: serde_json::Value = serde_json::from_slice(&fs::read(scene.out().join("dev-2.error.json"))?)?;
    assert_eq!(error["reason"], "KEY_WEAK");
    assert_eq!(error["message"], "as the test says");

    let (summary, _) = scene.run().await?;
    assert_eq!((summary.issued, summary.already_there, summary.refused), (1, 4, 1));
    assert!(!scene.out().join("dev-2.error.json").exists());
    assert!(scene.out().join("dev-bad.error.json").exists());
    Ok(())
}

#[tokio::test]
async fn certificate_for_another_key_is_never_written() -> TestResult {
    let scene = Scene::new(1)?;
    scene.serve(|_, _| Act::IssueForAnotherKey)?;
    let (summary, _) = scene.run().await?;
    assert_eq!(summary.refused_by_reason.keys().collect::<Vec<_>>(), ["REPLY_MISMATCH"]);
    assert_eq!(scene.written(".pem")?, 0);
    Ok(())
}

/// What concerns all devices ends the run at once, and no device is blamed.
#[tokio::test]
async fn refusal_of_every_device_ends_the_run() -> TestResult {
    for (status, on_stream) in [
        (with_reason(Code::NotFound, "ORDER_UNKNOWN", None), false),
        (with_reason(Code::PermissionDenied, "ROLE_REQUIRED", None), true),
        (Status::unauthenticated("who?"), true),
    ] {
        let scene = Scene::new(3)?;
        let message = status.message().to_owned();
        scene.serve(move |_, _| match on_stream {
            true => Act::Break(status.clone()),
            false => Act::Refuse(status.clone()),
        })?;
        let (summary, end) = scene.run().await?;
        assert!(matches!(end, End::Failed(text) if text.contains(&message)));
        assert_eq!((summary.refused, scene.written(".error.json")?), (0, 0));
    }
    let mut scene = Scene::new(1)?;
    scene.job.profile = "other".into();
    scene.serve(|_, _| Act::Issue)?;
    assert!(matches!(scene.run().await?.1, End::Failed(text) if text.contains("it may use: device")));
    Ok(())
}

#[tokio::test]
async fn stopped_run_takes_outstanding_replies() -> TestResult {
    let mut scene = Scene::new(50)?;
    scene.job.window = 1;
    let stop = scene.stop.clone();
    scene.serve(move |number, _| {
        if number == 5 {
            stop.send_replace(Some(Stop::Terminate));
        }
        Act::Issue
    })?;
    let (summary, end) = scene.run().await?;
    assert_eq!(end, End::Stopped(Stop::Terminate));
    // One more may have been on its way when the stop was seen.
    assert!((6..=7).contains(&summary.issued), "{summary}");
    Ok(())
}

#[tokio::test]
async fn watched_folder_is_emptied_into_done_and_failed() -> TestResult {
    let mut scene = Scene::new(3)?;
    let watched = scene.folder.path().join("in");
    scene.job.input = Input::Watch {
        folder: watched.clone(),
        poll: Duration::from_millis(10),
        settle: Duration::from_secs(30),
        keep_days: 0,
    };
    scene.serve(|_, request| match request.device_id.as_str() {
        "dev-1" => Act::Refuse(with_reason(Code::AlreadyExists, "KEY_REUSED", None)),
        _ => Act::Issue,
    })?;
    fs::write(watched.join("no id.csr"), "no CSR")?;
    let emptied = async {
        let left = |folder: &Path| fs::read_dir(folder).map_or(usize::MAX, Iterator::count);
        while left(&watched) != 2 || left(&watched.join("done")) != 2 || left(&watched.join("failed")) != 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        scene.stop.send_replace(Some(Stop::Interrupt));
    };
    let (run, ()) = tokio::join!(scene.run(), emptied);
    let (summary, end) = run?;
    assert_eq!((end, summary.issued, summary.refused), (End::Stopped(Stop::Interrupt), 2, 2));
    for name in ["done/dev-0.der", "done/dev-2.der", "failed/dev-1.der", "failed/dev-1.error.json"] {
        assert!(watched.join(name).exists(), "{name}");
    }
    assert!(watched.join("failed/no id.error.json").exists());
    Ok(())
}

#[tokio::test]
async fn input_folder_as_output_is_refused() -> TestResult {
    let mut scene = Scene::new(1)?;
    scene.job.out = Some(scene.folder.path().join("in"));
    assert!(matches!(scene.run().await?.1, End::Failed(message) if message.contains("share")));
    Ok(())
}

#[tokio::test]
async fn line_with_its_own_order_is_asked_under_it() -> TestResult {
    let mut scene = Scene::new(0)?;
    let path = scene.folder.path().join("in.jsonl");
    let line = |id: &str, more: &str| {
        Ok::<_, Box<dyn Error>>(format!(
            "{{\"device_id\": \"{id}\", \"csr\": {}{more}}}\n",
            serde_json::to_string(&pem_csr()?)?
        ))
    };
    let lines = [
        line("a", "")?,
        line("b", ", \"order\": \"other\"")?,
        line("c", ", \"order\": \"unknown\", \"profile\": \"special\"")?,
        line("d", ", \"order\": \"../x\"")?,
        line("e", ", \"lot\": \"7\"")?,
    ];
    fs::write(&path, lines.concat())?;
    scene.job.input = Input::Lines(path);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    scene.serve(move |_, request| {
        let terms = (request.device_id.clone(), request.order.clone(), request.profile.clone());
        seen.lock().push(terms);
        match request.order.as_str() {
            "unknown" => Act::Refuse(with_reason(Code::NotFound, "ORDER_UNKNOWN", None)),
            _ => Act::Issue,
        }
    })?;
    let (summary, end) = scene.run().await?;
    assert_eq!((end, summary.issued, summary.refused), (End::Done, 2, 3), "{summary}");
    let asked = asked.lock().clone();
    let expected = [("a", "order-1", "device"), ("b", "other", "device"), ("c", "unknown", "special")];
    assert_eq!(asked, expected.map(|(id, order, profile)| (id.into(), order.into(), profile.into())));
    let refusal: serde_json::Value = serde_json::from_slice(&fs::read(scene.out().join("c.error.json"))?)?;
    assert_eq!([&refusal["order"], &refusal["profile"]], ["unknown", "special"]);
    Ok(())
}

/// A certificate that cannot be written counts against its device, not the run.
#[tokio::test]
async fn unwritable_certificate_refuses_its_device_alone() -> TestResult {
    let scene = Scene::new(3)?;
    fs::create_dir_all(scene.out().join("dev-1.pem/x"))?;
    scene.serve(|_, _| Act::Issue)?;
    let (summary, end) = scene.run().await?;
    assert_eq!((end, summary.issued, summary.refused), (End::Done, 2, 1));
    assert_eq!(summary.refused_by_reason.keys().collect::<Vec<_>>(), ["NOT_WRITTEN"]);
    Ok(())
}

#[tokio::test]
async fn silent_daemon_ends_the_run_after_the_bound() -> TestResult {
    let mut scene = Scene::new(2)?;
    scene.job.give_up_after = Some(Duration::from_millis(300));
    scene.serve(|_, _| Act::Silence)?;
    let run = tokio::time::timeout(Duration::from_secs(10), scene.run()).await?;
    assert!(matches!(run?.1, End::Failed(message) if message.starts_with("gave up")));
    Ok(())
}
