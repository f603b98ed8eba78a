//! Labels: what stands between `/.well-known/est/` and the operation (RFC 7030 section 3.2.2).

use std::str::FromStr;

use crate::{id::OrderId, quote::quoted};

/// A profile, and the order that enrolments are charged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The profile's name.
    pub(crate) profile: String,
    /// The order, if there is one.
    pub(crate) order: Option<OrderId>,
}

/// Text that is no label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a label: PROFILE, or PROFILE~ORDER", quoted(.0))]
pub(crate) struct InvalidLabel(String);

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let invalid = || InvalidLabel(text.to_owned());
        let (profile, order) = match text.split_once('~') {
            Some((profile, order)) => (profile, Some(OrderId::try_from(order.to_owned()).map_err(|_| invalid())?)),
            None => (text, None),
        };
        if profile.is_empty() || profile.contains('/') {
            return Err(invalid());
        }
        Ok(Label { profile: profile.to_owned(), order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_is_a_profile_or_a_profile_and_an_order() {
        let label: Label = "device".parse().unwrap();
        assert_eq!((label.profile.as_str(), label.order), ("device", None));
        let label: Label = "device~lot-42".parse().unwrap();
        assert_eq!((label.profile.as_str(), label.order.unwrap().as_str()), ("device", "lot-42"));
        for text in ["", "~lot", "device~", "device~a/b", "a/b"] {
            assert!(text.parse::<Label>().is_err(), "{text}");
        }
    }
}
