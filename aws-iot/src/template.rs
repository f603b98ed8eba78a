//! The provisioning template of a bundle, and what it makes of a line: what AWS' own bulk registration would.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{arn::CertificateId, platform::Thing};

/// What a certificate gets: what an allow-list keeps of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The thing that the certificate is attached to.
    pub thing: Thing,
    /// The policy that is attached to the certificate.
    pub policy: String,
}

/// A line of a bundle, made into what is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its certificate's id, computed from the certificate.
    pub id: CertificateId,
    /// Its certificate.
    pub certificate_pem: String,
    /// Its issuing CA's.
    pub ca_pem: String,
    /// What it gets.
    pub device: Device,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the provisioning template {0}")]
pub struct InvalidTemplate(String);

/// Why a line cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLine {
    /// It is no JSON object.
    #[error("the line is no JSON object: {0}")]
    Json(String),
    /// A parameter is missing.
    #[error("the line has no parameter {0}, which the template needs")]
    Parameter(String),
    /// There is no certificate in it.
    #[error("the line's certificate cannot be read: {0}")]
    Certificate(String),
}

/// A template, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    thing_name: Text,
    thing_type: Option<Text>,
    groups: Vec<Text>,
    attributes: BTreeMap<String, Text>,
    certificate: Text,
    ca: Text,
    policy: Text,
}

/// A text, or the parameter that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    Fixed(String),
    Parameter(String),
}

impl Text {
    fn of(value: &Value, what: &str) -> Result<Text, InvalidTemplate> {
        match value {
            Value::String(text) => Ok(Text::Fixed(text.clone())),
            Value::Object(object) => match object.get("Ref").and_then(Value::as_str) {
                Some(name) if object.len() == 1 => Ok(Text::Parameter(name.to_owned())),
                _ => Err(InvalidTemplate(format!("has a {what} that is neither a text nor a Ref"))),
            },
            _ => Err(InvalidTemplate(format!("has a {what} that is neither a text nor a Ref"))),
        }
    }

    fn fill(&self, line: &Map<String, Value>) -> Result<String, InvalidLine> {
        match self {
            Text::Fixed(text) => Ok(text.clone()),
            Text::Parameter(name) => {
                let value = line.get(name).and_then(Value::as_str);
                value.map(str::to_owned).ok_or_else(|| InvalidLine::Parameter(name.clone()))
            }
        }
    }
}

impl Template {
    /// Reads a template of `aws-bulk`.
    ///
    /// # Errors
    /// What it lacks.
    pub fn parse(text: &str) -> Result<Template, InvalidTemplate> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| InvalidTemplate(format!("is not JSON: {error}")))?;
        let resources = value.get("Resources").and_then(Value::as_object);
        let resources = resources.ok_or_else(|| InvalidTemplate("has no Resources".into()))?;
        let of_type = |wanted: &str| {
            let resource = resources.values().find(|resource| resource.get("Type").is_some_and(|kind| kind == wanted));
            let properties = resource.and_then(|resource| resource.get("Properties")?.as_object());
            properties.ok_or_else(|| InvalidTemplate(format!("has no resource {wanted}")))
        };
        let required = |properties: &Map<String, Value>, name: &str| {
            let value = properties.get(name).ok_or_else(|| InvalidTemplate(format!("has no {name}")))?;
            Text::of(value, name)
        };
        let thing = of_type("AWS::IoT::Thing")?;
        let certificate = of_type("AWS::IoT::Certificate")?;
        let attributes = thing.get("AttributePayload").and_then(Value::as_object);
        let attributes =
            attributes.into_iter().flatten().map(|(name, value)| Ok((name.clone(), Text::of(value, name)?)));
        let groups = thing.get("ThingGroups").and_then(Value::as_array);
        let groups = groups.into_iter().flatten().map(|value| Text::of(value, "ThingGroups"));
        Ok(Template {
            thing_name: required(thing, "ThingName")?,
            thing_type: thing.get("ThingTypeName").map(|value| Text::of(value, "ThingTypeName")).transpose()?,
            groups: groups.collect::<Result<_, _>>()?,
            attributes: attributes.collect::<Result<_, _>>()?,
            certificate: required(certificate, "CertificatePem")?,
            ca: required(certificate, "CACertificatePem")?,
            policy: required(of_type("AWS::IoT::Policy")?, "PolicyName")?,
        })
    }

    /// The policy, if it is the same for all lines.
    pub fn policy(&self) -> Option<&str> {
        match &self.policy {
            Text::Fixed(name) => Some(name),
            Text::Parameter(_) => None,
        }
    }

    /// The thing type and the thing groups that are the same for all lines.
    pub fn thing_type(&self) -> Option<&str> {
        match &self.thing_type {
            Some(Text::Fixed(name)) => Some(name),
            _ => None,
        }
    }

    /// The thing groups that are the same for all lines.
    pub fn thing_groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|group| match group {
            Text::Fixed(name) => Some(name.as_str()),
            Text::Parameter(_) => None,
        })
    }

    /// What a line gives.
    ///
    /// # Errors
    /// What the line lacks.
    pub fn fill(&self, line: &str) -> Result<Line, InvalidLine> {
        let line: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| InvalidLine::Json(error.to_string()))?;
        let certificate_pem = self.certificate.fill(&line)?;
        let blocks = birthmark::pem::blocks(certificate_pem.as_bytes());
        let id = match blocks.as_deref() {
            Ok([block]) if block.is_certificate() => CertificateId::of(&block.der),
            Ok(others) => return Err(InvalidLine::Certificate(format!("it has {} PEM blocks", others.len()))),
            Err(error) => return Err(InvalidLine::Certificate(error.to_string())),
        };
        let attributes = self.attributes.iter().map(|(name, text)| Ok((name.clone(), text.fill(&line)?)));
        let thing = Thing {
            name: self.thing_name.fill(&line)?,
            thing_type: self.thing_type.as_ref().map(|text| text.fill(&line)).transpose()?,
            groups: self.groups.iter().map(|text| text.fill(&line)).collect::<Result<_, _>>()?,
            attributes: attributes.collect::<Result<_, _>>()?,
        };
        let device = Device { thing, policy: self.policy.fill(&line)? };
        Ok(Line { id, certificate_pem, ca_pem: self.ca.fill(&line)?, device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"Parameters":{"ThingName":{"Type":"String"}},"Resources":{
        "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"ThingName"},"ThingTypeName":"sensor",
            "ThingGroups":["north"],"AttributePayload":{"order":{"Ref":"AttributeOrder"},"maker":"Acme"}}},
        "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":{"Ref":"CertificatePem"},
            "CACertificatePem":{"Ref":"CACertificatePem"},"Status":"ACTIVE"}},
        "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"device"}}}}"#;

    fn line(parameters: &[(&str, &str)]) -> String {
        let pem = birthmark::pem::certificate_pem(&[0x30, 0x00]);
        let usual =
            [("ThingName", "dev-1"), ("CertificatePem", &pem), ("CACertificatePem", "CA"), ("AttributeOrder", "lot")];
        let all = usual.iter().chain(parameters).map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
        Value::Object(all.collect()).to_string()
    }

    /// A line gives what bulk registration would make of it.
    #[test]
    fn line_is_filled_into_its_template() {
        let filled = Template::parse(TEMPLATE).unwrap().fill(&line(&[])).unwrap();
        assert_eq!(filled.id, CertificateId::of(&[0x30, 0x00]));
        assert_eq!(filled.ca_pem, "CA");
        let thing = &filled.device.thing;
        assert_eq!((thing.name.as_str(), thing.thing_type.as_deref()), ("dev-1", Some("sensor")));
        assert_eq!(thing.groups, ["north"]);
        let attributes = [("maker", "Acme"), ("order", "lot")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(thing.attributes, BTreeMap::from(attributes));
        assert_eq!(filled.device.policy, "device");
    }

    /// A line or template that lacks something says what.
    #[test]
    fn line_without_its_certificate_is_refused() {
        let template = Template::parse(TEMPLATE).unwrap();
        assert!(matches!(template.fill("[]"), Err(InvalidLine::Json(_))));
        assert_eq!(template.fill("{}"), Err(InvalidLine::Parameter("CertificatePem".into())));
        assert!(matches!(template.fill(&line(&[("CertificatePem", "none")])), Err(InvalidLine::Certificate(_))));
        for (from, to) in
            [("AWS::IoT::Policy", "X"), ("\"Ref\":\"ThingName\"", "\"Fn\":1"), ("CertificatePem\":{", "X\":{")]
        {
            assert!(Template::parse(&TEMPLATE.replace(from, to)).is_err(), "{from}");
        }
    }
}
