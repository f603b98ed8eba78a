//! IAM policies: the least that each command needs.

use serde_json::{Value, json};

use super::Scope;
use crate::arn::partition_of;

/// Who needs a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// `register-ca`.
    RegisterCa,
    /// `register`.
    Register,
    /// `activate`.
    Activate,
    /// `status`.
    Status,
    /// `doctor`, which also looks whether the others' calls are allowed; so it has none of its own but to look.
    Doctor,
    /// The role of the topic rule that feeds the queue.
    QueueRole,
    /// The role in which AWS IoT provisions (JITP, bulk registration).
    ProvisioningRole,
}

/// What AWS IoT knows no resource for.
const ANY: &str = "*";

fn allow(actions: &[&str], resources: Vec<String>) -> Value {
    let actions: Vec<_> = actions.iter().map(|action| format!("iot:{action}")).collect();
    json!({ "Effect": "Allow", "Action": actions, "Resource": resources })
}

/// What is needed to give certificates their things and policies, and to end them.
fn settle(scope: &Scope) -> Vec<Value> {
    vec![
        allow(&["DescribeCertificate", "UpdateCertificate"], vec![scope.arn("cert/*")]),
        allow(&["AttachPolicy"], vec![scope.arn("cert/*")]),
        allow(&["CreateThing", "UpdateThing"], vec![scope.arn("thing/*")]),
        allow(&["AddThingToThingGroup"], vec![scope.arn("thing/*"), scope.arn("thinggroup/*")]),
        allow(
            &["ListThingPrincipals", "ListPrincipalThings", "AttachThingPrincipal", "DetachThingPrincipal"],
            vec![ANY.into()],
        ),
    ]
}

/// The statements of a policy for this purpose. `queue` is the ARN of the queue with the events of first connections.
pub fn policy(who: Who, scope: &Scope, queue: Option<&str>) -> Value {
    let mut statements = Vec::new();
    let sqs = |actions: &[&str]| queue.map(|queue| json!({ "Effect": "Allow", "Action": actions, "Resource": queue }));
    match who {
        Who::RegisterCa => {
            statements.push(allow(&["GetRegistrationCode", "RegisterCACertificate"], vec![ANY.into()]));
            statements.push(allow(&["DescribeCACertificate", "UpdateCACertificate"], vec![scope.arn("cacert/*")]));
        }
        Who::Register => {
            let register =
                ["RegisterCertificate", "RegisterCertificateWithoutCA", "ListCertificatesByCA", "ListCertificates"];
            statements.push(allow(&register, vec![ANY.into()]));
            statements.push(allow(&["DescribeCACertificate"], vec![scope.arn("cacert/*")]));
            statements.push(allow(&["GetPolicy"], vec![scope.arn("policy/*")]));
            statements.push(allow(&["DescribeThingType"], vec![scope.arn("thingtype/*")]));
            statements.push(allow(&["DescribeThingGroup"], vec![scope.arn("thinggroup/*")]));
            statements.extend(settle(scope));
        }
        Who::Activate => {
            statements.push(allow(&["ListCertificatesByCA"], vec![ANY.into()]));
            statements.extend(settle(scope));
            statements.extend(sqs(&["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueUrl"]));
        }
        Who::Status => {
            statements.push(allow(&["ListCACertificates", "ListCertificatesByCA"], vec![ANY.into()]));
            statements.push(allow(&["DescribeCACertificate"], vec![scope.arn("cacert/*")]));
        }
        Who::Doctor => {
            statements.push(allow(&["DescribeEndpoint", "ListCACertificates"], vec![ANY.into()]));
            statements.push(allow(&["DescribeCACertificate"], vec![scope.arn("cacert/*")]));
            statements.push(allow(&["GetPolicy"], vec![scope.arn("policy/*")]));
            statements.push(allow(&["DescribeThingType"], vec![scope.arn("thingtype/*")]));
            statements.push(allow(&["DescribeThingGroup"], vec![scope.arn("thinggroup/*")]));
        }
        Who::QueueRole => statements.extend(sqs(&["sqs:SendMessage"])),
        Who::ProvisioningRole => {
            statements.push(allow(
                &["RegisterCertificate", "RegisterCertificateWithoutCA", "AttachThingPrincipal", "DescribeCertificate"],
                vec![ANY.into()],
            ));
            statements.push(allow(&["UpdateCertificate", "AttachPolicy"], vec![scope.arn("cert/*")]));
            let things = ["CreateThing", "UpdateThing", "DescribeThing", "AddThingToThingGroup"];
            statements.push(allow(&things, vec![scope.arn("thing/*"), scope.arn("thinggroup/*")]));
            statements.push(allow(&["DescribeThingGroup", "ListThingGroupsForThing"], vec![ANY.into()]));
        }
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// Lets AWS IoT take a role on.
pub fn trust(scope: &Scope) -> Value {
    let mut statement = json!({
        "Effect": "Allow",
        "Principal": { "Service": "iot.amazonaws.com" },
        "Action": "sts:AssumeRole",
    });
    if scope.account != ANY {
        // So that no other account can make AWS IoT act in it (confused deputy).
        statement["Condition"] = json!({
            "StringEquals": { "aws:SourceAccount": scope.account },
            "ArnLike": { "aws:SourceArn": format!("arn:{}:iot:*:{}:*", partition_of(&scope.region), scope.account) },
        });
    }
    json!({ "Version": "2012-10-17", "Statement": [statement] })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No policy lets anybody make policies, delete anything, or do everything.
    #[test]
    fn iam_policy_has_no_wildcard_action() {
        let scope = Scope { region: "eu-central-1".into(), account: "123456789012".into() };
        let queue = Some("arn:aws:sqs:eu-central-1:123456789012:jitr");
        for who in [
            Who::RegisterCa,
            Who::Register,
            Who::Activate,
            Who::Status,
            Who::Doctor,
            Who::QueueRole,
            Who::ProvisioningRole,
        ] {
            let policy = policy(who, &scope, queue);
            for statement in policy["Statement"].as_array().unwrap() {
                for action in statement["Action"].as_array().unwrap() {
                    let action = action.as_str().unwrap();
                    let forbidden = action.contains('*') || action.contains("Delete") && !action.starts_with("sqs:");
                    assert!(!forbidden && !action.contains("CreatePolicy"), "{who:?}: {action}");
                }
            }
        }
        assert!(!policy(Who::Activate, &scope, None).to_string().contains("sqs"));
        assert!(trust(&scope).to_string().contains("aws:SourceAccount"));
    }
}
