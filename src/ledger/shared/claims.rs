//! What a batch claims, as parameters of statements.

use super::sql::signed;
use crate::ledger::claims::{Claims, Name, OrderChange};

/// What a batch claims, as columns.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Names that are free again, each with what it stood for.
    pub(super) freed: (Vec<Vec<u8>>, Vec<Vec<u8>>),
    /// Names that stand for something new.
    pub(super) bound: (Vec<Vec<u8>>, Vec<Vec<u8>>),
    /// New orders.
    pub(super) created: (Vec<String>, Vec<i64>, Vec<i64>),
    /// Orders whose units or quantities change.
    pub(super) changed: (Vec<String>, Vec<i64>, Vec<i64>),
    pub(super) opened: Vec<(i64, String)>,
    pub(super) ended: Vec<i64>,
}

impl Rows {
    /// `used` tells how many units of an order are used after the batch, for one that is charged beyond its quantity.
    pub(super) fn of(claims: &Claims) -> Rows {
        let mut rows = Rows::default();
        for (name, change) in &claims.names {
            if change.before == change.after {
                continue;
            }
            if let Some(before) = &change.before {
                rows.freed.0.push(encode(name));
                rows.freed.1.push(before.as_bytes().to_vec());
            }
            if let Some(after) = &change.after {
                rows.bound.0.push(encode(name));
                rows.bound.1.push(after.as_bytes().to_vec());
            }
        }
        for (id, OrderChange { created, used, most, beyond }) in &claims.orders {
            // A certificate that was lost is charged whatever the quantity; the table has no other way to say so.
            let most = if *beyond { i64::MAX } else { i64::try_from(*most).unwrap_or(i64::MAX) };
            let columns = if *created { &mut rows.created } else { &mut rows.changed };
            columns.0.push(id.clone());
            columns.1.push(*used);
            columns.2.push(most);
        }
        rows.opened = claims.opened.iter().map(|(epoch, name)| (signed(*epoch), name.clone())).collect();
        rows.ended = claims.ended.iter().map(|epoch| signed(*epoch)).collect();
        rows
    }
}

/// A name as the table has it.
pub(super) fn encode(name: &Name) -> Vec<u8> {
    match name {
        Name::Key(hash) => [&b"k"[..], hash].concat(),
        Name::Device(id) => [&b"d"[..], id.as_bytes()].concat(),
    }
}
