//! As much of MQTT 3.1.1 (OASIS, 29 October 2014) as publishing with quality of service 1 needs.

mod error;
mod packet;

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

pub(super) use self::{
    error::MqttError,
    packet::{Connect, Incoming, Will},
};
use super::{address::Broker, outbox::Message};

/// How long connecting, the broker's CONNACK, and a write may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest packet that a broker sends to who only publishes.
const LONGEST: usize = 256;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The side that reads.
pub(super) struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

/// The side that writes.
pub(super) struct Writer {
    stream: WriteHalf<Box<dyn Stream>>,
}

/// Connects, and logs in with a clean session: what is to be sent again is known here.
pub(super) async fn connect(
    broker: &Broker,
    tls: Option<Arc<ClientConfig>>,
    connect: &Connect<'_>,
) -> Result<(Reader, Writer), MqttError> {
    let opened = timeout(PATIENCE, open(broker, tls)).await.map_err(|_| MqttError::Late(PATIENCE))??;
    let (reader, writer) = tokio::io::split(opened);
    let (mut reader, mut writer) = (Reader { stream: reader, buffer: BytesMut::new() }, Writer { stream: writer });
    writer.write(&connect.encode()).await?;
    let answer = timeout(PATIENCE, reader.read()).await.map_err(|_| MqttError::Late(PATIENCE))??;
    match answer {
        Incoming::Connected(0) => Ok((reader, writer)),
        // Section 3.2.2.3.
        Incoming::Connected(code) => Err(match code {
            1 => MqttError::Refused { reason: "it does not speak MQTT 3.1.1", lasting: true },
            2 => MqttError::Refused { reason: "the client id is not allowed", lasting: true },
            3 => MqttError::Refused { reason: "it is not available", lasting: false },
            4 => MqttError::Refused { reason: "user name or password are wrong", lasting: true },
            _ => MqttError::Refused { reason: "this client is not authorised", lasting: true },
        }),
        _ => Err(MqttError::Malformed("it does not begin with CONNACK")),
    }
}

async fn open(broker: &Broker, tls: Option<Arc<ClientConfig>>) -> Result<Box<dyn Stream>, MqttError> {
    let stream = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(broker.host.clone()).map_err(|_| MqttError::Name(broker.host.clone()))?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, stream).await?))
}

impl Reader {
    /// The next packet. May be dropped at any moment: what has arrived stays.
    pub(super) async fn read(&mut self) -> Result<Incoming, MqttError> {
        loop {
            if let Some(packet) = packet::decode(&mut self.buffer, LONGEST)? {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

impl Writer {
    /// Publishes a message with quality of service 1.
    pub(super) async fn publish(&mut self, id: u16, message: &Message, again: bool) -> Result<(), MqttError> {
        self.write(&packet::publish(id, message, again)).await
    }

    /// Asks whether the broker is there.
    pub(super) async fn ping(&mut self) -> Result<(), MqttError> {
        self.write(&packet::PINGREQ).await
    }

    /// Ends the connection in order: the will is not published.
    pub(super) async fn disconnect(mut self) {
        let _ = self.write(&packet::DISCONNECT).await;
        let _ = timeout(PATIENCE, self.stream.shutdown()).await;
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), MqttError> {
        let written = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        Ok(timeout(PATIENCE, written).await.map_err(|_| MqttError::Late(PATIENCE))??)
    }
}
