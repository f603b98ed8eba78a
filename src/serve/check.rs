//! A configuration tried out without a start: all that is wrong with it, and what will be soon. The HSM is not asked.

use std::{collections::BTreeSet, fmt::Display, path::Path, sync::Arc};

use jiff::Timestamp;

use super::{
    certificates::watched,
    destinations, ledger,
    lists::Lists,
    peers::{ClientCrl, certifier, socket_role},
    security,
    tls::open_tls,
};
use crate::{
    ca::IssuingCa,
    config::{self, Config, ConfigError},
    configure::{self, Issuers},
    grpc::Access,
    hsm::KeyUri,
    lint::{self, Severity},
    profile::Profile,
    signer::UnavailableSigner,
};

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Each keeps the daemon from starting.
    pub problems: Vec<String>,
    /// None of these does, yet.
    pub warnings: Vec<String>,
}

impl Checked {
    fn note<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let error = error.to_string();
                // One file may be read for several reasons.
                if !self.problems.contains(&error) {
                    self.problems.push(error);
                }
                None
            }
        }
    }
}

/// Reads a configuration and all files that it names.
pub fn check(file: &Path) -> Checked {
    let (config, problems) = Config::load_with_all_problems(file);
    let problems = problems.iter().map(ToString::to_string).collect();
    let mut checked = Checked { problems, warnings: Vec::new() };
    let Some(config) = config else { return checked };
    let now = Timestamp::now();
    let mut issuers = Issuers::new();
    for (name, settings) in &config.issuers {
        if let Some((chain, algorithm)) = checked.note(configure::chain(&config, name, settings, now)) {
            let issuer = IssuingCa::new(name, chain, Arc::new(UnavailableSigner(algorithm)));
            issuers.insert(name.clone(), Arc::new(issuer.with_crl_shards(settings.crl_shards())));
        }
        for uri in settings.key_uri.get_ref().uris() {
            let problem = |error: &dyn Display| {
                config.error_at(settings.key_uri.span(), &format!("issuers.{name}.key_uri"), error)
            };
            checked.note(check_key(&config, uri, &problem));
        }
    }
    if let Some(audit) = &config.audit {
        let problem = |error: &dyn Display| config.error_at(audit.key_uri.span(), "audit.key_uri", error);
        checked.note(check_key(&config, audit.key_uri.get_ref(), &problem));
    }
    let whole = issuers.len() == config.issuers.len();
    for (name, settings) in &config.profiles {
        // What is wrong with its issuer is said already.
        if whole || issuers_of(settings).iter().all(|issuer| issuers.contains_key(*issuer)) {
            check_profile(&config, name, settings, &issuers, &mut checked);
        }
    }
    for (name, section) in &config.destinations {
        // What is wrong with its terms is said already.
        if section.terms().is_ok() {
            checked.note(destinations::one(&config, name, section));
        }
    }
    checked.note(configure::refused_keys(&config, &issuers));
    checked.note(open_tls(&config, &Access::new()));
    checked.note(socket_role(&config));
    checked.note(certifier(&config));
    checked.note(security::receiver(&config));
    checked.note(ClientCrl::read(&config));
    checked.note(configure::check_client_ca(&config, &issuers));
    if whole {
        checked.note(Lists::read(&config, &issuers));
    }
    if let Some(watched) = checked.note(watched(&config, &issuers)) {
        checked.warnings.extend(watched.iter().filter_map(|certificate| certificate.notice_at(now)));
    }
    let (wrong, warning) = ledger::check(&config);
    checked.note(wrong.map_or(Ok(()), Err));
    checked.warnings.extend(warning);
    if let Some(mirror) = config.ledger.mirror.as_ref().filter(|mirror| !config.resolve(mirror.get_ref()).is_dir()) {
        let message = "there is no such folder; make it by hand on the disk that it is to be on";
        checked.warnings.push(config.error_at(mirror.span(), "ledger.mirror", message).to_string());
    }
    checked
}

/// A key's URI, and the file with the token's PIN.
fn check_key(config: &Config, uri: &str, problem: &dyn Fn(&dyn Display) -> ConfigError) -> Result<(), ConfigError> {
    let uri = KeyUri::parse(uri).map_err(|error| problem(&error))?;
    uri.token.check_pin_file(config.folder()).map_err(|error| problem(&error))
}

fn issuers_of(settings: &config::Profile) -> BTreeSet<&str> {
    let lines = settings.issuers.iter().map(|line| line.get_ref().name.get_ref().as_str());
    settings.issuer.iter().map(|issuer| issuer.get_ref().as_str()).chain(lines).collect()
}

fn check_profile(config: &Config, name: &str, settings: &config::Profile, issuers: &Issuers, checked: &mut Checked) {
    let Ok(profile) = Profile::new(config, name, settings, issuers) else {
        for fault in Profile::faults(config, name, settings, issuers) {
            checked.note(Err::<(), _>(fault));
        }
        return;
    };
    for finding in lint::profile(&profile, settings, Timestamp::now()) {
        let error = config.profile_error(name, finding.key, &finding).to_string();
        match finding.severity {
            Severity::Error => checked.problems.push(error),
            Severity::Warning => checked.warnings.push(error),
        }
    }
}
