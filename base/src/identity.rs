//! Who a peer is: a role and a name, as the URI SAN of its certificate has them.
//!
//! | role | URN | may |
//! |---|---|---|
//! | station | `urn:birthmark:station:<line>/<station>` | issue and confirm |
//! | operator | `urn:birthmark:operator:<name>` | all that operators do |
//! | | `urn:birthmark:operator:<name>:<duty>+<duty>…` | what these duties are for: `planner`, `quality`, `export`, `security` |
//! | auditor | `urn:birthmark:auditor:<name>` | read |
//!
//! Each part of a name is `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`. What is
//! written into certificates and what the daemon reads from them is decided here alone; which call needs which role is
//! the daemon's table.

use std::{fmt, str::FromStr, sync::Arc};

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks for certificates and confirms them. Its name is `<line>/<station>`.
    Station,
    /// Manages orders, exports and revocation.
    Operator,
    /// Reads.
    Auditor,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 3] = [Role::Station, Role::Operator, Role::Auditor];

    /// As URNs and the ledger's actors write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Station => "station",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
        }
    }
}

/// What an operator may be limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Orders.
    Planner,
    /// Scrap, and what devices have taken.
    Quality,
    /// Exports.
    Export,
    /// Revocations, stations, keys.
    Security,
}

impl Duty {
    /// All duties.
    pub const ALL: [Duty; 4] = [Duty::Planner, Duty::Quality, Duty::Export, Duty::Security];

    /// As URNs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Duty::Planner => "planner",
            Duty::Quality => "quality",
            Duty::Export => "export",
            Duty::Security => "security",
        }
    }
}

/// A set of duties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duties(u8);

impl Duties {
    /// Every duty: what an operator has that is not limited.
    pub const ALL: Duties = Duties::of(&Duty::ALL);

    /// None: whoever is no operator.
    pub const NONE: Duties = Duties(0);

    /// These duties.
    pub const fn of(duties: &[Duty]) -> Duties {
        let (mut set, mut rest) = (0, duties);
        while let [first, others @ ..] = rest {
            set |= 1 << *first as u8;
            rest = others;
        }
        Duties(set)
    }

    /// Whether a duty is one of them.
    pub fn has(self, duty: Duty) -> bool {
        self.overlaps(Duties::of(&[duty]))
    }

    /// Whether one of them is one of the others.
    pub fn overlaps(self, others: Duties) -> bool {
        self.0 & others.0 != 0
    }

    /// Those that are in the set.
    pub fn iter(self) -> impl Iterator<Item = Duty> {
        Duty::ALL.into_iter().filter(move |duty| self.has(*duty))
    }
}

/// Separated by `+`.
impl fmt::Display for Duties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Duty::as_str).collect();
        f.write_str(&names.join("+"))
    }
}

impl FromStr for Duties {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let mut duties = Duties::NONE;
        for name in text.split('+') {
            let known = Duty::ALL.into_iter().find(|duty| duty.as_str() == name);
            let duty = known.ok_or_else(|| InvalidIdentity::Duty(name.to_owned()))?;
            duties = Duties(duties.0 | Duties::of(&[duty]).0);
        }
        Ok(duties)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a name is no name of a peer, or a URI no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// A station's name does not have two parts.
    #[error("\"{0}\" is not <line>/<station>, such as line1/tester3")]
    NotLineAndStation(String),
    /// The name of someone else has several.
    #[error("\"{0}\" has a \"/\"; only a station has two parts")]
    SeveralParts(String),
    /// A part has other characters, or is empty or too long.
    #[error(
        "\"{0}\" is not a usable name; each part has 1 to 64 letters, digits, \".\", \"_\" or \"-\", and begins with a letter or digit"
    )]
    Name(String),
    /// An operator's duty is none that is known.
    #[error("\"{0}\" is no duty of an operator; the duties are planner, quality, export and security")]
    Duty(String),
    /// Someone else than an operator has duties.
    #[error("only an operator is limited to duties")]
    DutiesOfOthers,
    /// The URI is not `urn:birthmark:<role>:<name>` with a known role.
    #[error("\"{0}\" is not urn:birthmark:<role>:<name> with the role station, operator or auditor")]
    Urn(String),
}

/// A role and a name in it. It is shown as its URN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    role: Role,
    name: Arc<str>,
    duties: Duties,
}

const PREFIX: &str = "urn:birthmark:";

impl Identity {
    /// Checks the name.
    ///
    /// # Errors
    /// If someone with this role cannot have this name.
    pub fn new(role: Role, name: &str) -> Result<Self, InvalidIdentity> {
        match role {
            Role::Station => match name.split_once('/') {
                Some((line, station)) if !station.contains('/') => {
                    if !is_part(line) || !is_part(station) {
                        return Err(InvalidIdentity::Name(name.to_owned()));
                    }
                }
                _ => return Err(InvalidIdentity::NotLineAndStation(name.to_owned())),
            },
            Role::Operator | Role::Auditor => check_name(name)?,
        }
        let duties = if role == Role::Operator { Duties::ALL } else { Duties::NONE };
        Ok(Identity { role, name: name.into(), duties })
    }

    /// The same, limited to these duties.
    ///
    /// # Errors
    /// If it is no operator.
    pub fn limited_to(self, duties: Duties) -> Result<Self, InvalidIdentity> {
        match self.role {
            Role::Operator => Ok(Identity { duties, ..self }),
            Role::Station | Role::Auditor => Err(InvalidIdentity::DutiesOfOthers),
        }
    }

    /// What it may do as an operator; none if it is something else.
    pub fn duties(&self) -> Duties {
        self.duties
    }

    /// Role and name, as the ledger's actors are written; duties are no part of it.
    pub fn actor(&self) -> String {
        format!("{}:{}", self.role, self.name)
    }

    /// What it may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its name, without the role.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

/// Checks a name of one part.
///
/// # Errors
/// If it has several, or other characters.
pub fn check_name(name: &str) -> Result<(), InvalidIdentity> {
    if name.contains('/') {
        return Err(InvalidIdentity::SeveralParts(name.to_owned()));
    }
    if is_part(name) { Ok(()) } else { Err(InvalidIdentity::Name(name.to_owned())) }
}

fn is_part(part: &str) -> bool {
    part.len() <= 64
        && part.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:{}", self.role, self.name)?;
        match self.duties {
            Duties::NONE | Duties::ALL => Ok(()),
            duties => write!(f, ":{duties}"),
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(uri: &str) -> Result<Self, InvalidIdentity> {
        let unknown = || InvalidIdentity::Urn(uri.to_owned());
        let (role, name) = uri.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or_else(unknown)?;
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role).ok_or_else(unknown)?;
        match name.split_once(':') {
            Some((name, duties)) if role == Role::Operator => {
                Identity::new(role, name)?.limited_to(duties.parse().map_err(|_| unknown())?)
            }
            _ => Identity::new(role, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn station_has_a_name_of_two_parts_and_the_others_of_one() {
        let urn = |role, name: &str| Identity::new(role, name).map(|identity| identity.to_string());
        assert_eq!(urn(Role::Station, "line1/tester3"), Ok("urn:birthmark:station:line1/tester3".into()));
        assert_eq!(urn(Role::Operator, "a.b_c-9"), Ok("urn:birthmark:operator:a.b_c-9".into()));
        assert_eq!(urn(Role::Auditor, "x"), Ok("urn:birthmark:auditor:x".into()));
        for name in ["line1", "a/b/c", "/b", "a/", "a/.b", "a/-b", "a b/c", "a/b\u{e9}", "a/b:c", "*/b"] {
            assert!(urn(Role::Station, name).is_err(), "{name}");
        }
        assert!(urn(Role::Operator, "a/b").is_err());
        assert!(urn(Role::Operator, &"a".repeat(64)).is_ok());
        assert!(urn(Role::Operator, &"a".repeat(65)).is_err());
    }

    /// Only well formed names have a role.
    #[test]
    fn peer_name_that_is_not_well_formed_has_no_role() {
        for (uri, expected) in [
            ("urn:birthmark:station:line1/t3", Some((Role::Station, "line1/t3"))),
            ("urn:birthmark:operator:alice", Some((Role::Operator, "alice"))),
            ("urn:birthmark:auditor:bob", Some((Role::Auditor, "bob"))),
            ("urn:birthmark:station:t3", None),
            ("urn:birthmark:station:line1/", None),
            ("urn:birthmark:station:line1/.t3", None),
            ("urn:birthmark:station:-line1/t3", None),
            ("urn:birthmark:station:a/b/c", None),
            ("urn:birthmark:operator:a/b", None),
            ("urn:birthmark:operator:", None),
            ("urn:birthmark:operator:_a", None),
            ("urn:birthmark:root:alice", None),
            ("urn:birthmark:server:alice", None),
            ("URN:birthmark:operator:alice", None),
            ("urn:birthmark:operator:alice\u{0}", None),
        ] {
            let parsed = uri.parse::<Identity>().ok();
            assert_eq!(parsed.as_ref().map(|found| (found.role(), &**found.name())), expected, "{uri}");
            if let Some(parsed) = parsed {
                assert_eq!(parsed.to_string(), uri);
            }
        }
    }

    #[test]
    fn operator_limited_to_duties_has_them_in_the_urn() {
        let urn = "urn:birthmark:operator:anna:planner+export";
        let anna: Identity = urn.parse().unwrap();
        assert_eq!((anna.to_string().as_str(), anna.actor().as_str()), (urn, "operator:anna"));
        assert!(anna.duties().has(Duty::Planner) && anna.duties().has(Duty::Export));
        assert!(!anna.duties().has(Duty::Quality) && !anna.duties().has(Duty::Security));
        let all: Identity = "urn:birthmark:operator:anna".parse().unwrap();
        assert_eq!(all.duties(), Duties::ALL);
        for wrong in ["operator:anna:", "operator:anna:root", "operator:anna:planner+", "operator::planner"] {
            assert!(format!("urn:birthmark:{wrong}").parse::<Identity>().is_err(), "{wrong}");
        }
        for wrong in ["station:l/t:planner", "auditor:eve:planner", "operator:anna:planner:export"] {
            assert!(format!("urn:birthmark:{wrong}").parse::<Identity>().is_err(), "{wrong}");
        }
    }
}
