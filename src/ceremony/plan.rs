//! The plan in words: what the people at the ceremony read before they say yes.

use std::{collections::HashMap, fmt, path::PathBuf, time::SystemTime};

use super::{
    certificate::{cas_below, date},
    file::{Action, Authority, CeremonyFile, IssuerKey, KeyRef, People, Witness},
    import::Imported,
    keys::Tokens,
    signature,
};
use crate::name::Attribute;

/// A checked ceremony. Its `Display` is what the people at the ceremony read before they say yes.
#[derive(Debug)]
pub struct Plan {
    pub(super) file: CeremonyFile,
    pub(super) tokens: Tokens,
    pub(super) now: SystemTime,
    /// What would be imported, by the path where it goes.
    pub(super) imported: HashMap<PathBuf, Imported>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Ceremony   {}", self.file.source.path().display())?;
        self.write_people(f)?;
        for (_, token) in self.tokens.iter() {
            let token = token.identity();
            writeln!(
                f,
                "Token      \"{}\", serial {}, {} {}",
                token.label, token.serial, token.manufacturer, token.model
            )?;
        }
        for (index, step) in self.file.steps.iter().enumerate() {
            let key = self.key(&step.token, step.key.get_ref());
            writeln!(f, "\n{:>2}. {}", index + 1, step.name)?;
            match &step.action {
                Action::SelfSigned { authority } => {
                    writeln!(f, "    make        {} {key}", authority.kind)?;
                    self.write_authority(f, authority, "itself")?;
                }
                Action::Intermediate { authority, issuer } => {
                    writeln!(f, "    make        {} {key}", authority.kind)?;
                    let key = match &issuer.key {
                        IssuerKey::Token(KeyRef { token, label }) => self.key(token, label.get_ref()),
                        IssuerKey::File(file) => format!("the key in {}", file.written.display()),
                    };
                    self.write_authority(
                        f,
                        authority,
                        &format!("{} with {key}", issuer.certificate.written.display()),
                    )?;
                }
                Action::Request { kind, subject, request } => {
                    writeln!(f, "    make        {kind} {key}")?;
                    writeln!(f, "    request     a CA certificate for {}", name(subject))?;
                    writeln!(f, "    write       {}", request.written.display())?;
                }
                Action::AuditKey { kind, public_key } => {
                    writeln!(f, "    make        {kind} {key}, which vouches for the journal")?;
                    writeln!(f, "    write       {}", public_key.written.display())?;
                }
                Action::Prove { code, issuer, certificate } => {
                    let shape = code.shape().map_or_else(String::new, |shape| format!(", {shape}"));
                    writeln!(f, "    use         {key} of {}", issuer.certificate.written.display())?;
                    writeln!(f, "    prove       to whoever gave the code {code}{shape}")?;
                    writeln!(f, "                that this key is here, for 24 hours")?;
                    writeln!(f, "    write       {}", certificate.written.display())?;
                }
                Action::Import(import) => {
                    writeln!(f, "    use         {key}")?;
                    writeln!(
                        f,
                        "    import      {}, issued by {}",
                        import.signed.written.display(),
                        import.root.written.display()
                    )?;
                    if let Some(imported) = self.imported.get(&import.certificate.path) {
                        write!(f, "{imported}")?;
                    }
                    for place in std::iter::once(&import.certificate).chain(&import.root_certificate) {
                        writeln!(f, "    write       {}", place.written.display())?;
                    }
                }
            }
        }
        writeln!(f, "\nRecord     {}", self.file.record.written.display())?;
        match &self.file.record_key {
            None => f.write_str("           not signed: there is no audit-key step and no sign_with"),
            Some(KeyRef { token, label }) => {
                let place = signature::place(&self.file.record);
                let key = self.key(token, label.get_ref());
                write!(f, "           signed with {key}, in {}", place.written.display())
            }
        }
    }
}

impl Plan {
    fn write_people(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let People { script, operator, witnesses } = &self.file.people;
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "none named".to_owned());
        writeln!(f, "Script     {}", named(script))?;
        writeln!(f, "Operator   {}", named(operator))?;
        if witnesses.is_empty() {
            writeln!(f, "Witness    none named")?;
        }
        for Witness { name, role } in witnesses {
            writeln!(f, "Witness    {name}, {role}")?;
        }
        Ok(())
    }

    /// A key, with its token where there are several.
    fn key(&self, token: &str, label: &str) -> String {
        match self.tokens.token(token) {
            Ok(token) if self.file.tokens.len() > 1 => {
                format!("key \"{label}\" in token \"{}\"", token.identity().label)
            }
            _ => format!("key \"{label}\""),
        }
    }

    fn write_authority(&self, f: &mut fmt::Formatter<'_>, authority: &Authority, issuer: &str) -> fmt::Result {
        let expiry = authority.not_after.get_ref().moment(self.now);
        let below = cas_below(authority.path_length.map(u64::from));
        writeln!(f, "    certify     {}", name(&authority.subject))?;
        writeln!(f, "                by {issuer}, until {}, {below}", date(expiry))?;
        writeln!(f, "    write       {}", authority.certificate.written.display())
    }
}

fn name(attributes: &[Attribute]) -> String {
    attributes
        .iter()
        .map(|attribute| format!("{}={}", attribute.type_name(), attribute.value))
        .collect::<Vec<_>>()
        .join(", ")
}
