//! Whether all is there that registration and activation need, and what to do where it is not.
//!
//! Whether a call is allowed is found out by making it for something that is not there: AWS refuses the credentials before
//! it looks for the thing. Nothing is made or changed.

use serde::Serialize;
use serde_json::Value;

use crate::{
    arn::{CertificateId, Place, partition_of},
    failure::{CallError, Kind},
    issuing_ca::IssuingCa,
    limits::Api,
    platform::{NewAuthority, Platform, Thing},
};

/// What is looked for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// CAs: id and subject.
    pub authorities: Vec<(CertificateId, String)>,
    /// Policies of devices.
    pub policies: Vec<String>,
    /// Thing types.
    pub thing_types: Vec<String>,
    /// Thing groups.
    pub thing_groups: Vec<String>,
    /// The role in which AWS IoT provisions.
    pub role: Option<String>,
    /// Whether devices are made active at their first connection.
    pub jitr: bool,
}

impl Wanted {
    /// Adds the CA in a file.
    pub fn add_ca(&mut self, ca: &IssuingCa) {
        self.authorities.push((ca.id, ca.subject.clone()));
    }
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and could do harm.
    Warning,
    /// It will not work.
    Bad,
}

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty if nothing.
    pub to_do: String,
}

fn check(what: impl Into<String>, verdict: Verdict, found: impl Into<String>, to_do: impl Into<String>) -> Check {
    Check { what: what.into(), verdict, found: found.into(), to_do: to_do.into() }
}

/// A call that failed is a line, too.
fn failed(what: &str, error: &CallError) -> Check {
    let to_do = match error.kind {
        Kind::Denied => "give the credentials what \"birthmark-aws iam doctor\" prints",
        _ => "mend that first",
    };
    check(what, Verdict::Bad, error.to_string(), to_do)
}

/// Looks at everything.
pub async fn examine(platform: &Platform, wanted: &Wanted) -> Vec<Check> {
    let mut checks = vec![check("region", Verdict::Good, platform.region(), "")];
    checks.push(match platform.device_endpoint().await {
        Ok(endpoint) => check("endpoint", Verdict::Good, format!("devices connect to {endpoint}"), ""),
        Err(error) => {
            let away = error.is_transient();
            let line = failed("endpoint", &error);
            if away {
                // Each of the others would wait as long.
                return checks.into_iter().chain([line]).collect();
            }
            line
        }
    });
    let mut place = None;
    for (id, subject) in &wanted.authorities {
        checks.extend(authority(platform, id, subject, wanted.jitr, &mut place).await);
    }
    for policy in &wanted.policies {
        checks.push(device_policy(platform, policy, &mut place).await);
    }
    for name in &wanted.thing_types {
        let what = format!("thing type {name}");
        checks.push(exists(
            &what,
            platform.has_thing_type(name).await,
            &format!("aws iot create-thing-type --thing-type-name {name}"),
        ));
    }
    for name in &wanted.thing_groups {
        let what = format!("thing group {name}");
        checks.push(exists(
            &what,
            platform.has_thing_group(name).await,
            &format!("aws iot create-thing-group --thing-group-name {name}"),
        ));
    }
    if let Some(role) = &wanted.role {
        checks.push(check_role(platform.region(), role, place.as_ref()));
    }
    checks.extend(permissions(platform, place).await);
    checks
}

fn exists(what: &str, found: Result<bool, CallError>, command: &str) -> Check {
    match found {
        Ok(true) => check(what, Verdict::Good, "it is there", ""),
        Ok(false) => check(what, Verdict::Bad, "it is not there", command),
        Err(error) => failed(what, &error),
    }
}

async fn authority(
    platform: &Platform,
    id: &CertificateId,
    subject: &str,
    jitr: bool,
    place: &mut Option<Place>,
) -> Vec<Check> {
    let what = format!("CA {subject}");
    let authority = match platform.describe_authority(id).await {
        Ok(Some(authority)) => authority,
        Ok(None) => {
            let to_do = "birthmark-aws register-ca --ca FILE; or register with --without-ca";
            return vec![check(what, Verdict::Bad, format!("it is not registered ({id})"), to_do)];
        }
        Err(error) => return vec![failed(&what, &error)],
    };
    *place = place.take().or_else(|| Place::of_arn(&authority.arn));
    let on = if authority.auto_registration { "on" } else { "off" };
    let found = format!("registered, {}, auto-registration {on}", authority.mode);
    let mut checks = Vec::new();
    if !authority.active {
        checks.push(check(&what, Verdict::Bad, "it is INACTIVE", "birthmark-aws register-ca --update"));
    } else if jitr && !authority.auto_registration {
        checks.push(check(&what, Verdict::Bad, found, "birthmark-aws register-ca --auto-registration --update"));
    } else {
        checks.push(check(&what, Verdict::Good, found, ""));
    }
    if authority.provisioning.is_some() {
        let found = "a template provisions whatever this CA ever signed; the factory is not asked";
        checks.push(check(
            "JITP",
            Verdict::Warning,
            found,
            "let \"birthmark-aws activate\" do it, and remove the template",
        ));
    }
    checks
}

async fn device_policy(platform: &Platform, name: &str, place: &mut Option<Place>) -> Check {
    let what = format!("policy {name}");
    match platform.policy(name).await {
        Err(error) => failed(&what, &error),
        Ok(None) => {
            let to_do = format!(
                "birthmark-aws policy > policy.json; aws iot create-policy --policy-name {name} --policy-document file://policy.json"
            );
            check(what, Verdict::Bad, "it is not there", to_do)
        }
        Ok(Some((document, found))) => {
            *place = place.take().or(Some(found));
            match too_wide(&document) {
                Some(why) => {
                    check(what, Verdict::Warning, why, "\"birthmark-aws policy\" prints the least that a device needs")
                }
                None => check(what, Verdict::Good, "it is there, and names the device's own resources", ""),
            }
        }
    }
}

/// What a device policy allows beyond the device's own resources, if that is easily seen.
fn too_wide(document: &str) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let statements = match document.get("Statement")? {
        Value::Array(statements) => statements.iter().collect(),
        one => vec![one],
    };
    let texts = |value: &Value| match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    for statement in
        statements.into_iter().filter(|statement| statement.get("Effect").is_some_and(|effect| effect == "Allow"))
    {
        let actions = statement.get("Action").map(texts).unwrap_or_default().join(", ");
        for resource in statement.get("Resource").map(texts).unwrap_or_default() {
            let own = resource.contains("${iot:") || resource.contains("${aws:");
            let last = resource.rsplit(':').next().unwrap_or_default();
            if !own && (last.ends_with('*') || last.ends_with('#') || last.ends_with('+')) {
                return Some(format!(
                    "every device may {actions} on {resource}, others' topics and $aws/events included"
                ));
            }
        }
    }
    None
}

/// What can be seen of a role without asking IAM.
fn check_role(region: &str, role: &str, place: Option<&Place>) -> Check {
    let partition = partition_of(region);
    let parts: Vec<_> = role.splitn(6, ':').collect();
    let wrong = match parts.as_slice() {
        ["arn", found, "iam", "", account, name] if name.starts_with("role/") => {
            if *found != partition {
                Some(format!("it is in the partition {found}; {region} is in {partition}"))
            } else {
                let other = place.filter(|place| place.account != *account);
                other.map(|place| format!("it is in the account {account}; this is {}", place.account))
            }
        }
        _ => Some("it is no role's ARN".to_owned()),
    };
    match wrong {
        Some(wrong) => {
            check("role", Verdict::Bad, wrong, format!("a role such as arn:{partition}:iam::ACCOUNT:role/NAME"))
        }
        None => check(
            "role",
            Verdict::Good,
            format!("{role}; whether AWS IoT may take it on shows only when a device connects"),
            "compare with \"birthmark-aws iam trust\" and \"iam provisioning-role\"",
        ),
    }
}

/// Whether the calls of each command are allowed: a line for each command.
async fn permissions(platform: &Platform, place: Option<Place>) -> Vec<Check> {
    let nowhere = CertificateId::from_octets([0; 32]);
    let place = place.unwrap_or_else(|| Place {
        partition: partition_of(platform.region()).to_owned(),
        region: platform.region().to_owned(),
        account: "000000000000".to_owned(),
    });
    let arn = place.certificate(&nowhere);
    let nothing = "birthmark-aws-doctor";
    // No thing can have this name, so none is made.
    let impossible = Thing { name: " ".to_owned(), ..Thing::default() };
    let new = NewAuthority { pem: "none", verification: Some("none"), auto_registration: false, provisioning: None };
    let settle = [
        (Api::DescribeCertificate, platform.describe_certificate(&nowhere).await.err()),
        (Api::UpdateCertificate, platform.revoke_certificate(&nowhere).await.err()),
        (Api::CreateThing, platform.put_thing(&impossible).await.err()),
        (Api::ListThingPrincipals, platform.certificates_of_thing(nothing).await.err()),
        (Api::AttachThingPrincipal, platform.attach_to_thing(&arn, nothing).await.err()),
        (Api::AttachPolicy, platform.attach_policy(&arn, nothing).await.err()),
        (Api::ListPrincipalThings, platform.detach_from_things(&arn).await.err()),
    ];
    let register_ca = [
        (Api::GetRegistrationCode, platform.registration_code().await.err()),
        (Api::RegisterCACertificate, platform.register_authority(&new).await.err()),
        (Api::UpdateCACertificate, platform.update_authority(&nowhere, false, None).await.err()),
    ];
    let register = [
        (Api::RegisterCertificate, platform.register_certificate("none", "none").await.err()),
        (Api::RegisterCertificateWithoutCA, platform.register_certificate_without_ca("none").await.err()),
    ];
    let list = [(Api::ListCertificatesByCA, platform.list_certificates(Some(&nowhere), None).await.err())];
    let of = |command: &str, calls: Vec<&(Api, Option<CallError>)>| {
        let denied: Vec<_> = calls
            .iter()
            .filter(|(_, error)| error.as_ref().is_some_and(|error| error.kind == Kind::Denied))
            .map(|(api, _)| format!("iot:{api}"))
            .collect();
        let what = format!("may {command}");
        match denied.is_empty() {
            true => check(what, Verdict::Good, format!("{} calls are allowed", calls.len()), ""),
            false => {
                let found = format!("these credentials lack {}", denied.join(", "));
                let to_do = format!("if they are to {command}: \"birthmark-aws iam {command}\" prints the policy");
                check(what, Verdict::Warning, found, to_do)
            }
        }
    };
    vec![
        of("register-ca", register_ca.iter().collect()),
        of("register", register.iter().chain(&list).chain(&settle).collect()),
        of("activate", list.iter().chain(&settle).collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{Scope, device_policy};

    /// A policy that lets a device do what others do is told; the one that is printed is not.
    #[test]
    fn policy_that_is_too_wide_is_told() {
        let scope = Scope { region: "eu-west-1".into(), account: "*".into() };
        assert_eq!(too_wide(&device_policy(&scope, "devices", true).to_string()), None);
        for document in [
            r#"{"Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#,
            r#"{"Statement":{"Effect":"Allow","Action":["iot:Publish"],"Resource":["arn:aws:iot:r:a:topic/*"]}}"#,
            r#"{"Statement":[{"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:r:a:topicfilter/$aws/events/#"}]}"#,
        ] {
            assert!(too_wide(document).is_some(), "{document}");
        }
    }

    /// A role of another partition or account is refused before a device finds out.
    #[test]
    fn role_of_another_partition_or_account_is_told() {
        let place = Place { partition: "aws-cn".into(), region: "cn-north-1".into(), account: "123456789012".into() };
        let verdict = |role: &str| check_role("cn-north-1", role, Some(&place)).verdict;
        assert_eq!(verdict("arn:aws-cn:iam::123456789012:role/jitp"), Verdict::Good);
        for role in [
            "arn:aws:iam::123456789012:role/jitp",
            "arn:aws-cn:iam::210987654321:role/jitp",
            "jitp",
            "arn:aws-cn:iam::123456789012:user/jitp",
        ] {
            assert_eq!(verdict(role), Verdict::Bad, "{role}");
        }
    }
}
