//! `{crl_shard}` in the URLs of CRL distribution points: known when the certificate has its serial number, so the encoded
//! extensions have room for it, always of the same length.

use std::sync::Arc;

use crate::{crl::Shards, quote::shortened, serial::SerialNumber};

/// The placeholder.
const NAME: &str = "{crl_shard}";

/// What no URL has: it stands for each digit until the shard is known.
const ROOM: &str = "\u{1}";

/// Where the shard stands in a profile's encoded extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardPlaces {
    shards: Shards,
    places: Arc<[usize]>,
}

/// A URL as it is checked: with a shard in it.
pub(super) fn sample(url: &str) -> String {
    url.replace(NAME, "0")
}

/// A URL with room for the shard of an issuer that has so many.
pub(super) fn with_room(url: &str, shards: Shards) -> String {
    url.replace(NAME, &ROOM.repeat(shards.digits()))
}

/// Checks that URLs name the shard where there are several, and only there.
pub(super) fn check(urls: &[String], issuer: &str, shards: Shards) -> Result<(), String> {
    let wrong = urls.iter().find(|url| url.contains(NAME) != (shards.count() > 1));
    wrong.map_or(Ok(()), |url| {
        let (url, count) = (shortened(url), shards.count());
        Err(match count {
            1 => format!("\"{url}\" has {NAME}, and the issuer \"{issuer}\" has one list; give the issuer crl_shards"),
            _ => format!("\"{url}\" has no {NAME}, and the issuer \"{issuer}\" has crl_shards = {count}"),
        })
    })
}

impl ShardPlaces {
    /// Finds the room in encoded extensions, given the URLs that have it.
    pub(super) fn find(extensions: &[u8], urls: &[String], shards: Shards) -> ShardPlaces {
        let mut places = Vec::new();
        for url in urls {
            let url = with_room(url, shards);
            let start = extensions.windows(url.len()).position(|window| window == url.as_bytes());
            let within = url.match_indices(ROOM).map(|(at, _)| at).step_by(shards.digits());
            places.extend(start.into_iter().flat_map(|start| within.clone().map(move |at| start + at)));
        }
        ShardPlaces { shards, places: places.into() }
    }

    /// Fills the shard of a serial number into the extensions.
    pub(super) fn fill(&self, extensions: &mut [u8], serial_number: &SerialNumber) {
        if self.places.is_empty() {
            return;
        }
        let label = self.shards.label(self.shards.of(serial_number));
        for place in self.places.iter() {
            if let Some(room) = extensions.get_mut(*place..place + label.len()) {
                room.copy_from_slice(label.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_is_filled_in_wherever_it_stands() {
        let shards = Shards::new(64).unwrap();
        let urls = ["http://a/{crl_shard}/{crl_shard}.crl".to_owned(), "http://b/{crl_shard}".to_owned()];
        let mut octets = urls.iter().flat_map(|url| with_room(url, shards).into_bytes()).collect::<Vec<_>>();
        let serial_number = SerialNumber::sample();
        ShardPlaces::find(&octets, &urls, shards).fill(&mut octets, &serial_number);
        let label = shards.label(shards.of(&serial_number));
        assert_eq!(octets, format!("http://a/{label}/{label}.crlhttp://b/{label}").into_bytes());
        assert!(check(&urls, "i", shards).is_ok() && check(&urls, "i", Shards::new(1).unwrap()).is_err());
        assert!(check(&["http://a".into()], "i", shards).is_err());
    }
}
