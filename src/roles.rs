//! Who may make which call: the one table, which the daemon asks and `birthmark roles` prints.
//!
//! A peer's role and duties are what its certificate says, or what the configuration says of the Unix socket. Whatever a
//! call changes, the journal names who made it.

use crate::identity::{Duties, Duty, Identity, Role};

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The call, as the protocol names it.
    pub call: &'static str,
    /// Whether stations may; what a station is shown and may change is only ever its own.
    pub station: bool,
    /// Operators who have one of these duties may.
    pub operators: Duties,
    /// Whether auditors may.
    pub auditor: bool,
    /// The commands that make it.
    pub commands: &'static str,
}

impl Rule {
    /// Whether someone of this role, with these duties if it is an operator, may make the call.
    pub fn allows(&self, role: Role, duties: Duties) -> bool {
        match role {
            Role::Station => self.station,
            Role::Operator => self.operators.overlaps(duties),
            Role::Auditor => self.auditor,
        }
    }

    /// Whether this peer may make the call.
    pub fn allows_identity(&self, identity: &Identity) -> bool {
        self.allows(identity.role(), identity.duties())
    }

    /// Who may, in words.
    pub fn who(&self) -> String {
        let operator = match self.operators {
            Duties::NONE => None,
            Duties::ALL => Some("operator".to_owned()),
            duties => Some(format!("operator ({})", duties.iter().map(Duty::as_str).collect::<Vec<_>>().join(" or "))),
        };
        let station = self.station.then(|| "station".to_owned());
        let auditor = self.auditor.then(|| "auditor".to_owned());
        station.into_iter().chain(operator).chain(auditor).collect::<Vec<_>>().join(" or ")
    }
}

const NOBODY: Duties = Duties::NONE;
const ANY: Duties = Duties::ALL;
const PLANNER: Duties = Duties::of(&[Duty::Planner]);
const QUALITY: Duties = Duties::of(&[Duty::Quality]);
const EXPORT: Duties = Duties::of(&[Duty::Export]);
const SECURITY: Duties = Duties::of(&[Duty::Security]);

/// Declares the calls, and the table that has a row for each.
macro_rules! calls {
    ($($call:ident $name:literal $station:literal $operators:ident $auditor:literal $commands:literal;)*) => {
        /// A call of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Call {
            $(#[doc = concat!("`", $name, "`.")] $call,)*
        }

        /// The row of each call, in the order of [`Call`].
        pub const TABLE: &[Rule] = &[$(Rule {
            call: $name,
            station: $station,
            operators: $operators,
            auditor: $auditor,
            commands: $commands,
        }),*];

        impl Call {
            /// All calls.
            pub const ALL: &[Call] = &[$(Call::$call),*];

            /// Who may make it.
            pub fn rule(self) -> Rule {
                match self {
                    $(Call::$call => Rule {
                        call: $name,
                        station: $station,
                        operators: $operators,
                        auditor: $auditor,
                        commands: $commands,
                    },)*
                }
            }
        }
    };
}

// Call, its name, stations, operators with one of these duties, auditors, commands.
calls! {
    Issue "Issuance.Issue" true NOBODY false "station sign";
    IssueOne "Issuance.IssueOne" true NOBODY false "";
    Confirm "Issuance.Confirm" true QUALITY false "station confirm";
    GetIssuer "Issuance.GetIssuer" true ANY true "station sign, station check";
    CreateOrder "Admin.CreateOrder" false PLANNER false "order create";
    GetOrder "Admin.GetOrder" true ANY true "order show";
    ListOrders "Admin.ListOrders" true ANY true "order list";
    CloseOrder "Admin.CloseOrder" false PLANNER false "order close";
    ChangeOrder "Admin.ChangeOrder" false PLANNER false "order change";
    PauseOrder "Admin.PauseOrder" false PLANNER false "order pause";
    ResumeOrder "Admin.ResumeOrder" false PLANNER false "order resume";
    AddOrderDevices "Admin.AddOrderDevices" false PLANNER false "order create";
    ListOrderDevices "Admin.ListOrderDevices" false ANY true "order devices";
    GetRecord "Admin.GetRecord" false ANY true "record show";
    ListRecords "Admin.ListRecords" false ANY true "record list";
    ScrapCertificate "Admin.ScrapCertificate" false QUALITY false "record scrap";
    RevokeCertificate "Admin.RevokeCertificate" false SECURITY false "record revoke";
    RevokeCertificates "Admin.RevokeCertificates" false SECURITY false "record revoke";
    PlanBatch "Admin.PlanBatch" false ANY true "export plan";
    CreateBatch "Admin.CreateBatch" false EXPORT false "export create";
    ListBatches "Admin.ListBatches" false ANY true "export list";
    GetBundle "Admin.GetBundle" false ANY true "export get, export create";
    AcknowledgeBatch "Admin.AcknowledgeBatch" false EXPORT false "export acknowledge";
    ListExports "Admin.ListExports" false ANY true "export list";
    GetExport "Admin.GetExport" false ANY true "export get";
    ListIssuers "Admin.ListIssuers" false ANY true "issuer list";
    RetryHsm "Admin.RetryHsm" false SECURITY false "hsm retry";
    MakeCheckpoint "Admin.MakeCheckpoint" false SECURITY false "journal checkpoint";
    Watch "Admin.Watch" false ANY true "journal watch";
    Reload "Admin.Reload" false SECURITY false "reload";
    ProvePossession "Admin.ProvePossession" false SECURITY false "ca prove";
    CreateVendingCodes "Vending.CreateCodes" false PLANNER false "vend create";
    ListVendingCodes "Vending.ListCodes" false ANY true "vend list";
    CancelVendingCode "Vending.CancelCode" false PLANNER false "vend cancel";
    ListAudit "Audit.List" false ANY true "audit list";
    History "Audit.History" false ANY true "record history";
    ListApprovals "Approvals.List" false ANY true "approval list";
    GrantApproval "Approvals.Grant" false SECURITY false "approval grant";
    Enroll "Stations.Enroll" false SECURITY false "station enroll";
    Import "Stations.Import" false SECURITY false "station import";
    Renew "Stations.Renew" true ANY true "station renew, station sign";
    Supersede "Stations.Supersede" true ANY true "station renew --new-key";
    Check "Stations.Check" true ANY true "station check";
    ListStations "Stations.List" false ANY true "station list, station show";
    RevokeStation "Stations.Revoke" false SECURITY false "station revoke";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_of_a_call_is_its_row_of_the_table() {
        assert_eq!(Call::ALL.len(), TABLE.len());
        for (call, row) in Call::ALL.iter().zip(TABLE) {
            assert_eq!(call.rule(), *row);
            assert!(!row.who().is_empty(), "{}", row.call);
        }
        assert_eq!(Call::Confirm.rule().who(), "station or operator (quality)");
        assert_eq!(Call::ListOrders.rule().who(), "station or operator or auditor");
    }

    /// Who plans orders scraps nothing, and whoever exports revokes nothing: each change is one duty's.
    #[test]
    fn call_that_changes_something_belongs_to_one_duty() {
        for rule in TABLE.iter().filter(|rule| !rule.auditor && rule.operators != NOBODY) {
            assert_eq!(rule.operators.iter().count(), 1, "{}", rule.call);
        }
    }
}
