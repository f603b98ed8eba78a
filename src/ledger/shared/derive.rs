//! The tables `names`, `orders` and `daemons`, made from the journal. The audit's rules are checked on the way.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Client, types::ToSql};

use super::{claims::encode, sql::signed};
use crate::{
    ledger::{
        audit::Audit,
        claims::Name,
        entry::{Entry, Event},
        record::Holder,
        recovery::Recovery,
    },
    serial::SerialNumber,
};

/// How many names are written at once.
const CHUNK: usize = 20_000;

/// What is derived from the entries so far.
#[derive(Default)]
pub(super) struct Derived {
    audit: Audit,
    pending: HashMap<SerialNumber, (Holder, Option<SerialNumber>)>,
    /// What is not written yet; none: the name is free.
    names: BTreeMap<Vec<u8>, Option<SerialNumber>>,
    open: BTreeMap<u64, String>,
}

impl Derived {
    /// Takes the next entry.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn note(&mut self, entry: &Entry) -> Result<(), String> {
        self.audit.apply(entry).map_err(|rule| rule.to_string())?;
        match &entry.event {
            Event::Reserved { serial_number, holder, replaces } => {
                self.bind(holder, *serial_number);
                self.pending.insert(*serial_number, (holder.clone(), *replaces));
            }
            Event::Issued { serial_number, .. } => drop(self.pending.remove(serial_number)),
            Event::Abandoned { serial_number, .. } => {
                if let Some((holder, replaces)) = self.pending.remove(serial_number) {
                    self.names.insert(encode(&Name::Key(holder.key_hash)), None);
                    self.names.insert(encode(&Name::Device(holder.device)), replaces);
                }
            }
            Event::Recovered(Recovery { serial_number, holder, .. }) => self.bind(holder, *serial_number),
            Event::Opened { epoch, daemon } => drop(self.open.insert(*epoch, daemon.clone())),
            Event::Ended { epoch } => drop(self.open.remove(epoch)),
            _ => {}
        }
        Ok(())
    }

    fn bind(&mut self, holder: &Holder, serial_number: SerialNumber) {
        self.names.insert(encode(&Name::Key(holder.key_hash)), Some(serial_number));
        self.names.insert(encode(&Name::Device(holder.device.clone())), Some(serial_number));
    }

    /// Whether names wait to be written.
    pub(super) fn is_due(&self) -> bool {
        self.names.len() >= CHUNK
    }

    /// Writes the names that wait.
    pub(super) async fn flush(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let names = std::mem::take(&mut self.names);
        let all: Vec<&[u8]> = names.keys().map(Vec::as_slice).collect();
        client.execute("DELETE FROM names WHERE name = ANY($1::bytea[])", &[&all]).await?;
        let bound =
            names.iter().filter_map(|(name, serial)| Some((name.as_slice(), serial.as_ref()?.as_bytes().as_slice())));
        let (bound, serials): (Vec<&[u8]>, Vec<&[u8]>) = bound.unzip();
        let insert = "INSERT INTO names (name, serial_number) SELECT * FROM unnest($1::bytea[], $2::bytea[])";
        client.execute(insert, &[&bound, &serials]).await?;
        Ok(())
    }

    /// Writes what is left, the orders, and which daemons have not ended.
    pub(super) async fn finish(mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        self.flush(client).await?;
        for (id, used, quantity) in self.audit.orders() {
            // Certificates that were lost and found again may have exceeded the quantity.
            let (used, most) = (signed(used), signed(quantity.max(used)));
            let parameters: [&(dyn ToSql + Sync); 3] = [&id, &used, &most];
            client.execute("INSERT INTO orders (id, used, most) VALUES ($1, $2, $3)", &parameters).await?;
        }
        let open: Vec<_> = self.open.keys().map(|epoch| signed(*epoch)).collect();
        client.execute("DELETE FROM daemons WHERE NOT (epoch = ANY($1::bigint[]))", &[&open]).await?;
        for (epoch, name) in &self.open {
            let insert = "INSERT INTO daemons (epoch, name, version, started, renewed) \
                          VALUES ($1, $2, '', clock_timestamp(), clock_timestamp()) ON CONFLICT (epoch) DO NOTHING";
            client.execute(insert, &[&signed(*epoch), name]).await?;
        }
        Ok(())
    }
}
