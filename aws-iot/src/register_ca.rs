//! Registers the issuing CA, or says how a registered one differs from what is wanted.

use serde_json::Value;

use crate::{
    failure::{CallError, Kind},
    issuing_ca::IssuingCa,
    platform::{Authority, Mode, NewAuthority, Platform, Provisioning},
};

/// How the CA shall be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// With a proof of possession, or without one.
    pub mode: Mode,
    /// Whether unknown certificates of it are registered when they connect for the first time.
    pub auto_registration: bool,
    /// Whether AWS IoT provisions them as well.
    pub provisioning: Option<Provisioning>,
}

/// Where the CA stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It is not registered.
    Absent,
    /// It is registered as it is wanted.
    AsWanted,
    /// It is registered otherwise: a sentence for each difference, and whether all of them can be mended.
    Differs(Vec<String>, bool),
}

/// Whether and how the CA is registered.
///
/// # Errors
/// The call failed.
pub async fn stand(platform: &Platform, ca: &IssuingCa, wanted: &Wanted) -> Result<Stand, CallError> {
    Ok(match platform.describe_authority(&ca.id).await? {
        None => Stand::Absent,
        Some(authority) => {
            let differences = differences(&authority, wanted);
            if differences.is_empty() {
                Stand::AsWanted
            } else {
                Stand::Differs(differences, authority.mode == wanted.mode)
            }
        }
    })
}

fn on(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn differences(authority: &Authority, wanted: &Wanted) -> Vec<String> {
    let mut differences = Vec::new();
    if !authority.active {
        differences.push("it is INACTIVE: none of its devices may connect".to_owned());
    }
    if authority.mode != wanted.mode {
        differences.push(format!(
            "its mode is {}, not {}; AWS changes no mode: deactivate and delete the CA there, and register it again",
            authority.mode, wanted.mode
        ));
    }
    if authority.auto_registration != wanted.auto_registration {
        let (is, should) = (on(authority.auto_registration), on(wanted.auto_registration));
        differences.push(format!("auto-registration is {is}, not {should}"));
    }
    match (&authority.provisioning, &wanted.provisioning) {
        (None, None) => {}
        (Some(_), None) => {
            differences.push("it has a provisioning template (JITP), which was not asked for".to_owned())
        }
        (None, Some(_)) => differences.push("it has no provisioning template (JITP)".to_owned()),
        (Some(there), Some(wanted)) => {
            if !is_same_json(&there.template, &wanted.template) {
                differences.push("its provisioning template (JITP) is another one".to_owned());
            }
            if there.role != wanted.role {
                differences.push(format!("its provisioning role is {}, not {}", there.role, wanted.role));
            }
        }
    }
    differences
}

fn is_same_json(one: &str, other: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || parse(one).is_some_and(|one| parse(other) == Some(one))
}

/// Registers a CA that is not.
///
/// # Errors
/// The call failed. If somebody else was quicker that is none.
pub async fn register(
    platform: &Platform,
    ca: &IssuingCa,
    wanted: &Wanted,
    verification: Option<&str>,
) -> Result<(), CallError> {
    let new = NewAuthority {
        pem: &ca.pem,
        verification,
        auto_registration: wanted.auto_registration,
        provisioning: wanted.provisioning.as_ref(),
    };
    match platform.register_authority(&new).await {
        Err(error) if error.kind == Kind::Exists => Ok(()),
        result => result,
    }
}

/// Mends what differs, as far as AWS lets it be changed.
///
/// # Errors
/// The call failed.
pub async fn mend(platform: &Platform, ca: &IssuingCa, wanted: &Wanted) -> Result<(), CallError> {
    platform.update_authority(&ca.id, wanted.auto_registration, wanted.provisioning.as_ref()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arn::CertificateId;

    fn wanted() -> Wanted {
        Wanted {
            mode: Mode::Default,
            auto_registration: true,
            provisioning: Some(Provisioning { template: r#"{"a":1,"b":2}"#.into(), role: "arn:r".into() }),
        }
    }

    fn authority(change: impl FnOnce(&mut Authority)) -> Authority {
        let mut authority = Authority {
            id: CertificateId::of(b""),
            arn: "arn".into(),
            active: true,
            mode: Mode::Default,
            auto_registration: true,
            provisioning: Some(Provisioning { template: "{\"b\": 2,\n\"a\": 1}".into(), role: "arn:r".into() }),
        };
        change(&mut authority);
        authority
    }

    /// Each difference is a sentence; the same template written otherwise is none.
    #[test]
    fn registered_ca_tells_each_difference() {
        assert_eq!(differences(&authority(|_| {}), &wanted()), Vec::<String>::new());
        let tell = |change: fn(&mut Authority)| differences(&authority(change), &wanted()).join("; ");
        for (said, says) in [
            (tell(|ca| ca.active = false), "INACTIVE"),
            (tell(|ca| ca.mode = Mode::SniOnly), "SNI_ONLY"),
            (tell(|ca| ca.auto_registration = false), "auto-registration is off, not on"),
            (tell(|ca| ca.provisioning = None), "no provisioning template"),
            (tell(|ca| ca.provisioning.as_mut().unwrap().template = "{}".into()), "another one"),
            (tell(|ca| ca.provisioning.as_mut().unwrap().role = "arn:x".into()), "arn:x"),
        ] {
            assert!(said.contains(says), "{said}");
        }
        let all = tell(|ca| (ca.active, ca.auto_registration) = (false, false));
        assert_eq!(all.matches("; auto").count(), 1, "{all}");
    }
}
