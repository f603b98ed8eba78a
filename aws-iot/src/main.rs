//! `birthmark-aws`: makes the devices of a birthmark factory known to AWS IoT Core.

use std::process::ExitCode;

use birthmark::version::VERSION;
use birthmark_manual::Manual;
use clap::{CommandFactory, Parser, Subcommand};

mod cli;

/// Makes the devices of a birthmark factory known to AWS IoT Core
///
/// Credentials, region and endpoint come from where the AWS CLI has them. docs/aws-iot.md tells the whole story.
#[derive(Debug, Parser)]
#[command(name = "birthmark-aws", version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    RegisterCa(cli::register_ca::Args),
    Register(cli::register::Args),
    Activate(cli::activate::Args),
    Status(cli::status::Args),
    Doctor(cli::doctor::Args),
    Policy(cli::documents::PolicyArgs),
    Template(cli::documents::TemplateArgs),
    Iam(cli::documents::IamArgs),
    #[command(hide = true)]
    Manual(birthmark_manual::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::RegisterCa(args) => cli::register_ca::run(args),
        Command::Register(args) => cli::register::run(args),
        Command::Activate(args) => cli::activate::run(args),
        Command::Status(args) => cli::status::run(args),
        Command::Doctor(args) => cli::doctor::run(args),
        Command::Policy(args) => cli::documents::policy(&args),
        Command::Template(args) => cli::documents::template(&args),
        Command::Iam(args) => cli::documents::iam(&args),
        Command::Manual(args) => {
            let see_also = "birthmark(1), /usr/share/doc/birthmark-aws/";
            Manual { command: Cli::command(), elsewhere: &[], also_a_program: None, see_also }
                .write(&args)
                .map_err(Into::into)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("birthmark-aws: {}", cli::sentence(&error));
        ExitCode::FAILURE
    })
}
