//! One event of the security log.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

/// One event.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    pub(super) level: Level,
    pub(super) message: String,
    /// What it says of whom and what, in the order in which it is said.
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Record {
        let mut record = Record::new(*event.metadata().level(), String::new());
        event.record(&mut record);
        record
    }

    /// That this many records were lost.
    pub(super) fn lost(number: u64) -> Record {
        let mut record = Record::new(Level::ERROR, "records of this log were lost".to_owned());
        record.fields.push(("number", number.into()));
        record
    }

    fn new(level: Level, message: String) -> Record {
        Record { time: Timestamp::now(), level, message, fields: Vec::new() }
    }

    /// As a line of JSON.
    pub(super) fn to_json(&self) -> String {
        let mut object = Map::new();
        object.insert("time".into(), format!("{:.6}", self.time).into());
        object.insert("level".into(), self.level.as_str().to_lowercase().into());
        object.insert("event".into(), self.message.clone().into());
        for (name, value) in &self.fields {
            object.insert((*name).to_owned(), value.clone());
        }
        format!("{}\n", Value::Object(object))
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push((name, format!("{value:?}").into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.fields.push((name, value.into())),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }
}
