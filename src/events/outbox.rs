//! What is on its way to the broker.

use std::collections::VecDeque;

use bytes::Bytes;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Bytes,
}

/// A message that was given a packet identifier.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: u16,
    pub(super) message: Message,
}

#[derive(Debug)]
enum Entry {
    Message {
        sent: Sent,
        acknowledged: bool,
    },
    /// All messages of the event of this sequence number are before it.
    End(u64),
}

/// Messages in the order in which they are published, from the first that is not acknowledged on.
#[derive(Debug)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    newest: u16,
    /// How many of them are messages.
    messages: usize,
    /// The newest event of which everything is acknowledged, and all before.
    published: u64,
}

impl Outbox {
    pub(super) fn new(published: u64) -> Self {
        Outbox { entries: VecDeque::new(), newest: 0, messages: 0, published }
    }

    /// How many messages are not acknowledged, or wait for one that is not.
    pub(super) fn len(&self) -> usize {
        self.messages
    }

    /// Up to which event everything is acknowledged.
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// Takes a message, and gives the identifier that it is sent with.
    pub(super) fn push(&mut self, message: Message) -> u16 {
        // Identifiers are 1 to 65,535 (MQTT 3.1.1 section 2.3.1); so many are never on their way.
        self.newest = self.newest.checked_add(1).unwrap_or(1);
        self.messages += 1;
        self.entries.push_back(Entry::Message { sent: Sent { id: self.newest, message }, acknowledged: false });
        self.newest
    }

    /// Notes that the messages of an event are all there.
    pub(super) fn end(&mut self, sequence: u64) {
        self.entries.push_back(Entry::End(sequence));
        self.advance();
    }

    /// The broker has a message.
    pub(super) fn acknowledge(&mut self, id: u16) {
        let of_id = |entry: &&mut Entry| matches!(entry, Entry::Message { sent, .. } if sent.id == id);
        if let Some(Entry::Message { acknowledged, .. }) = self.entries.iter_mut().find(of_id) {
            *acknowledged = true;
        }
        self.advance();
    }

    /// What must be sent again on a new connection, in order: all from the first on that is not acknowledged. What comes after it
    /// and is acknowledged is sent again as well, so that a subscriber that removes doubles has the order.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &Sent> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Message { sent, .. } => Some(sent),
            Entry::End(_) => None,
        })
    }

    /// All of it is to be acknowledged anew.
    pub(super) fn forget_acknowledgements(&mut self) {
        for entry in &mut self.entries {
            if let Entry::Message { acknowledged, .. } = entry {
                *acknowledged = false;
            }
        }
    }

    fn advance(&mut self) {
        loop {
            match self.entries.front() {
                Some(Entry::Message { acknowledged: true, .. }) => self.messages -= 1,
                Some(Entry::End(sequence)) => self.published = *sequence,
                _ => return,
            }
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message { topic: text.into(), payload: Bytes::from(text.to_owned()) }
    }

    /// The cursor passes an event when everything up to it is acknowledged, in whatever order that comes.
    #[test]
    fn outbox_publishes_no_event_before_all_is_acknowledged() {
        let mut outbox = Outbox::new(4);
        let (a, b) = (outbox.push(message("a")), outbox.push(message("b")));
        outbox.end(5);
        outbox.end(6);
        let c = outbox.push(message("c"));
        outbox.end(7);
        outbox.acknowledge(c);
        outbox.acknowledge(b);
        assert_eq!((outbox.published(), outbox.len()), (4, 3));
        let again: Vec<_> = outbox.unacknowledged().map(|sent| sent.message.topic.as_str()).collect();
        assert_eq!(again, ["a", "b", "c"]);
        outbox.acknowledge(a);
        assert_eq!((outbox.published(), outbox.len()), (7, 0));
        outbox.acknowledge(a);
        outbox.end(8);
        assert_eq!(outbox.published(), 8);
    }

    /// Identifiers are never 0, and those that are on their way differ.
    #[test]
    fn outbox_identifiers_wrap_without_zero() {
        let mut outbox = Outbox::new(0);
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..70_000 {
            let id = outbox.push(message("m"));
            ids.insert(id);
            outbox.acknowledge(id);
        }
        assert_eq!((ids.len(), ids.first()), (65_535, Some(&1)));
    }
}
