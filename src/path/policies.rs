//! Certificate policies (RFC 5280 sections 6.1.2 to 6.1.5): whether one is valid for a path that must have one.
//!
//! Verifiers of devices demand no policy themselves: the user-initial-policy-set is anyPolicy and initial-explicit-policy is
//! not set. So policies matter only where a CA demands one (requireExplicitPolicy), and then only whether the
//! valid_policy_tree has a node at its deepest level. What may follow a node depends on its policy alone, not on its
//! parents: one map from the policies of that level to what is expected below them decides exactly as the tree does, and
//! cannot grow exponentially (RFC 9618 section 3). Checked against OpenSSL's `-policy_check`.

use std::collections::{BTreeMap, BTreeSet};

use const_oid::{
    ObjectIdentifier,
    db::rfc5280::{
        ANY_POLICY, ID_CE_CERTIFICATE_POLICIES, ID_CE_INHIBIT_ANY_POLICY, ID_CE_POLICY_CONSTRAINTS,
        ID_CE_POLICY_MAPPINGS,
    },
};

use super::fault::{Fault, NoPolicy};
use crate::{
    asn1::{DerError, INTEGER, OBJECT_IDENTIFIER, Oid, Reader, SEQUENCE, Value, implicit},
    x509::Certificate,
};

/// The state variables of section 6.1.2 about policies, from the trust anchor down.
pub(super) struct Policies {
    /// The policies of the deepest level of the valid_policy_tree, and the expected_policy_set of each.
    level: BTreeMap<Oid, BTreeSet<Oid>>,
    explicit_policy: u64,
    inhibit_any_policy: u64,
    policy_mapping: u64,
    /// The position of the CA whose requireExplicitPolicy is in force.
    demanded_by: usize,
    /// Since when the level is empty.
    no_policy: Option<NoPolicy>,
}

impl Policies {
    /// Before the first of `length` certificates below the trust anchor.
    pub(super) fn new(length: u64) -> Policies {
        let any = Oid::from(ANY_POLICY);
        Policies {
            level: BTreeMap::from([(any.clone(), BTreeSet::from([any]))]),
            explicit_policy: length + 1,
            inhibit_any_policy: length + 1,
            policy_mapping: length + 1,
            demanded_by: 0,
            no_policy: None,
        }
    }

    /// Section 6.1.3 (d) and (e): the next level of the tree. `position` names the certificate; the last one of the path is
    /// the end entity.
    pub(super) fn enter(&mut self, certificate: &Certificate, position: usize, last: bool) -> Result<(), Fault> {
        let any = Oid::from(ANY_POLICY);
        let found = read(certificate, ID_CE_CERTIFICATE_POLICIES, "certificatePolicies", policies)?.unwrap_or_default();
        let mut seen = BTreeSet::new();
        if let Some(twice) = found.iter().find(|policy| !seen.insert(*policy)) {
            return Err(Fault::DuplicatePolicy(twice.clone()));
        }
        let expected: BTreeSet<&Oid> = self.level.values().flatten().collect();
        let mut next = BTreeSet::new();
        // (d) (1): a policy that is expected, or that anyPolicy stands for.
        let under_any = self.level.contains_key(&any);
        next.extend(found.iter().filter(|policy| **policy != any && (under_any || expected.contains(policy))).cloned());
        // (d) (2)
        let any_counts = self.inhibit_any_policy > 0 || (!last && certificate.is_self_issued());
        if any_counts && found.contains(&any) {
            next.extend(expected.iter().map(|policy| (*policy).clone()));
        }
        if next.is_empty() && self.no_policy.is_none() {
            let allowed = expected.into_iter().cloned().collect();
            self.no_policy = Some(NoPolicy { position, allowed, found, by_mapping: false });
        }
        self.level = next.into_iter().map(|policy| (policy.clone(), BTreeSet::from([policy]))).collect();
        if last {
            // Section 6.1.5 (a) and (b)
            self.explicit_policy = self.explicit_policy.saturating_sub(1);
            self.constrain(certificate, position, true)?;
        }
        Ok(())
    }

    /// Section 6.1.4: prepares for the next certificate, which this CA issued.
    pub(super) fn leave(&mut self, ca: &Certificate, position: usize) -> Result<(), Fault> {
        self.map(ca, position)?;
        // (h)
        if !ca.is_self_issued() {
            for left in [&mut self.explicit_policy, &mut self.policy_mapping, &mut self.inhibit_any_policy] {
                *left = left.saturating_sub(1);
            }
        }
        self.constrain(ca, position, false)
    }

    /// (a) and (b): policy mappings.
    fn map(&mut self, ca: &Certificate, position: usize) -> Result<(), Fault> {
        let Some(mappings) = read(ca, ID_CE_POLICY_MAPPINGS, "policyMappings", mappings)? else { return Ok(()) };
        let any = Oid::from(ANY_POLICY);
        let mut by_issuer = BTreeMap::<Oid, BTreeSet<Oid>>::new();
        for (issuers, subjects) in mappings {
            if issuers == any || subjects == any {
                return Err(Fault::MapsAnyPolicy);
            }
            by_issuer.entry(issuers).or_default().insert(subjects);
        }
        let allowed: Vec<_> = self.level.keys().cloned().collect();
        for (issuers, subjects) in by_issuer {
            if self.policy_mapping == 0 {
                self.level.remove(&issuers);
            } else if self.level.contains_key(&issuers) || self.level.contains_key(&any) {
                self.level.insert(issuers, subjects);
            }
        }
        if self.level.is_empty() && self.no_policy.is_none() {
            self.no_policy = Some(NoPolicy { position, found: allowed.clone(), allowed, by_mapping: true });
        }
        Ok(())
    }

    /// Section 6.1.4 (i) and (j): a CA may only make it stricter. Of an end entity requireExplicitPolicy of 0 alone counts.
    fn constrain(&mut self, certificate: &Certificate, position: usize, last: bool) -> Result<(), Fault> {
        let constraints = read(certificate, ID_CE_POLICY_CONSTRAINTS, "policyConstraints", policy_constraints)?;
        let (require_explicit, inhibit_mapping) = constraints.unwrap_or_default();
        if let Some(skip) = require_explicit.filter(|skip| *skip < self.explicit_policy && (!last || *skip == 0)) {
            self.explicit_policy = skip;
            self.demanded_by = position;
        }
        self.policy_mapping = self.policy_mapping.min(inhibit_mapping.unwrap_or(u64::MAX));
        let inhibit_any =
            read(certificate, ID_CE_INHIBIT_ANY_POLICY, "inhibitAnyPolicy", |value| unsigned(value.of(INTEGER)?))?;
        self.inhibit_any_policy = self.inhibit_any_policy.min(inhibit_any.unwrap_or(u64::MAX));
        Ok(())
    }

    /// Why the path is not valid, and the position of the CA that demands a policy (section 6.1.5 (g)). Both sides of
    /// section 6.1.3 (f) only ever become stricter, so that it is enough to look once, at the end.
    pub(super) fn finish(self, end_entity: bool) -> Option<(usize, NoPolicy)> {
        // Without an end entity, what section 6.1.5 (a) would leave of it for one.
        let explicit_policy = self.explicit_policy.saturating_sub(u64::from(!end_entity));
        self.no_policy.filter(|_| explicit_policy == 0).map(|reason| (self.demanded_by, reason))
    }
}

fn read<'a, T>(
    certificate: &'a Certificate,
    oid: ObjectIdentifier,
    name: &'static str,
    read: impl FnOnce(Value<'a>) -> Result<T, DerError>,
) -> Result<Option<T>, Fault> {
    let value = certificate.extension(oid).map(|extension| read(Value::only(&extension.value)?));
    value.transpose().map_err(|error| Fault::Extension { extension: name, error })
}

/// PolicyInformation { policyIdentifier, policyQualifiers OPTIONAL }; the qualifiers decide nothing.
fn policies(value: Value<'_>) -> Result<Vec<Oid>, DerError> {
    let mut reader = Reader::new(value.of(SEQUENCE)?);
    let mut policies = Vec::new();
    while !reader.is_empty() {
        policies.push(oid(&mut Reader::new(reader.expect(SEQUENCE)?))?);
    }
    Ok(policies)
}

/// The issuer's policy and the subject's of each mapping.
fn mappings(value: Value<'_>) -> Result<Vec<(Oid, Oid)>, DerError> {
    let mut reader = Reader::new(value.of(SEQUENCE)?);
    let mut mappings = Vec::new();
    while !reader.is_empty() {
        let mut mapping = Reader::new(reader.expect(SEQUENCE)?);
        mappings.push((oid(&mut mapping)?, oid(&mut mapping)?));
        mapping.finish()?;
    }
    Ok(mappings)
}

/// requireExplicitPolicy and inhibitPolicyMapping; the sequence must not be empty (section 4.2.1.11).
fn policy_constraints(value: Value<'_>) -> Result<(Option<u64>, Option<u64>), DerError> {
    let mut reader = Reader::new(value.of(SEQUENCE)?);
    let require_explicit = reader.optional(implicit(0))?.map(unsigned).transpose()?;
    let inhibit_mapping = reader.optional(implicit(1))?.map(unsigned).transpose()?;
    reader.finish()?;
    if require_explicit.or(inhibit_mapping).is_none() {
        return Err(DerError::Content("policyConstraints"));
    }
    Ok((require_explicit, inhibit_mapping))
}

fn oid(reader: &mut Reader<'_>) -> Result<Oid, DerError> {
    Oid::from_content(reader.expect(OBJECT_IDENTIFIER)?)
}

/// SkipCerts; more than fits into the type is as good as no limit.
fn unsigned(content: &[u8]) -> Result<u64, DerError> {
    match content {
        [] | [0x80..=0xff, ..] => Err(DerError::Content("SkipCerts")),
        octets => {
            Ok(octets.iter().fold(0_u64, |value, octet| value.saturating_mul(256).saturating_add((*octet).into())))
        }
    }
}
