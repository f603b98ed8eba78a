//! What happens, on its way from the ledger to an MQTT broker: plain JSON, and messages of IPC-CFX (IPC-2591) for an MES.
//!
//! It is a client of the daemon like any other and may run elsewhere. [`Admin.Watch`](crate::proto) gives every entry in order
//! and without a gap; each becomes messages whose ids follow from it; they are published with quality of service 1, a bounded
//! number at a time, and when the broker has acknowledged them the cursor, a file, goes on. Whatever is killed, the next
//! run begins with the first message that was not acknowledged: an event comes once or several times, in order, and a double has the
//! id of the first.
//!
//! `mqtt` speaks the protocol, `cfx` and `plain` have the messages, `outbox` knows what is on its way, `source` reads the daemon,
//! `publish` is the loop.

mod address;
mod attempts;
mod cfx;
mod cursor;
mod error;
mod id;
mod mqtt;
mod outbox;
mod plain;
mod publish;
mod source;
mod tls;
mod topic;

pub use self::{
    address::Broker,
    error::EventsError,
    plain::to_json,
    publish::{Forms, Settings, publish},
    tls::Credentials,
    topic::{InvalidTopic, Topic},
};
