//! Topics with placeholders.

use std::str::FromStr;

/// The longest topic, in bytes; MQTT 3.1.1 allows 65,535 (section 1.5.3).
const LONGEST: usize = 1024;

/// The placeholders.
const NAMES: [&str; 5] = ["handle", "message", "event", "order", "station"];

/// A topic in which `{handle}`, `{message}`, `{event}`, `{order}` and `{station}` stand for what a message has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic(String);

/// A text that is no topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// Empty or too long.
    #[error("a topic has 1 to {LONGEST} bytes")]
    Length,
    /// What MQTT reserves.
    #[error(
        "a topic that is published to has no + and #, no control character, and does not begin with $ (MQTT 3.1.1, section 4.7)"
    )]
    Character,
    /// No placeholder.
    #[error("{{{0}}} is none of {{handle}}, {{message}}, {{event}}, {{order}} and {{station}}")]
    Placeholder(String),
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(InvalidTopic::Length);
        }
        if text.starts_with('$') || text.contains(['+', '#']) || text.chars().any(char::is_control) {
            return Err(InvalidTopic::Character);
        }
        for after in text.split('{').skip(1) {
            let name = after.split('}').next().unwrap_or_default();
            if !NAMES.contains(&name) || !after.contains('}') {
                return Err(InvalidTopic::Placeholder(name.to_owned()));
            }
        }
        Ok(Topic(text.to_owned()))
    }
}

/// What placeholders stand for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Values<'a> {
    pub(super) handle: &'a str,
    pub(super) message: &'a str,
    pub(super) event: &'a str,
    pub(super) order: &'a str,
    pub(super) station: &'a str,
}

impl Topic {
    /// With the values in place; a value is never more than one level, but a station's two.
    pub(super) fn with(&self, values: Values<'_>) -> String {
        let level = |value: &str| match value {
            "" => "-".to_owned(),
            value => value.replace(|c: char| "+#/".contains(c) || c.is_control(), "_"),
        };
        let station: Vec<_> = values.station.split('/').map(level).collect();
        let all = [
            ("{handle}", level(values.handle)),
            ("{message}", level(values.message)),
            ("{event}", level(values.event)),
            ("{order}", level(values.order)),
            ("{station}", station.join("/")),
        ];
        all.iter().fold(self.0.clone(), |topic, (name, value)| topic.replace(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a message has cannot make another topic of it, or none.
    #[test]
    fn topic_values_stay_in_their_levels() {
        let topic: Topic = "mes/{station}/{event}/{order}".parse().unwrap();
        let values = Values { station: "line1/t#1", event: "a/b", order: "", ..Values::default() };
        assert_eq!(topic.with(values), "mes/line1/t_1/a_b/-");
        for bad in ["", "a/#", "a/+/b", "$SYS/x", "{other}", "{handle", "a\n"] {
            assert!(bad.parse::<Topic>().is_err(), "{bad}");
        }
    }
}
