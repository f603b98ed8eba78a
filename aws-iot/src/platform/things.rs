//! Things in AWS IoT, and what hangs on their certificates.

use std::collections::BTreeMap;

use aws_sdk_iot::types::AttributePayload;

use super::connection::Platform;
use crate::{
    arn::{CertificateId, Place},
    failure::{CallError, Kind, if_found},
    limits::Api,
};

/// What a thing shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Thing {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thing_type: Option<String>,
    /// The groups that it is put into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Its attributes; others that it has already stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Platform {
    /// Makes the thing, or gives the one that is there its type and attributes (others stay), and its groups.
    ///
    /// # Errors
    /// A call failed.
    pub async fn put_thing(&self, thing: &Thing) -> Result<(), CallError> {
        let payload = (!thing.attributes.is_empty())
            .then(|| AttributePayload::builder().set_attributes(Some(thing.attributes.clone().into_iter().collect())));
        let create = self.iot.create_thing().thing_name(&thing.name).set_thing_type_name(thing.thing_type.clone());
        let create = create.set_attribute_payload(payload.clone().map(|payload| payload.build()));
        match self.call(Api::CreateThing, || create.clone().send()).await {
            Ok(_) => {}
            // It has other attributes or another type.
            Err(error) if error.kind == Kind::Exists => {
                let update =
                    self.iot.update_thing().thing_name(&thing.name).set_thing_type_name(thing.thing_type.clone());
                let update = update.set_attribute_payload(payload.map(|payload| payload.merge(true).build()));
                self.call(Api::UpdateThing, || update.clone().send()).await?;
            }
            Err(error) => return Err(error),
        }
        for group in &thing.groups {
            let add = self.iot.add_thing_to_thing_group().thing_name(&thing.name).thing_group_name(group);
            self.call(Api::AddThingToThingGroup, || add.clone().send()).await?;
        }
        Ok(())
    }

    /// The certificates that are attached to a thing; none if there is no such thing.
    ///
    /// # Errors
    /// A call failed.
    pub async fn certificates_of_thing(&self, thing: &str) -> Result<Vec<CertificateId>, CallError> {
        let mut certificates = Vec::new();
        let mut next = None;
        loop {
            let request = self.iot.list_thing_principals().thing_name(thing).set_next_token(next);
            let answer = if_found(self.call(Api::ListThingPrincipals, || request.clone().send()).await)?;
            let Some(answer) = answer else { return Ok(certificates) };
            let principals = answer.principals.unwrap_or_default();
            certificates.extend(principals.iter().filter_map(|arn| CertificateId::of_arn(arn)));
            next = answer.next_token.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(certificates);
            }
        }
    }

    /// Attaches a certificate to a thing.
    ///
    /// # Errors
    /// The call failed.
    pub async fn attach_to_thing(&self, certificate_arn: &str, thing: &str) -> Result<(), CallError> {
        let request = self.iot.attach_thing_principal().thing_name(thing).principal(certificate_arn);
        self.call(Api::AttachThingPrincipal, || request.clone().send()).await.map(drop)
    }

    /// Attaches a policy to a certificate.
    ///
    /// # Errors
    /// The call failed.
    pub async fn attach_policy(&self, certificate_arn: &str, policy: &str) -> Result<(), CallError> {
        let request = self.iot.attach_policy().policy_name(policy).target(certificate_arn);
        self.call(Api::AttachPolicy, || request.clone().send()).await.map(drop)
    }

    /// Detaches a certificate from every thing that has it.
    ///
    /// # Errors
    /// A call failed.
    pub async fn detach_from_things(&self, certificate_arn: &str) -> Result<(), CallError> {
        // What is listed is detached, so the first page is a new one each time.
        loop {
            let request = self.iot.list_principal_things().principal(certificate_arn);
            let answer = if_found(self.call(Api::ListPrincipalThings, || request.clone().send()).await)?;
            let things = answer.and_then(|answer| answer.things).unwrap_or_default();
            if things.is_empty() {
                return Ok(());
            }
            for thing in things {
                let request = self.iot.detach_thing_principal().thing_name(thing).principal(certificate_arn);
                if_found(self.call(Api::DetachThingPrincipal, || request.clone().send()).await)?;
            }
        }
    }

    /// The document of a policy and the place that its ARN names; none if there is no such policy.
    ///
    /// # Errors
    /// The call failed.
    pub async fn policy(&self, name: &str) -> Result<Option<(String, Place)>, CallError> {
        let request = self.iot.get_policy().policy_name(name);
        let answer = if_found(self.call(Api::GetPolicy, || request.clone().send()).await)?;
        let Some(answer) = answer else { return Ok(None) };
        let place = answer.policy_arn().and_then(Place::of_arn);
        let place = place.ok_or_else(|| CallError::without(Api::GetPolicy, "policyArn"))?;
        Ok(Some((answer.policy_document.unwrap_or_default(), place)))
    }

    /// Whether there is such a thing type.
    ///
    /// # Errors
    /// The call failed.
    pub async fn has_thing_type(&self, name: &str) -> Result<bool, CallError> {
        let request = self.iot.describe_thing_type().thing_type_name(name);
        Ok(if_found(self.call(Api::DescribeThingType, || request.clone().send()).await)?.is_some())
    }

    /// Whether there is such a thing group.
    ///
    /// # Errors
    /// The call failed.
    pub async fn has_thing_group(&self, name: &str) -> Result<bool, CallError> {
        let request = self.iot.describe_thing_group().thing_group_name(name);
        Ok(if_found(self.call(Api::DescribeThingGroup, || request.clone().send()).await)?.is_some())
    }
}
