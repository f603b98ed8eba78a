//! A whole site on one machine: token, CA keys and certificates, configuration, identities, and daemons that are
//! started and stopped, all with the real program in processes of its own.
//!
//! `birthmark demo` shows it, `birthmark bench` measures it, and the integration tests run on it. The daemon's program
//! has none of this: demo and load generator are the program `birthmark-bench`, which `birthmark` finds beside itself.

pub mod assertions;
pub mod manual;
pub mod pages;
pub mod patroni;
pub mod port;
pub mod postgres;
pub mod process;
pub mod program;
pub mod proxy;
pub mod shared;
pub mod site;
pub mod softhsm;
