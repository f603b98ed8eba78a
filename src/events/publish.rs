//! The loop: events come in, messages go out, acknowledgements move the cursor.

use std::{path::PathBuf, sync::Arc, time::Duration};

use birthmark_base::console;
use bytes::Bytes;
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    address::Broker,
    attempts::{Backoff, Report},
    cfx,
    cursor::Cursor,
    error::EventsError,
    mqtt::{self, Connect, Incoming, MqttError, Reader, Will, Writer},
    outbox::{Message, Outbox},
    plain, source,
    tls::Credentials,
    topic::{Topic, Values},
};
use crate::{client::Daemon, proto::WatchReply};

/// The most messages of one event on their way besides those that are allowed: an event is taken whole.
const EVENTS: usize = 16;

/// How often the cursor is written at most; what it lags behind is published twice after a crash.
const CURSOR: Duration = Duration::from_millis(200);

/// The broker ends the connection when it hears nothing for one and a half of this (MQTT 3.1.1 section 3.1.2.10).
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A message that is not acknowledged for so long is sent again on a new connection.
const STALLED: Duration = Duration::from_secs(60);

/// How long the last words to the broker may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// With `once`: nothing new for so long is the end.
const IDLE: Duration = Duration::from_secs(2);

/// Which messages are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forms {
    /// Plain JSON, one for each event.
    pub json: bool,
    /// IPC-CFX, and the heartbeat.
    pub cfx: bool,
}

/// What is published how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub broker: Broker,
    /// As whom.
    pub credentials: Credentials,
    /// The client's id for the broker: two of one id throw each other out.
    pub client_id: String,
    /// Which messages.
    pub forms: Forms,
    /// The handle of the endpoint in CFX: who the messages are of.
    pub handle: String,
    /// Where plain JSON is published.
    pub json_topic: Topic,
    /// Where CFX messages are published.
    pub cfx_topic: Topic,
    /// How often CFX's heartbeat is published.
    pub heartbeat: Duration,
    /// The most messages that are not acknowledged.
    pub in_flight: usize,
    /// The file that says how far events are published.
    pub cursor: PathBuf,
    /// Where a new cursor begins: after this event.
    pub after: u64,
    /// End when all that there is, is published.
    pub once: bool,
}

/// Publishes until `stop`, or until all is published if that is asked for. What is not acknowledged then is published by the
/// next run.
///
/// # Errors
/// What no further attempt can help.
pub async fn publish(
    settings: Settings,
    daemon: Daemon,
    stop: impl Future<Output = ()>,
    report: Arc<Report>,
) -> Result<(), EventsError> {
    let cursor = Cursor::open(&settings.cursor, settings.after)?;
    // What is wrong with files is said before anything is sent.
    if settings.broker.tls {
        settings.credentials.tls()?;
    }
    settings.credentials.login()?;
    let (sender, events) = mpsc::channel(EVENTS);
    let (after, reporter) = (cursor.after(), Arc::clone(&report));
    let (told, connected) = watch::channel(None);
    let source = tokio::spawn(async move { source::follow(daemon, after, sender, &told, &*reporter).await });
    let outbox = Outbox::new(after);
    let (end, ending) = watch::channel(false);
    let active = Instant::now();
    let mut publisher =
        Publisher { settings, report, cursor, outbox, events, connected, ending, source_ended: false, active };
    let result = {
        let mut running = std::pin::pin!(publisher.run());
        tokio::select! {
            result = &mut running => result,
            () = stop => {
                end.send_replace(true);
                timeout(FAREWELL, running).await.unwrap_or(Ok(()))
            }
        }
    };
    publisher.cursor.write(publisher.outbox.published())?;
    result?;
    match publisher.source_ended {
        // The source knows why there are no more events.
        true => source.await.unwrap_or(Ok(())),
        false => {
            source.abort();
            Ok(())
        }
    }
}

struct Publisher {
    settings: Settings,
    report: Arc<Report>,
    cursor: Cursor,
    outbox: Outbox,
    events: mpsc::Receiver<WatchReply>,
    /// Since when the daemon tells us events, while it does.
    connected: watch::Receiver<Option<Instant>>,
    ending: watch::Receiver<bool>,
    source_ended: bool,
    /// When an event came, or a message was acknowledged, last.
    active: Instant,
}

/// How a session ended.
enum End {
    Done,
    Lost(MqttError),
}

impl Publisher {
    async fn run(&mut self) -> Result<(), EventsError> {
        let mut backoff = Backoff::new();
        loop {
            let begun = Instant::now();
            match self.session().await? {
                End::Done => return Ok(()),
                End::Lost(MqttError::Refused { reason, lasting: true }) => return Err(EventsError::Refused(reason)),
                End::Lost(error) => {
                    let Broker { host, port, .. } = &self.settings.broker;
                    let cause = console::plain(&error.to_string());
                    (self.report)(&format!("the broker at {host}:{port} is not there: {cause}; trying again"));
                }
            }
            self.cursor.write(self.outbox.published())?;
            if begun.elapsed() > KEEP_ALIVE {
                backoff = Backoff::new();
            }
            let mut ending = self.ending.clone();
            tokio::select! {
                () = backoff.pause() => {}
                _ = ending.wait_for(|ending| *ending) => return Ok(()),
            }
        }
    }

    /// A connection, from its beginning to its end.
    async fn session(&mut self) -> Result<End, EventsError> {
        let tls = match self.settings.broker.tls {
            true => Some(self.settings.credentials.tls()?),
            false => None,
        };
        let (mut reader, mut writer) = match self.connect(tls).await? {
            Ok(connected) => connected,
            Err(error) => return Ok(End::Lost(error)),
        };
        self.outbox.forget_acknowledgements();
        for sent in self.outbox.unacknowledged() {
            if let Err(error) = writer.publish(sent.id, &sent.message, true).await {
                return Ok(End::Lost(error));
            }
        }
        match self.converse(&mut reader, &mut writer).await? {
            End::Done => {
                writer.disconnect().await;
                // The broker closes the connection. If what it sends until then were left unread, the system would reset the connection,
                // and the broker take that for a loss.
                let rest = async {
                    while let Ok(packet) = reader.read().await {
                        if let Incoming::Published(id) = packet {
                            self.outbox.acknowledge(id);
                        }
                    }
                };
                let _ = timeout(FAREWELL / 2, rest).await;
                Ok(End::Done)
            }
            lost => Ok(lost),
        }
    }

    async fn connect(
        &self,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Result<(Reader, Writer), MqttError>, EventsError> {
        let (will, login) = (self.will(), self.settings.credentials.login()?);
        let connect = Connect {
            client_id: &self.settings.client_id,
            keep_alive: KEEP_ALIVE.as_secs() as u16,
            will: &will,
            login: login.as_ref().map(|(name, password)| (name.as_str(), password.as_str())),
        };
        Ok(mqtt::connect(&self.settings.broker, tls, &connect).await)
    }

    /// Publishes and takes acknowledgements, until the connection is lost or there is nothing more to do.
    async fn converse(&mut self, reader: &mut Reader, writer: &mut Writer) -> Result<End, EventsError> {
        let start = Instant::now();
        let (mut heartbeat, mut ping, mut heard, mut saved) = (start, start + KEEP_ALIVE / 2, start, start);
        self.active = start;
        let mut acknowledged = start;
        let mut ending = self.ending.clone();
        loop {
            if self.is_done() {
                return Ok(End::Done);
            }
            let room = self.outbox.len() < self.settings.in_flight && !self.source_ended;
            let waits = self.outbox.published() != self.cursor.after();
            let done = tokio::select! {
                // What is not acknowledged is the next run's.
                _ = ending.wait_for(|ending| *ending) => return Ok(End::Done),
                packet = reader.read() => match packet {
                    Ok(packet) => {
                        heard = Instant::now();
                        if let Incoming::Published(id) = packet {
                            self.outbox.acknowledge(id);
                            (self.active, acknowledged) = (heard, heard);
                        }
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                event = self.events.recv(), if room => match event {
                    Some(event) => {
                        self.active = Instant::now();
                        if self.outbox.len() == 0 {
                            acknowledged = self.active;
                        }
                        self.send(&event, writer).await
                    }
                    None => {
                        self.source_ended = true;
                        Ok(())
                    }
                },
                () = sleep_until(heartbeat), if self.settings.forms.cfx && room => {
                    heartbeat = Instant::now() + self.settings.heartbeat;
                    let message = cfx::heartbeat(&self.settings.handle, self.settings.heartbeat.as_secs(), Timestamp::now());
                    let message = self.cfx_message(&message, &WatchReply::default());
                    self.put(message, writer).await
                }
                () = sleep_until(ping) => {
                    ping = Instant::now() + KEEP_ALIVE / 2;
                    match heard.elapsed() > KEEP_ALIVE || self.outbox.len() > 0 && acknowledged.elapsed() > STALLED {
                        true => Err(MqttError::Late(heard.elapsed())),
                        false => writer.ping().await,
                    }
                }
                () = sleep_until(saved + CURSOR), if waits => {
                    self.cursor.write(self.outbox.published())?;
                    saved = Instant::now();
                    Ok(())
                }
                () = sleep(IDLE), if self.settings.once => Ok(()),
            };
            if let Err(error) = done {
                return Ok(End::Lost(error));
            }
        }
    }

    fn is_done(&self) -> bool {
        let connected = self.connected.borrow().is_some_and(|since| since.elapsed() >= IDLE);
        let idle = self.settings.once && connected && self.active.elapsed() >= IDLE;
        self.outbox.len() == 0 && (self.source_ended || idle)
    }

    /// All messages of an event, then its end: the cursor passes none of which one is missing.
    async fn send(&mut self, event: &WatchReply, writer: &mut Writer) -> Result<(), MqttError> {
        // Whatever happens to the connection, what is in the outbox is sent on the next one.
        let mut result = Ok(());
        for message in self.messages(event) {
            let id = self.outbox.push(message.clone());
            if result.is_ok() {
                result = writer.publish(id, &message, false).await;
            }
        }
        self.outbox.end(event.sequence);
        result
    }

    async fn put(&mut self, message: Message, writer: &mut Writer) -> Result<(), MqttError> {
        let id = self.outbox.push(message.clone());
        writer.publish(id, &message, false).await
    }

    fn messages(&self, event: &WatchReply) -> Vec<Message> {
        let Settings { forms, handle, .. } = &self.settings;
        let mut messages = Vec::new();
        if forms.json {
            let mut body = plain::to_json(event);
            let time = cfx::time(event.time.as_ref());
            body["id"] = cfx::message_id(handle, event, &time, "json", 0).into();
            messages.push(self.json_message(&event.event, &body, event));
        }
        if forms.cfx {
            messages.extend(cfx::messages(handle, event).iter().map(|message| self.cfx_message(message, event)));
        }
        messages
    }

    fn json_message(&self, kind: &str, body: &serde_json::Value, event: &WatchReply) -> Message {
        let values = Values { event: kind, ..self.values(event) };
        Message { topic: self.settings.json_topic.with(values), payload: Bytes::from(body.to_string()) }
    }

    fn cfx_message(&self, cfx::CfxMessage { name, envelope }: &cfx::CfxMessage, event: &WatchReply) -> Message {
        let values = Values { message: name, ..self.values(event) };
        Message { topic: self.settings.cfx_topic.with(values), payload: Bytes::from(envelope.to_string()) }
    }

    fn values<'a>(&'a self, event: &'a WatchReply) -> Values<'a> {
        let station = event.actor.strip_prefix("station:").unwrap_or_default();
        Values { handle: &self.settings.handle, event: &event.event, order: &event.order, station, message: "" }
    }

    /// What the broker says for us when we cannot any more.
    fn will(&self) -> Will {
        let (event, now) = (WatchReply::default(), Timestamp::now());
        let message = match self.settings.forms.json {
            true => {
                let body = serde_json::json!({ "event": "publisher_lost", "handle": self.settings.handle });
                self.json_message("publisher_lost", &body, &event)
            }
            false => self.cfx_message(&cfx::shutting_down(&self.settings.handle, now), &event),
        };
        Will { message, retain: false }
    }
}
