//! The commands of a station, for this package's program and for `birthmark station`: one file a command.

use std::process::ExitCode;

use birthmark_base::console;
use clap::Subcommand;

mod check;
mod confirm;
pub mod connection;
mod keys;
mod shared;
mod sign;
mod signals;
mod watching;

pub use self::shared::block_on;

/// What runs on a test stand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a station's key where it is used, and the request to certify it
    Request(keys::RequestArgs),
    /// Renew the certificate of an identity, with its key or a new one, over the connection that it makes
    Renew(keys::RenewArgs),
    /// Check all that a shift needs: clock, certificate, daemon, order, profile, round trip to the HSM
    #[command(after_long_help = check::AFTER)]
    Check(check::Args),
    /// Write an identity as a PKCS#12 file, for Windows, browsers and Java
    Pkcs12(keys::Pkcs12Args),
    /// Get a certificate for every CSR of a folder, a file or a pipe
    #[command(long_about = sign::ABOUT, after_long_help = sign::AFTER)]
    Sign(Box<sign::Args>),
    /// Confirm that devices have installed their certificates
    #[command(after_long_help = confirm::AFTER)]
    Confirm(confirm::Args),
}

/// The command line, read as clap does it, with what is wrong in plain words.
pub fn arguments<T>(read: Result<T, clap::Error>) -> T {
    read.unwrap_or_else(|error| {
        let plain = (error.kind() == clap::error::ErrorKind::ValueValidation)
            .then(|| console::plain(&error.render().to_string()));
        match plain {
            Some(plain) => {
                eprint!("{plain}");
                std::process::exit(2)
            }
            None => error.exit(),
        }
    })
}

/// Runs a command; gives the program's exit code.
///
/// # Errors
/// Why nothing was done, or not all of it.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Request(args) => keys::request(args),
        Command::Renew(args) => keys::renew(args),
        Command::Check(args) => check::run(args),
        Command::Pkcs12(args) => keys::write_pkcs12(args),
        Command::Sign(args) => block_on(sign::run(args)),
        Command::Confirm(args) => block_on(confirm::run(args)),
    }
}
