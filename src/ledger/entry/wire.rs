//! What is generated from `proto/birthmark/v1/journal.proto`.
#![expect(unreachable_pub, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/birthmark.journal.v1.rs"));
