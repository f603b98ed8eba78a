//! A daemon's copy that is damaged.

use std::{fs, path::PathBuf};

use super::scene::{Daemon, Scene, order};

/// The files of its journal, in their order.
fn files(daemon: &Daemon) -> Vec<PathBuf> {
    let entries = fs::read_dir(daemon.folder().join("journal")).unwrap();
    let mut files: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()).collect();
    files.sort();
    files
}

/// A copy that is damaged is refused, by file and byte; moved away, it is read again from the database.
#[test]
#[expect(clippy::disallowed_methods, reason = "the damage")]
fn damaged_copy_is_refused_and_read_again() {
    let scene = Scene::new();
    let mut one = scene.daemon("one");
    one.ask(order("lot", 100));
    for number in 0..10 {
        one.issue(number, "lot");
    }
    let newest = files(&one).pop().unwrap();
    let folder = one.close();
    let sound = fs::read(&newest).unwrap();
    let at = sound.len() / 2;
    let mut damaged = sound.clone();
    damaged[at] ^= 1;
    fs::write(&newest, &damaged).unwrap();
    let refused = scene.try_open("one", &folder, 1).map(drop).unwrap_err();
    let (said, name) = (refused.to_string(), newest.file_name().unwrap().to_str().unwrap());
    assert!(refused.is_damage() && said.contains(name) && said.contains("byte"), "{said}");
    for name in ["journal", "index"] {
        fs::remove_dir_all(folder.path().join(name)).unwrap();
    }
    let mut one = scene.open("one", folder);
    assert_eq!(fs::read(&newest).unwrap()[..sound.len()], sound);
    one.issue(10, "lot");
    scene.check(vec![one]);
}
