//! The documents that AWS wants: device policies, provisioning templates, IAM policies. All are printed, none is made in the
//! account: who may make policies can give himself everything.

pub mod iam;
pub mod jitp;

use serde_json::{Value, json};

use crate::arn::partition_of;

/// The place that the ARNs of a document name; `*` is every region or account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Such as `eu-central-1`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

impl Scope {
    fn arn(&self, resource: &str) -> String {
        format!("arn:{}:iot:{}:{}:{resource}", partition_of(&self.region), self.region, self.account)
    }
}

/// The name of the thing that the connection's certificate is attached to, as AWS IoT fills it in.
const THING: &str = "${iot:Connection.Thing.ThingName}";

/// The least that a device needs: to connect as its own thing, with a certificate that is attached to it, and to use the
/// topics below `prefix/<thing>` and its own shadow.
pub fn device_policy(scope: &Scope, prefix: &str, shadow: bool) -> Value {
    let own = |kind: &str| {
        let mut resources = vec![scope.arn(&format!("{kind}/{prefix}/{THING}/*"))];
        if shadow {
            resources.push(scope.arn(&format!("{kind}/$aws/things/{THING}/shadow/*")));
        }
        resources
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": scope.arn(&format!("client/{THING}")),
                "Condition": { "Bool": { "iot:Connection.Thing.IsAttached": ["true"] } },
            },
            { "Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": own("topic") },
            { "Effect": "Allow", "Action": "iot:Subscribe", "Resource": own("topicfilter") },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device policy never names more than the device's own: no wildcard stands for a client or a whole topic tree.
    #[test]
    fn device_policy_names_the_device_alone() {
        let scope = Scope { region: "cn-north-1".into(), account: "123456789012".into() };
        let policy = device_policy(&scope, "devices", true);
        let mut resources = Vec::new();
        for statement in policy["Statement"].as_array().unwrap() {
            match &statement["Resource"] {
                Value::String(one) => resources.push(one.clone()),
                many => resources.extend(many.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned())),
            }
        }
        assert_eq!(resources.len(), 5);
        for resource in resources {
            assert!(resource.starts_with("arn:aws-cn:iot:cn-north-1:123456789012:"), "{resource}");
            assert!(resource.contains(THING), "{resource}");
        }
        let connect = &policy["Statement"][0];
        assert_eq!(connect["Condition"]["Bool"]["iot:Connection.Thing.IsAttached"][0], "true");
        assert!(!device_policy(&scope, "devices", false).to_string().contains("shadow"));
    }
}
