use std::error::Error;

use super::*;

fn settings(folder: &Path, command: &str) -> PushSettings {
    PushSettings {
        destination: "cloud".into(),
        folder: folder.to_owned(),
        state: folder.join("state"),
        command: command.into(),
        keys: Vec::new(),
    }
}

/// Each bundle is handed over until the program takes it, in the order of the numbers, and none twice.
#[test]
fn push_hands_each_bundle_over_until_it_is_taken() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    for name in ["cloud.0002", "cloud.0001", "cloud.10000", "other.0001", "cloud.00003", ".cloud.0001.0.h.1.tmp"] {
        fs::create_dir(path.join(name))?;
    }
    let taken = path.join("taken");
    // The first try of each fails.
    let command = format!(
        "test \"$1\" = \"$BIRTHMARK_BUNDLE\" && test -e {0}/$BIRTHMARK_BATCH.tried || {{ touch {0}/$BIRTHMARK_BATCH.tried; \
         exit 3; }}; basename $1 >> {1}",
        path.display(),
        taken.display()
    );
    let mut push = Push::open(settings(path, &command))?;
    assert!(matches!(Push::open(settings(path, "true")), Err(PushError::Busy(_))));
    for batch in ["cloud.0001", "cloud.0002"] {
        let error = push.hand_over().unwrap_err().to_string();
        assert!(error.contains(batch) && error.contains('3'), "{error}");
        // After a crash as well.
        drop(push);
        push = Push::open(settings(path, &command))?;
        assert_eq!(push.hand_over()?.as_deref(), Some(batch));
    }
    let error = push.hand_over().unwrap_err().to_string();
    assert!(error.contains("cloud.0003 is not in") && error.contains("cloud.10000 is"), "{error}");
    fs::create_dir(path.join("cloud.0003"))?;
    assert!(push.hand_over().is_err());
    assert_eq!(push.hand_over()?.as_deref(), Some("cloud.0003"));
    assert_eq!(fs::read_to_string(taken)?, "cloud.0001\ncloud.0002\ncloud.0003\n");
    Ok(())
}

/// A bundle is verified before, if there are keys.
#[test]
fn push_with_keys_refuses_what_is_not_whole() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("cloud.0001"))?;
    let key = rcgen::KeyPair::generate()?;
    let key = PublicKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(&key))?;
    let mut push = Push::open(PushSettings { keys: vec![key], ..settings(folder.path(), "touch $1/taken") })?;
    let error = push.hand_over().unwrap_err().to_string();
    assert!(error.contains("cloud.0001 is not to be used: manifest.jws: it is missing"), "{error}");
    assert!(!folder.path().join("cloud.0001/taken").exists());
    Ok(())
}

#[test]
fn push_state_of_another_destination_is_refused() -> Result<(), Box<dyn Error>> {
    #![expect(clippy::disallowed_methods, reason = "a test ends before its files matter")]
    let folder = tempfile::tempdir()?;
    for state in ["other.0001", "cloud.1", "cloud.0001\ncloud.0002", ""] {
        fs::write(folder.path().join("state"), state)?;
        let error = Push::open(settings(folder.path(), "true")).unwrap_err().to_string();
        assert!(error.contains("is not the id of a batch of cloud"), "{error}");
    }
    Ok(())
}
