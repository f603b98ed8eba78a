//! `birthmark-bench`: the commands `birthmark demo` and `birthmark bench`, in a program of their own so that the
//! daemon's holds neither a load generator nor throw-away CAs. `birthmark` starts it; it starts `birthmark`.

use std::process::ExitCode;

use birthmark::version::VERSION;
use birthmark_manual::Manual;
use clap::{CommandFactory, Parser, Subcommand};

mod console;
mod demo;
mod load;
mod trial;

/// As the daemon has it, so that stations cost what they did when they were one program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The demonstration of birthmark, and its load generator.
#[derive(Debug, Parser)]
#[command(name = "birthmark", bin_name = "birthmark", version = VERSION, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a complete demonstration on this machine: SoftHSM token, ceremony, daemon, stations, export
    Demo(demo::Args),
    /// Measure how many certificates a second this machine makes, and where the time goes
    Bench(Box<load::Args>),
    #[command(hide = true)]
    Manual(birthmark_manual::Args),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Err(error) = birthmark::secrecy::forbid_core_dumps() {
        eprintln!("birthmark: a crash might write keys into a core dump, and that cannot be switched off: {error}");
        return ExitCode::FAILURE;
    }
    let result = match command {
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => load::run(*args),
        Command::Manual(args) => {
            let pages = Manual {
                command: Cli::command(),
                elsewhere: &["birthmark"],
                also_a_program: None,
                see_also: "birthmark(1)",
            };
            pages.write(&args).map_err(Into::into)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("birthmark: {error:#}");
        ExitCode::FAILURE
    })
}
