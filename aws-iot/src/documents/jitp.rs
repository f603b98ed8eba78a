//! Templates of just-in-time provisioning: AWS IoT fills them in from a certificate's subject.

use std::collections::BTreeMap;

use birthmark::config;
use serde_json::{Map, Value, json};

/// What a parameter's name begins with.
const PREFIX: &str = "AWS::IoT::Certificate::";

/// What parameters may be taken from, and the subject's attribute as profiles name it.
const PARAMETERS: [(&str, &str); 7] = [
    ("Country", "C"),
    ("Organization", "O"),
    ("OrganizationalUnit", "OU"),
    ("DistinguishedNameQualifier", "dnQualifier"),
    ("StateName", "ST"),
    ("CommonName", "CN"),
    ("SerialNumber", "serialNumber"),
];

/// The longest template.
const LONGEST: usize = 10_240;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct InvalidJitp(pub Vec<String>);

/// What a template makes.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The policy of each certificate.
    pub policy: String,
    /// The parameter that is the thing's name.
    pub thing_name: String,
    /// The thing type of all.
    pub thing_type: Option<String>,
    /// Attributes, and the parameter that each is taken from.
    pub attributes: BTreeMap<String, String>,
}

/// A template that makes of each certificate an active one with a thing and a policy.
pub fn template(wanted: &Wanted) -> Value {
    let name = |parameter: &str| format!("{PREFIX}{parameter}");
    let reference = |parameter: &str| json!({ "Ref": name(parameter) });
    let mut parameters = Map::new();
    for parameter in [&wanted.thing_name, "Id"]
        .into_iter()
        .map(|name| name as &str)
        .chain(wanted.attributes.values().map(String::as_str))
    {
        parameters.insert(name(parameter), json!({ "Type": "String" }));
    }
    let mut thing = Map::from_iter([("ThingName".to_owned(), reference(&wanted.thing_name))]);
    if !wanted.attributes.is_empty() {
        let attributes = wanted.attributes.iter().map(|(key, parameter)| (key.clone(), reference(parameter)));
        thing.insert("AttributePayload".into(), Value::Object(attributes.collect()));
    }
    thing.extend(wanted.thing_type.iter().map(|name| ("ThingTypeName".to_owned(), json!(name))));
    json!({
        "Parameters": parameters,
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": thing,
                "OverrideSettings": {
                    "AttributePayload": "MERGE",
                    "ThingTypeName": "REPLACE",
                    "ThingGroups": "DO_NOTHING",
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": { "CertificateId": reference("Id"), "Status": "ACTIVE" },
            },
            "policy": { "Type": "AWS::IoT::Policy", "Properties": { "PolicyName": wanted.policy } },
        },
    })
}

/// The parameters that a template declares, without what their names begin with.
fn declared(template: &Value) -> impl Iterator<Item = &str> {
    let parameters = template.get("Parameters").and_then(Value::as_object);
    parameters.into_iter().flatten().map(|(name, _)| name.as_str())
}

fn references<'t>(value: &'t Value, found: &mut Vec<&'t str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("Ref").and_then(Value::as_str));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Checks what AWS checks when a template is registered, and some of what fails only when the first device connects.
///
/// # Errors
/// Everything that is wrong.
pub fn check(text: &str) -> Result<Value, InvalidJitp> {
    let template: Value =
        serde_json::from_str(text).map_err(|error| InvalidJitp(vec![format!("it is not JSON: {error}")]))?;
    let mut wrong = Vec::new();
    if text.len() > LONGEST {
        wrong.push(format!("it has {} characters; AWS takes {LONGEST}", text.len()));
    }
    for name in declared(&template) {
        let known = name.strip_prefix(PREFIX);
        let is_known = known.is_some_and(|name| name == "Id" || PARAMETERS.iter().any(|(known, _)| *known == name));
        if !is_known {
            let names: Vec<_> = PARAMETERS.iter().map(|(name, _)| *name).chain(["Id"]).collect();
            wrong.push(format!("it declares the parameter {name}; JITP has {PREFIX} and one of {}", names.join(", ")));
        }
    }
    let mut used = Vec::new();
    if let Some(resources) = template.get("Resources") {
        references(resources, &mut used);
    }
    for name in used {
        if !declared(&template).any(|declared| declared == name) {
            wrong.push(format!("it refers to {name}, which it does not declare"));
        }
    }
    let resources = template.get("Resources").and_then(Value::as_object);
    let certificate = resources
        .into_iter()
        .flat_map(Map::values)
        .find(|resource| resource.get("Type").is_some_and(|kind| kind == "AWS::IoT::Certificate"));
    match certificate.and_then(|certificate| certificate.get("Properties")) {
        None => wrong.push("it has no resource AWS::IoT::Certificate".to_owned()),
        Some(properties) => {
            let id = properties.get("CertificateId").and_then(|id| id.get("Ref")).and_then(Value::as_str);
            if id != Some("AWS::IoT::Certificate::Id") {
                wrong.push("the certificate's CertificateId must be a Ref to AWS::IoT::Certificate::Id".to_owned());
            }
            let status = properties.get("Status").and_then(Value::as_str).map(str::to_uppercase);
            if !matches!(status.as_deref(), Some("ACTIVE" | "INACTIVE")) {
                wrong.push("the certificate's Status must be ACTIVE or INACTIVE".to_owned());
            }
        }
    }
    if template.get("PreProvisioningHook").is_some() {
        wrong.push("JITP has no hook: nobody is asked whether the factory knows the device".to_owned());
    }
    if wrong.is_empty() { Ok(template) } else { Err(InvalidJitp(wrong)) }
}

/// Checks that certificates of the profile have what the template is filled in from: otherwise AWS leaves each device
/// pending, and says so nowhere that the device could see.
///
/// # Errors
/// Everything that is wrong.
pub fn check_against(template: &Value, name: &str, profile: &config::Profile) -> Result<(), InvalidJitp> {
    let usual = ["CN={device_id}".to_owned()];
    let subject: Vec<String> = match &profile.subject {
        Some(subject) => subject.iter().map(|attribute| attribute.get_ref().clone()).collect(),
        None => usual.to_vec(),
    };
    let value_of = |kind: &str| subject.iter().find_map(|attribute| attribute.strip_prefix(kind)?.strip_prefix('='));
    let mut wrong = Vec::new();
    for parameter in declared(template).filter_map(|name| name.strip_prefix(PREFIX)) {
        let Some((_, kind)) = PARAMETERS.iter().find(|(known, _)| *known == parameter) else { continue };
        if value_of(kind).is_none() {
            wrong.push(format!(
                "certificates of the profile {name} have no {kind} in their subject, from which {parameter} is taken"
            ));
        } else if !profile.jitp.iter().any(|listed| listed.get_ref() == parameter) {
            wrong.push(format!("let the profile {name} say jitp = [\"{parameter}\", …], so that its {kind} stays"));
        }
    }
    let mut names = Vec::new();
    if let Some(resources) = template.get("Resources").and_then(Value::as_object) {
        let things = resources.values().filter_map(|resource| resource.get("Properties")?.get("ThingName"));
        things.for_each(|name| references(name, &mut names));
    }
    for parameter in names.iter().filter_map(|name| name.strip_prefix(PREFIX)) {
        let kind = PARAMETERS.iter().find(|(known, _)| *known == parameter).map_or("", |(_, kind)| kind);
        let from_device = value_of(kind).is_some_and(|value| value.contains("{device_id}"));
        let rule = profile.device_id.as_ref().map(|rule| rule.get_ref().as_str());
        if from_device && rule != Some("aws-thing-name") {
            wrong.push(format!(
                "the thing's name is the device id, and the profile {name} allows ids that are none (with a dot, for one); let it \
                 say device_id = \"aws-thing-name\""
            ));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(InvalidJitp(wrong)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            policy: "device".into(),
            thing_name: "CommonName".into(),
            thing_type: Some("sensor".into()),
            attributes: BTreeMap::from([("maker".into(), "Organization".into())]),
        }
    }

    fn profile(text: &str) -> config::Profile {
        toml::from_str(text).unwrap()
    }

    /// What is printed passes the check, and each thing that AWS refuses is refused here.
    #[test]
    fn jitp_template_that_aws_refuses_is_refused() {
        let whole = template(&wanted()).to_string();
        check(&whole).unwrap();
        for (from, to, says) in [
            (r#""Status":"ACTIVE""#, r#""Status":"PENDING""#, "Status"),
            (r#""CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}"#, r#""CertificateId":"x""#, "CertificateId"),
            (r#","AWS::IoT::Certificate::Organization":{"Type":"String"}"#, "", "does not declare"),
            (r#""AWS::IoT::Certificate::Organization":{"Type":"String"}"#, r#""Serial":{"Type":"String"}"#, "Serial"),
            (r#"{"Parameters""#, r#"{"PreProvisioningHook":{},"Parameters""#, "hook"),
            ("AWS::IoT::Certificate\"", "AWS::IoT::Other\"", "no resource"),
        ] {
            let changed = whole.replace(from, to);
            assert_ne!(changed, whole, "{from}");
            let error = check(&changed).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    /// A template that the profile's certificates cannot fill in is refused before a device finds out.
    #[test]
    fn jitp_template_that_the_profile_cannot_fill_is_refused() {
        let template = template(&wanted());
        let good = r#"issuer = "d"
            subject = ["O=Acme", "CN={device_id}"]
            device_id = "aws-thing-name"
            jitp = ["CommonName", "Organization"]"#;
        assert_eq!(check_against(&template, "device", &profile(good)), Ok(()));
        for (from, to, says) in [
            ("\"O=Acme\", ", "", "no O in their subject"),
            (", \"Organization\"", "", "jitp = [\"Organization\""),
            ("device_id = \"aws-thing-name\"", "", "aws-thing-name"),
        ] {
            let error = check_against(&template, "device", &profile(&good.replace(from, to))).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
