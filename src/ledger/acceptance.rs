//! What an operator accepts while no daemon runs, and which other operators agreed to that very thing.

use super::{actor::Actor, head::ChainHash, wire};

/// What there is to accept, as the journal is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptable {
    /// The ledger's id.
    pub ledger: [u8; 16],
    /// How many entries the journal has.
    pub entries: u64,
    /// Their chain hash.
    pub chain: ChainHash,
    /// What is missing, or which entry the clock contradicts.
    pub what: String,
}

/// Another operator's agreement, which anybody can verify later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Who agreed.
    pub by: Actor,
    /// The certificate that the operator had then, DER.
    pub certificate: Vec<u8>,
    /// Its key's signature over the statement.
    pub signature: Vec<u8>,
}

/// A statement, and who agreed to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The whole text that was signed.
    pub statement: String,
    /// At least two, of different operators.
    pub agreements: Vec<Agreement>,
}

/// Why something is accepted, and with whose agreement.
#[derive(Clone, Debug)]
pub struct Grounds {
    /// For people.
    pub reason: String,
    /// What others agreed to; none where one operator decides alone.
    pub agreed: Option<(Acceptable, Agreed)>,
}

impl From<String> for Grounds {
    fn from(reason: String) -> Grounds {
        Grounds { reason, agreed: None }
    }
}

impl Agreed {
    /// As an entry has it; nothing where nobody else had to agree.
    pub(super) fn to_wire(agreed: Option<&Agreed>) -> (String, Vec<wire::Agreement>) {
        let Some(agreed) = agreed else { return (String::new(), Vec::new()) };
        let agreements = agreed.agreements.iter().map(|Agreement { by, certificate, signature }| wire::Agreement {
            operator: by.to_string(),
            certificate: certificate.clone(),
            signature: signature.clone(),
        });
        (agreed.statement.clone(), agreements.collect())
    }

    /// What an entry has.
    pub(super) fn from_wire(statement: String, agreements: Vec<wire::Agreement>) -> Option<Box<Agreed>> {
        let agreements: Vec<_> = agreements
            .into_iter()
            .map(|wire::Agreement { operator, certificate, signature }| Agreement {
                by: Actor(operator.into()),
                certificate,
                signature,
            })
            .collect();
        (!agreements.is_empty()).then(|| Box::new(Agreed { statement, agreements }))
    }

    /// The names of those who agreed, for people.
    pub fn names(&self) -> String {
        self.agreements.iter().map(|agreement| agreement.by.to_string()).collect::<Vec<_>>().join(" and ")
    }
}
