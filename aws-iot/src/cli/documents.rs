//! `birthmark-aws policy`, `template`, `iam`

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::{Context, anyhow};
use birthmark::config::Config;
use birthmark_aws::{
    bundle::{Bundle, TrustedKeys},
    documents::{self, Scope, iam::Who, jitp},
};
use clap::{Subcommand, ValueEnum};

use super::{print, print_json};

/// The place that ARNs name.
#[derive(Debug, clap::Args)]
struct ScopeArgs {
    /// The region; its partition follows from it (arn:aws-cn: in China) [default: the environment's, or every region]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,

    /// The account's twelve digits [default: every account]
    #[arg(long, value_name = "ID")]
    account: Option<String>,
}

impl ScopeArgs {
    fn scope(&self) -> Scope {
        let environment = |name| std::env::var(name).ok().filter(|region| !region.is_empty());
        let region =
            self.region.clone().or_else(|| environment("AWS_REGION")).or_else(|| environment("AWS_DEFAULT_REGION"));
        let any = || "*".to_owned();
        Scope { region: region.unwrap_or_else(any), account: self.account.clone().unwrap_or_else(any) }
    }
}

/// Print the least privilege policy of a device
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A device connects with its thing's name as client id and a certificate that is attached to the thing; it publishes, receives and \
subscribes below PREFIX/<thing>/ and uses its own shadow. Make it in the account:

  birthmark-aws policy > policy.json
  aws iot create-policy --policy-name device --policy-document file://policy.json")]
pub(crate) struct PolicyArgs {
    /// What the device's topics begin with
    #[arg(long, value_name = "PREFIX", default_value = "devices")]
    topics: String,

    /// Without the device's shadow
    #[arg(long)]
    no_shadow: bool,

    #[command(flatten)]
    scope: ScopeArgs,
}

pub(crate) fn policy(args: &PolicyArgs) -> anyhow::Result<ExitCode> {
    let topics = args.topics.trim_matches('/');
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-/.".contains(character);
    if topics.is_empty() || !topics.chars().all(plain) || topics.starts_with('$') {
        return Err(anyhow!("--topics {topics:?}: a prefix has letters, digits and _ - . /, and no wildcard"));
    }
    print_json(&documents::device_policy(&args.scope.scope(), topics, !args.no_shadow))?;
    Ok(ExitCode::SUCCESS)
}

/// Print or check provisioning templates
#[derive(Debug, clap::Args)]
pub(crate) struct TemplateArgs {
    #[command(subcommand)]
    command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
enum TemplateCommand {
    /// Print the template of a bundle, for AWS's own bulk registration (start-thing-registration-task)
    Bulk {
        /// The bundle
        bundle: PathBuf,

        /// The public key of the factory's audit key; may be repeated
        #[arg(long = "trusted-key", value_name = "FILE", required = true)]
        keys: Vec<PathBuf>,
    },
    /// Print a template for just-in-time provisioning (JITP)
    Jitp(JitpArgs),
    /// Check a template for just-in-time provisioning
    Check {
        /// The template
        file: PathBuf,

        #[command(flatten)]
        profile: ProfileArgs,
    },
}

#[derive(Debug, clap::Args)]
struct JitpArgs {
    /// The policy of each certificate
    #[arg(long, value_name = "NAME", default_value = "device")]
    policy: String,

    /// What of the subject is the thing's name: CommonName, SerialNumber …
    #[arg(long, value_name = "PARAMETER", default_value = "CommonName")]
    thing_name: String,

    /// The thing type of all
    #[arg(long, value_name = "NAME")]
    thing_type: Option<String>,

    /// An attribute of the thing, taken from the subject, such as maker=Organization; may be repeated
    #[arg(long = "attribute", value_name = "NAME=PARAMETER")]
    attributes: Vec<String>,

    #[command(flatten)]
    profile: ProfileArgs,
}

#[derive(Debug, clap::Args)]
struct ProfileArgs {
    /// The factory's configuration: whether certificates of --profile have what the template is filled in from
    #[arg(long, value_name = "FILE", requires = "profile")]
    config: Option<PathBuf>,

    /// The profile of that configuration
    #[arg(long, value_name = "NAME", requires = "config")]
    profile: Option<String>,
}

impl ProfileArgs {
    fn check(&self, template: &serde_json::Value) -> anyhow::Result<()> {
        let (Some(path), Some(name)) = (&self.config, &self.profile) else { return Ok(()) };
        let config = Config::load(path)?;
        let known = || config.profiles.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let profile = config.profiles.get(name);
        let profile = profile.ok_or_else(|| anyhow!("there is no profile \"{name}\"; the profiles are {}", known()))?;
        Ok(jitp::check_against(template, name, profile)?)
    }
}

pub(crate) fn template(args: &TemplateArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        TemplateCommand::Bulk { bundle, keys } => {
            let bundle = Bundle::open(bundle, &TrustedKeys::read(keys)?)?;
            print(&bundle.template_text()?)?;
        }
        TemplateCommand::Jitp(args) => {
            let attribute = |text: &String| {
                let pair = text.split_once('=').map(|(name, parameter)| (name.to_owned(), parameter.to_owned()));
                pair.ok_or_else(|| anyhow!("--attribute {text}: write NAME=PARAMETER, such as maker=Organization"))
            };
            let attributes = args.attributes.iter().map(attribute).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
            let template = jitp::template(&jitp::Wanted {
                policy: args.policy.clone(),
                thing_name: args.thing_name.clone(),
                thing_type: args.thing_type.clone(),
                attributes,
            });
            jitp::check(&template.to_string())?;
            args.profile.check(&template)?;
            print_json(&template)?;
        }
        TemplateCommand::Check { file, profile } => {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let template = jitp::check(&text).with_context(|| file.display().to_string())?;
            profile.check(&template)?;
            print("nothing is wrong with it\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Print the IAM policy that a command needs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  birthmark-aws iam activate --account 123456789012 --region eu-central-1 > activate.json
  aws iam put-user-policy --user-name activator --policy-name birthmark --policy-document file://activate.json")]
pub(crate) struct IamArgs {
    /// Who needs it
    #[arg(value_enum)]
    who: WhoArg,

    /// The ARN of the queue with the events of first connections, for activate and queue-role
    #[arg(long, value_name = "ARN", required_if_eq("who", "queue-role"))]
    queue: Option<String>,

    #[command(flatten)]
    scope: ScopeArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhoArg {
    /// birthmark-aws register-ca
    RegisterCa,
    /// birthmark-aws register
    Register,
    /// birthmark-aws activate
    Activate,
    /// birthmark-aws status
    Status,
    /// birthmark-aws doctor
    Doctor,
    /// The role of the topic rule that feeds the queue
    QueueRole,
    /// The role in which AWS IoT provisions (JITP, bulk registration)
    ProvisioningRole,
    /// The trust policy of both roles
    Trust,
}

pub(crate) fn iam(args: &IamArgs) -> anyhow::Result<ExitCode> {
    let who = match args.who {
        WhoArg::RegisterCa => Who::RegisterCa,
        WhoArg::Register => Who::Register,
        WhoArg::Activate => Who::Activate,
        WhoArg::Status => Who::Status,
        WhoArg::Doctor => Who::Doctor,
        WhoArg::QueueRole => Who::QueueRole,
        WhoArg::ProvisioningRole => Who::ProvisioningRole,
        WhoArg::Trust => {
            print_json(&documents::iam::trust(&args.scope.scope()))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    print_json(&documents::iam::policy(who, &args.scope.scope(), args.queue.as_deref()))?;
    Ok(ExitCode::SUCCESS)
}
