//! Certificate policies, with OpenSSL's `-policy_check` as the judge of every case. GnuTLS 3.7 cannot be one: it validates
//! no policies and refuses a critical policyConstraints or policyMappings as unknown, whatever it says.

use std::{fs, path::Path, process::Command};

use const_oid::db::rfc5280::ANY_POLICY;

use super::*;

const A: &str = "1.2.3.1";
const B: &str = "1.2.3.2";
const C: &str = "1.2.3.3";
const ANY: &str = "2.5.29.32.0";

fn oid(text: &str) -> Vec<u8> {
    der(0x06, text.parse::<Oid>().unwrap().as_ref())
}

fn policies(list: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = list.iter().flat_map(|policy| der(SEQUENCE, &oid(policy))).collect();
    extension(ID_CE_CERTIFICATE_POLICIES, false, &der(SEQUENCE, &list))
}

fn constraints(require_explicit: Option<u8>, inhibit_mapping: Option<u8>) -> Vec<u8> {
    let skip = |number: u8, skip: Option<u8>| skip.map(|skip| der(implicit(number), &[skip])).unwrap_or_default();
    let value = [skip(0, require_explicit), skip(1, inhibit_mapping)].concat();
    extension(ID_CE_POLICY_CONSTRAINTS, true, &der(SEQUENCE, &value))
}

fn mappings(list: &[(&str, &str)]) -> Vec<u8> {
    let list: Vec<u8> =
        list.iter().flat_map(|(issuers, subjects)| der(SEQUENCE, &[oid(issuers), oid(subjects)].concat())).collect();
    extension(ID_CE_POLICY_MAPPINGS, true, &der(SEQUENCE, &list))
}

fn inhibit_any(skip: u8) -> Vec<u8> {
    extension(ID_CE_INHIBIT_ANY_POLICY, true, &der(INTEGER, &[skip]))
}

/// What the extensions of the device, of the issuing CA, of the CA above it and of the root are.
type Extensions = [Vec<Vec<u8>>; 4];

/// The device's certificate and its chain.
fn path(extensions: &Extensions) -> (Certificate, Vec<Certificate>) {
    let [device, chain @ ..] = extensions;
    let with = |spec: Spec, more: &[Vec<u8>]| {
        Spec { extensions: [spec.extensions.clone(), more.to_vec()].concat(), ..spec }.make()
    };
    let cas = [Spec::ca(0, 1), Spec::ca(1, 2), Spec::ca(2, 2)];
    let chain = cas.into_iter().zip(chain).map(|(spec, more)| with(spec, more)).collect();
    (with(Spec { subject: name("device"), ..Spec::ca(0, 0) }, device), chain)
}

fn judge(extensions: &Extensions) -> Result<(), String> {
    let (device, chain) = path(extensions);
    check(&chain).and_then(|()| check_end_entity(&chain, &device)).map_err(|error| error.to_string())
}

/// What `openssl verify -policy_check` says of it, with the user-initial-policy-set that RFC 5280 has by default.
fn openssl(folder: &Path, extensions: &Extensions) -> Result<(), String> {
    let (device, chain) = path(extensions);
    let write = |name: &str, certificates: &[Certificate]| {
        let pem: String =
            certificates.iter().map(|one| pem::encode(&pem::Pem::new("CERTIFICATE", one.der()))).collect();
        #[expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
        fs::write(folder.join(name), pem).unwrap();
    };
    write("device.pem", &[device]);
    write("cas.pem", &chain[..2]);
    write("root.pem", &chain[2..]);
    let moment = "1790000000";
    let run = Command::new("openssl")
        .current_dir(folder)
        .args(["verify", "-policy_check", "-policy", ANY, "-attime", moment, "-no-CApath", "-no-CAstore"])
        .args(["-CAfile", "root.pem", "-untrusted", "cas.pem", "device.pem"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    if run.status.success() { Ok(()) } else { Err(said.into_owned()) }
}

/// A CA that demands a policy gets one in all that is below it, or the path is refused (section 6.1.5 (g)); the sentence
/// names the CA that demands it and the certificate that lacks it.
#[test]
fn path_without_a_demanded_policy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let demand = || constraints(Some(0), None);
    let none = Vec::new;
    for (extensions, says) in [
        // Nobody demands one.
        ([none(), none(), vec![policies(&[A])], none()], ""),
        ([vec![policies(&[A])], vec![policies(&[B])], vec![policies(&[C])], none()], ""),
        // Demanded, and there.
        ([vec![policies(&[A])], vec![policies(&[A, B])], vec![policies(&[A]), demand()], none()], ""),
        ([vec![policies(&[A])], vec![policies(&[ANY])], vec![policies(&[ANY]), demand()], none()], ""),
        ([vec![policies(&[ANY])], vec![policies(&[B])], vec![policies(&[B]), demand()], none()], ""),
        (
            [vec![policies(&[B])], vec![policies(&[A]), demand()], vec![policies(&[A]), mappings(&[(A, A)])], none()],
            "the certificate has 1.2.3.2, and its issuers allow 1.2.3.1",
        ),
        ([vec![policies(&[B])], vec![policies(&[B])], vec![policies(&[A]), mappings(&[(A, B)]), demand()], none()], ""),
        // The trust anchor's own are not looked at.
        ([none(), none(), none(), vec![policies(&[A]), demand()]], ""),
        // Demanded, and not there.
        (
            [none(), vec![policies(&[A]), demand()], vec![policies(&[A])], none()],
            "certificate 1, the issuing CA \"CN=CA 0\": it demands a valid certificate policy below it \
          (requireExplicitPolicy, section 4.2.1.11), but no policy is valid there: the certificate has no \
          certificatePolicies, and its issuers allow 1.2.3.1",
        ),
        (
            [vec![policies(&[B])], vec![policies(&[A])], vec![policies(&[A]), demand()], none()],
            "certificate 2, \"CN=CA 1\": it demands a valid certificate policy below it (requireExplicitPolicy, section \
          4.2.1.11), but no policy is valid there: the certificate has 1.2.3.2, and its issuers allow 1.2.3.1",
        ),
        (
            [vec![policies(&[A])], vec![policies(&[B])], vec![policies(&[A]), demand()], none()],
            "certificate 1 has 1.2.3.2, and its issuers allow 1.2.3.1",
        ),
        (
            [vec![policies(&[A])], none(), vec![policies(&[A]), demand()], none()],
            "certificate 1 has no certificatePolicies",
        ),
        (
            [vec![policies(&[A])], vec![demand()], vec![policies(&[A])], none()],
            "certificate 1 has no certificatePolicies",
        ),
        // anyPolicy that an inhibitAnyPolicy above it makes void.
        (
            [vec![policies(&[A])], vec![policies(&[ANY])], vec![policies(&[A]), demand(), inhibit_any(0)], none()],
            "certificate 1 has anyPolicy, and its issuers allow 1.2.3.1",
        ),
        (
            [vec![policies(&[ANY])], vec![policies(&[ANY])], vec![policies(&[A]), demand(), inhibit_any(1)], none()],
            "the certificate has anyPolicy, and its issuers allow 1.2.3.1",
        ),
        // A mapping that an inhibitPolicyMapping above it makes void.
        (
            [
                vec![policies(&[B])],
                vec![policies(&[A]), mappings(&[(A, B)])],
                vec![policies(&[A]), constraints(Some(0), Some(0))],
                none(),
            ],
            "certificate 1 maps 1.2.3.1, which its issuers inhibit (inhibitPolicyMapping)",
        ),
        // What is skipped is counted.
        ([none(), none(), vec![constraints(Some(3), None)], none()], ""),
        ([none(), none(), vec![constraints(Some(2), None)], none()], "certificate 2 has no certificatePolicies"),
    ] {
        match judge(&extensions) {
            Ok(()) => assert_eq!("", says),
            Err(error) => assert!(!says.is_empty() && error.contains(says), "{says:?}: {error}"),
        }
        let openssl = openssl(folder.path(), &extensions);
        assert_eq!(openssl.is_ok(), says.is_empty(), "{says:?}: {openssl:?}");
    }
}

/// The shortened state decides as OpenSSL's whole tree does, whatever the path has.
#[test]
fn policies_of_any_path_are_judged_as_by_openssl() {
    let folder = tempfile::tempdir().unwrap();
    // The same sequence in every run (the generator of POSIX's rand48).
    let mut state = 0x330e_u64;
    let mut pick = |choices: u64| {
        state = state.wrapping_mul(0x5_deec_e66d).wrapping_add(11) & 0xffff_ffff_ffff;
        (state >> 17) % choices
    };
    let mut refused = 0;
    for round in 0..150 {
        let extensions: Extensions = std::array::from_fn(|position| {
            let sets: [&[&str]; 7] = [&[A], &[A, B], &[B, C], &[ANY], &[ANY, A], &[A, B, C], &[C, ANY]];
            let mut more = Vec::new();
            if pick(8) > 0 {
                more.push(policies(sets[pick(7) as usize]));
            }
            if position > 0 {
                match pick(6) {
                    0 => more.push(mappings(&[(A, B)])),
                    1 => more.push(mappings(&[(B, A), (B, C)])),
                    _ => {}
                }
                match pick(4) {
                    0 => more.push(constraints(Some(0), None)),
                    1 => more.push(constraints(Some(pick(4) as u8), Some(pick(3) as u8))),
                    _ => {}
                }
                if pick(4) == 0 {
                    more.push(inhibit_any(pick(3) as u8));
                }
            }
            more
        });
        let (own, openssl) = (judge(&extensions), openssl(folder.path(), &extensions));
        assert_eq!(own.is_ok(), openssl.is_ok(), "round {round}: {own:?}, {openssl:?}");
        refused += u32::from(own.is_err());
    }
    assert!((30..120).contains(&refused), "{refused}");
}

/// What no CA may write is refused, whether a policy is demanded or not.
#[test]
fn malformed_policy_extension_is_refused() {
    let with = |more: Vec<u8>| judge(&[Vec::new(), vec![policies(&[A]), more], vec![policies(&[A])], Vec::new()]);
    let value = |oid, value: &[u8]| extension(oid, true, value);
    for (more, says) in [
        (mappings(&[(A, ANY)]), "it maps anyPolicy"),
        (value(ID_CE_POLICY_CONSTRAINTS, &[SEQUENCE, 0]), "its extension policyConstraints is malformed"),
        (
            value(ID_CE_POLICY_CONSTRAINTS, &[SEQUENCE, 3, 0x80, 1, 0xff]),
            "its extension policyConstraints is malformed",
        ),
        (value(ID_CE_POLICY_MAPPINGS, &[SEQUENCE, 2, SEQUENCE, 0]), "its extension policyMappings is malformed"),
        (value(ID_CE_INHIBIT_ANY_POLICY, &[BOOLEAN, 1, 0]), "its extension inhibitAnyPolicy is malformed"),
    ] {
        let error = with(more).unwrap_err();
        assert!(error.contains("certificate 1") && error.contains(says), "{says}: {error}");
    }
    let twice = judge(&[Vec::new(), vec![policies(&[A, B, A])], Vec::new(), Vec::new()]).unwrap_err();
    assert!(twice.contains("it has the certificate policy 1.2.3.1 twice"), "{twice}");
    assert_eq!(Oid::from(ANY_POLICY).to_string(), ANY);
}
