//! Texts with placeholders: `{device_id}`, `{order}`, `{station}` and `{order.NAME}`, an attribute of the order.

use std::collections::BTreeMap;

use crate::{
    id::{DeviceId, OrderId},
    quote::shortened,
};

/// What placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The device.
    pub device: &'a DeviceId,
    /// The order, if there is one.
    pub order: Option<&'a OrderId>,
    /// The station, `<line>/<station>`.
    pub station: &'a str,
    /// The order's attributes.
    pub attributes: &'a BTreeMap<String, String>,
}

/// An order without an attribute that its profile's certificates show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the order \"{order}\" has no attribute \"{name}\", which the profile needs")]
pub struct MissingAttribute {
    /// The order.
    pub order: String,
    /// The attribute.
    pub name: String,
}

/// A text, taken apart once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    DeviceId,
    Order,
    Station,
    OrderAttribute(String),
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        let unknown = |what: &str| {
            let text = shortened(text);
            format!(
                "\"{text}\" has {what}; the placeholders are {{device_id}}, {{order}}, {{station}} and {{order.NAME}}"
            )
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            if start > 0 {
                pieces.push(Piece::Text(rest[..start].to_owned()));
            }
            let end = rest[start..].find('}').filter(|end| *end > 0).ok_or_else(|| unknown("a brace by itself"))?;
            let name = &rest[start + 1..start + end];
            pieces.push(match name {
                "device_id" => Piece::DeviceId,
                "order" => Piece::Order,
                "station" => Piece::Station,
                _ => match name.strip_prefix("order.") {
                    Some(attribute) if !attribute.is_empty() => Piece::OrderAttribute(attribute.to_owned()),
                    _ => return Err(unknown(&format!("the unknown placeholder {{{}}}", shortened(name)))),
                },
            });
            rest = &rest[start + end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Template(pieces))
    }

    /// The text, if nothing is to be filled in.
    pub(super) fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// How long the text is, filled in; 0 if something is missing.
    pub(super) fn length(&self, values: &Values<'_>) -> usize {
        let length = |piece: &Piece| {
            Some(match piece {
                Piece::Text(text) => text.len(),
                Piece::DeviceId => values.device.as_str().len(),
                Piece::Order => values.order.map_or(0, |order| order.as_str().len()),
                Piece::Station => values.station.len(),
                Piece::OrderAttribute(name) => values.attributes.get(name)?.len(),
            })
        };
        self.0.iter().map(length).sum::<Option<usize>>().unwrap_or(0)
    }

    pub(super) fn has_device_id(&self) -> bool {
        self.0.contains(&Piece::DeviceId)
    }

    /// Whether it can only be filled in for a request with an order.
    pub(super) fn needs_order(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Order | Piece::OrderAttribute(_)))
    }

    /// The order's attributes that it needs.
    pub(super) fn order_attributes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::OrderAttribute(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Fills it in; a value that looks like a placeholder stays what it is.
    pub(super) fn fill(&self, values: &Values<'_>) -> Result<String, MissingAttribute> {
        let order = values.order.map_or("", OrderId::as_str);
        let mut filled = String::with_capacity(64);
        for piece in &self.0 {
            filled.push_str(match piece {
                Piece::Text(text) => text,
                Piece::DeviceId => values.device.as_str(),
                Piece::Order => order,
                Piece::Station => values.station,
                Piece::OrderAttribute(name) => values
                    .attributes
                    .get(name)
                    .ok_or_else(|| MissingAttribute { order: order.to_owned(), name: name.clone() })?,
            });
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_once() {
        let attributes = BTreeMap::from([("pid", "8000"), ("b", "{order}")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let (device, order) = ("d1".parse().unwrap(), "o1".parse().unwrap());
        let values = Values { device: &device, order: Some(&order), station: "l/s", attributes: &attributes };
        let filled = |text: &str| {
            Template::parse(text).and_then(|template| template.fill(&values).map_err(|error| error.to_string()))
        };
        assert_eq!(filled("a{device_id}b{order}c{station}{order.pid}"), Ok("ad1bo1cl/s8000".into()));
        assert_eq!(filled("a{order.b}"), Ok("a{order}".into()));
        assert_eq!(filled("plain"), Ok("plain".into()));
        assert!(filled("{order.vid}").unwrap_err().contains("no attribute \"vid\""));
        for wrong in ["{device}", "{", "}", "a}b", "{order.}", "{{device_id}}"] {
            assert!(filled(wrong).unwrap_err().contains("{device_id}"), "{wrong}");
        }
    }
}
