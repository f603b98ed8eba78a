//! `aws-bulk`: lines of parameters and a provisioning template. Its importers are AWS IoT's `StartThingRegistrationTask`,
//! and `RegisterThing` with one line's parameters.
//!
//! AWS reports a bad line only after the whole task has run, so its rules are checked here: the patterns and lengths of its
//! service model.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    super::{
        certificate::{Certificate, Issuer, UnfitReason},
        keys::Keys,
        template::Template,
    },
    lines::{Lines, json_string},
};
use crate::{
    pem::certificate_pem,
    quote::quoted,
    signer::{KeyKind, PublicKey},
    x509,
};

/// The longest name of a thing, type, group or policy, and key of an attribute.
const LONGEST_NAME: usize = 128;

/// The longest value of a thing's attribute.
const LONGEST_ATTRIBUTE: usize = 800;

/// The longest value of a parameter of `RegisterThing`; bulk registration is documented as the same engine.
const LONGEST_PARAMETER: usize = 4_096;

/// The longest template.
const LONGEST_TEMPLATE: usize = 10_240;

/// Attributes of a thing without a type, and of one with a type.
const MOST_ATTRIBUTES: [usize; 2] = [3, 50];

/// Groups of a thing.
const MOST_GROUPS: usize = 10;

/// `[destinations.NAME]` of this format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsBulk {
    policy: String,
    thing_name: Template,
    thing_type: Option<String>,
    thing_groups: Vec<String>,
    attributes: BTreeMap<String, Template>,
}

/// Which characters a name has.
struct Rule {
    what: &'static str,
    others: &'static [u8],
    shown: &'static str,
    longest: usize,
    may_be_empty: bool,
}

const THING_NAME: Rule =
    Rule { what: "thing name", others: b":_-", shown: ": _ -", longest: LONGEST_NAME, may_be_empty: false };
const THING_TYPE: Rule = Rule { what: "thing type", ..THING_NAME };
const THING_GROUP: Rule = Rule { what: "thing group", ..THING_NAME };
// `\w` of the service model, of which ASCII is taken here.
const POLICY: Rule =
    Rule { what: "policy", others: b"_+=,.@-", shown: "_ + = , . @ -", longest: LONGEST_NAME, may_be_empty: false };
const ATTRIBUTE_KEY: Rule = Rule {
    what: "name of an attribute",
    others: b"_.,@/:#-",
    shown: "_ . , @ / : # -",
    longest: LONGEST_NAME,
    may_be_empty: false,
};
// An empty one would be no parameter, so it is refused although AWS has a form for it.
const ATTRIBUTE_VALUE: Rule = Rule {
    what: "value of an attribute",
    others: b"_.,@/:#=[]-",
    shown: "_ . , @ / : # = [ ] -",
    longest: LONGEST_ATTRIBUTE,
    may_be_empty: false,
};

impl Rule {
    fn check(&self, text: &str) -> Result<(), String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || self.others.contains(&byte);
        let long_enough = self.may_be_empty || !text.is_empty();
        if long_enough && text.len() <= self.longest && text.bytes().all(fits) {
            return Ok(());
        }
        let Rule { what, shown, longest, .. } = self;
        Err(format!("{} cannot be an AWS IoT {what}: 1 to {longest} characters of A-Z a-z 0-9 {shown}", quoted(text)))
    }

    /// Checks what is known before the placeholders are filled in.
    fn check_template(&self, template: &Template) -> Result<(), String> {
        if template.as_str().is_empty() {
            return self.check("");
        }
        Rule { may_be_empty: true, ..*self }.check(&template.texts().collect::<String>())
    }
}

impl AwsBulk {
    /// Reads the format's keys.
    pub(in crate::export) fn read(keys: &mut Keys<'_>) -> AwsBulk {
        let policy = keys.string("policy").unwrap_or_else(|| "device".to_owned());
        let thing_name = keys.string("thing_name").unwrap_or_else(|| "{device_id}".to_owned());
        let thing_type = keys.string("thing_type");
        let thing_groups = keys.strings("thing_groups").unwrap_or_default();
        let attributes = keys.table("attributes").unwrap_or_default();

        let mut wrong = Vec::new();
        let mut check =
            |key: &str, checked: Result<(), String>| wrong.extend(checked.err().map(|why| (key.to_owned(), why)));
        check("policy", POLICY.check(&policy));
        check("thing_type", thing_type.iter().try_for_each(|name| THING_TYPE.check(name)));
        check("thing_groups", thing_groups.iter().try_for_each(|name| THING_GROUP.check(name)));
        if thing_groups.len() > MOST_GROUPS {
            check(
                "thing_groups",
                Err(format!("a thing is in at most {MOST_GROUPS} groups; these are {}", thing_groups.len())),
            );
        }
        let [few, many] = MOST_ATTRIBUTES;
        match &thing_type {
            None if attributes.len() > few => {
                let message = format!("a thing without a thing_type has at most {few}; these are {}", attributes.len());
                check("attributes", Err(message));
            }
            Some(_) if attributes.len() > many => {
                check("attributes", Err(format!("a thing has at most {many}; these are {}", attributes.len())));
            }
            _ => {}
        }
        let mut template = |key: &str, text: &str, rule: &Rule| {
            let template = Template::short(text).map_err(|error| error.to_string());
            let checked = template.and_then(|template| rule.check_template(&template).map(|()| template));
            checked.inspect_err(|why| wrong.push((key.to_owned(), why.clone()))).ok()
        };
        let thing_name = template("thing_name", &thing_name, &THING_NAME);
        let mut read = BTreeMap::new();
        for (name, text) in attributes {
            let key = format!("attributes.{name}");
            let value = template(&key, &text, &ATTRIBUTE_VALUE);
            read.extend(value.map(|value| (name, value)));
        }
        for name in read.keys() {
            wrong.extend(ATTRIBUTE_KEY.check(name).err().map(|why| (format!("attributes.{name}"), why)));
        }
        for (key, why) in wrong {
            keys.wrong(key, why);
        }
        let thing_name = thing_name.unwrap_or_else(Template::device_id);
        let settings = AwsBulk { policy, thing_name, thing_type, thing_groups, attributes: read };
        let length = settings.template().len();
        if length > LONGEST_TEMPLATE {
            let why =
                format!("the provisioning template has {length} characters with them; AWS takes {LONGEST_TEMPLATE}");
            keys.wrong("attributes", why);
        }
        settings
    }

    /// What AWS would refuse.
    pub(in crate::export) fn fitness(&self, certificate: &Certificate<'_>) -> Result<(), UnfitReason> {
        let parsed =
            x509::Certificate::from_der(certificate.der).map_err(|error| format!("its certificate: {error}"))?;
        // A registration checks the key: RSA with 2048 bits or more, or one of NIST's curves.
        match PublicKey::from_spki(&parsed.spki).map_err(|error| error.to_string())?.kind {
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Rsa { bits: 2048.. } => {}
            kind => {
                let message = format!("AWS IoT takes no {kind} key; use P-256, P-384, P-521 or RSA from 2048 bits");
                return Err(message.into());
            }
        }
        check_pem(certificate.issuer.pem(), "issuer's certificate")?;
        check_pem(&certificate_pem(certificate.der), "certificate")?;
        let mut value = String::new();
        fill(&self.thing_name, &THING_NAME, certificate, &mut value)?;
        self.attributes.values().try_for_each(|template| fill(template, &ATTRIBUTE_VALUE, certificate, &mut value))
    }

    /// Writes lines and the template.
    pub(in crate::export) fn writer(&self) -> AwsBulkLines {
        AwsBulkLines {
            template: self.template(),
            thing_name: self.thing_name.clone(),
            attributes: self.parameters().into_iter().zip(self.attributes.values().cloned()).collect(),
            ca: ([0; 32], String::new()),
            value: String::new(),
        }
    }

    /// The template's parameter of each attribute, in their order: letters and digits alone, each name once.
    fn parameters(&self) -> Vec<String> {
        let mut taken = BTreeSet::new();
        let mut name = |key: &String| {
            let mut characters = key.chars().filter(char::is_ascii_alphanumeric);
            let first: String = characters.next().into_iter().map(|first| first.to_ascii_uppercase()).collect();
            let mut name = format!("Attribute{first}{}", characters.collect::<String>());
            while !taken.insert(name.clone()) {
                name.push('X');
            }
            name
        };
        self.attributes.keys().map(&mut name).collect()
    }

    /// The template that makes of each line a thing, its active certificate, and the policy's attachment.
    fn template(&self) -> String {
        let string = || json!({ "Type": "String" });
        let reference = |name: &str| json!({ "Ref": name });
        let parameters = self.parameters();
        let mut declared: Map<_, _> = ["ThingName", "CertificatePem", "CACertificatePem"]
            .map(|name| (name.to_owned(), string()))
            .into_iter()
            .collect();
        declared.extend(parameters.iter().map(|name| (name.clone(), string())));
        let mut thing = Map::from_iter([("ThingName".to_owned(), reference("ThingName"))]);
        if !self.attributes.is_empty() {
            let values = self.attributes.keys().zip(&parameters).map(|(key, name)| (key.clone(), reference(name)));
            thing.insert("AttributePayload".to_owned(), Value::Object(values.collect()));
        }
        thing.extend(self.thing_type.iter().map(|name| ("ThingTypeName".to_owned(), json!(name))));
        if !self.thing_groups.is_empty() {
            thing.insert("ThingGroups".to_owned(), json!(self.thing_groups));
        }
        let template = json!({
            "Parameters": declared,
            "Resources": {
                "thing": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": thing,
                    // A device that has a new certificate is a thing that exists already.
                    "OverrideSettings": {
                        "AttributePayload": "MERGE",
                        "ThingTypeName": "REPLACE",
                        "ThingGroups": "DO_NOTHING",
                    },
                },
                "certificate": {
                    "Type": "AWS::IoT::Certificate",
                    "Properties": {
                        "CertificatePem": reference("CertificatePem"),
                        "CACertificatePem": reference("CACertificatePem"),
                        "Status": "ACTIVE",
                    },
                },
                "policy": { "Type": "AWS::IoT::Policy", "Properties": { "PolicyName": self.policy } },
            },
        });
        format!("{template:#}\n")
    }
}

pub(in crate::export) struct AwsBulkLines {
    template: String,
    thing_name: Template,
    /// Each parameter and its value.
    attributes: Vec<(String, Template)>,
    /// The last issuer's certificate as a JSON string; nearly all lines have the same.
    ca: ([u8; 32], String),
    /// A value as it is filled in; kept for its memory.
    value: String,
}

impl Lines for AwsBulkLines {
    fn append(&mut self, certificate: &Certificate<'_>, out: &mut String) -> Result<(), UnfitReason> {
        let issuer = certificate.issuer;
        if self.ca.0 != *issuer.sha256() {
            check_pem(issuer.pem(), "issuer's certificate")?;
            self.ca = (*issuer.sha256(), String::new());
            json_string(issuer.pem(), &mut self.ca.1);
        }
        fill(&self.thing_name, &THING_NAME, certificate, &mut self.value)?;
        out.push_str("{\"ThingName\":");
        json_string(&self.value, out);
        out.push_str(",\"CertificatePem\":");
        let pem = certificate_pem(certificate.der);
        check_pem(&pem, "certificate")?;
        json_string(&pem, out);
        out.push_str(",\"CACertificatePem\":");
        out.push_str(&self.ca.1);
        for (parameter, template) in &self.attributes {
            fill(template, &ATTRIBUTE_VALUE, certificate, &mut self.value)?;
            out.push(',');
            json_string(parameter, out);
            out.push(':');
            json_string(&self.value, out);
        }
        out.push_str("}\n");
        Ok(())
    }

    fn beside(&self, _: &[Issuer]) -> Vec<(String, String)> {
        vec![("template.json".to_owned(), self.template.clone())]
    }
}

/// Fills a template in and checks what came of it.
fn fill(
    template: &Template,
    rule: &Rule,
    certificate: &Certificate<'_>,
    value: &mut String,
) -> Result<(), UnfitReason> {
    value.clear();
    template.fill(certificate, value)?;
    Ok(rule.check(value)?)
}

/// Whether a thing can have this name.
///
/// # Errors
/// What would be right.
pub(super) fn check_thing_name(name: &str) -> Result<(), String> {
    THING_NAME.check(name)
}

fn check_pem(pem: &str, what: &str) -> Result<(), UnfitReason> {
    if pem.len() <= LONGEST_PARAMETER {
        return Ok(());
    }
    Err(format!("its {what} has {} characters of PEM; AWS takes {LONGEST_PARAMETER}", pem.len()).into())
}

#[cfg(test)]
mod tests;
