//! The formats, one file each: its settings, what its platform refuses, and how it is written.

pub(super) mod aws_bulk;
pub(super) mod azure_dps;
pub(crate) mod csv;
pub(super) mod jsonl;
pub(super) mod lines;
pub(super) mod matter;
pub(super) mod thingpress;
