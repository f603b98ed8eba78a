//! Gets device certificates from a Birthmark daemon: what a test stand in Rust needs, without HSM, ledger or server.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use birthmark_client::{Client, Connection, Named, Options, Reason, Request};
//!
//! # fn csr_of(_: &str) -> Vec<u8> { Vec::new() }
//! # fn write(_: &str, _: &str) {}
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // A folder with cert.pem, key.pem and ca.pem, as "birthmark station enroll" makes it.
//!     let connection = Connection {
//!         server: Some("https://birthmark.factory.example:8443".into()),
//!         identity: Some("identity".into()),
//!         ..Connection::default()
//!     };
//!     let client = Client::new(&connection)?.patience(Duration::from_secs(90));
//!
//!     // Before the shift: is all there that it needs?
//!     let check = client.check("lot-42", "device").await?;
//!     println!("{} may use {:?}", check.name, check.profiles);
//!
//!     // One device.
//!     let request = Request::new("dev-1", "device", csr_of("dev-1")).order("lot-42");
//!     match client.issue(request).await? {
//!         Ok(certificate) => write("dev-1.pem", &format!("{}{}", certificate.pem(), certificate.chain_pem())),
//!         Err(failure) if failure.kind() == Some(Reason::KeyReused) => println!("the key is another device's"),
//!         Err(failure) => println!("dev-1 gets none: {failure}"),
//!     }
//!
//!     // Many: any stream of requests, of which a window is unanswered at a time.
//!     let devices = (2..1000).map(|number| format!("dev-{number}"));
//!     let requests = devices.map(|id| Request::new(id.clone(), "device", csr_of(&id)).order("lot-42"));
//!     let mut answers = client.issue_many(tokio_stream::iter(requests), Options::default());
//!     while let Some(answer) = answers.next().await {
//!         let answer = answer?;
//!         match answer.result {
//!             Ok(certificate) => write(&answer.device_id, &certificate.pem()),
//!             Err(failure) => println!("{}: {failure}", answer.device_id),
//!         }
//!     }
//!
//!     // And the devices have taken them.
//!     for confirmation in client.confirm(&[Named::Device("dev-1".into())]).await? {
//!         println!("{:?}", confirmation.error);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What holds
//!
//! * **A retry is free.** The same device, key, order and profile give the byte-identical certificate, from any program, after
//!   any failure, years later. So nothing has to be remembered: after a crash, ask for everything again.
//! * **Lost connections are this crate's business.** It connects again with growing, random pauses, repeats what is
//!   unanswered, and waits for what the daemon says will pass (its HSM, its disk, a restart), for as long as
//!   [`Client::patience`] or [`Options::give_up_after`] lets it. Then it is [`Error::GaveUp`], and asking again goes on.
//! * **A refused device ends nothing.** It is an answer, with a [`Reason`] for programs and a sentence for people.
//! * **A certificate is passed on only if it is the device's**: of the CSR's key, unchanged, and of the issuer that it names.
//!   Whatever else came is [`Reason::ReplyMismatch`].
//! * **Futures may be dropped** where it says so, as in `tokio::select!`, and nothing is lost.
//!
//! Keepalive pings, deadlines for each try and the sizes of HTTP/2's windows are set as the protocol's manual
//! (`proto/birthmark/v1/issuance.proto`) advises. Whoever needs more than this has the generated code in [`proto`] and a
//! [`tonic`] channel from [`Daemon::connect`].

mod backoff;
mod chain;
mod client;
mod confirm;
mod connection;
mod error;
pub mod failure;
pub mod limits;
mod many;
pub mod proto;
mod reason;
mod request;
mod session;
mod watch;

pub use self::{
    client::Client,
    confirm::{Confirmation, Named},
    connection::{AS_OF, ClientError, Connection, DEFAULT_SOCKET, Daemon, MarkedChannel, SettingsError},
    error::Error,
    failure::Failure,
    many::{Answer, IssueMany},
    reason::Reason,
    request::{Certificate, Request},
    session::{Event, Options, Session},
    watch::Watch,
};
