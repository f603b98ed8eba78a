//! A model of a disk and of what a power cut may leave on it.
//!
//! As POSIX has it, and no file system in particular: a sync of a file makes its bytes and its length durable, not its
//! name; a sync of a folder makes the names in it durable. All else may be there or not, in any order. A write may be
//! torn at the 512 bytes of a sector; where a file has grown and its bytes have not come, there are zeros or noise.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use rand::{RngExt, rngs::StdRng, seq::SliceRandom};

use super::trace::Event;

const SECTOR: usize = 512;

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Folder,
    File(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Default)]
struct File {
    /// As the process sees it.
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A change of names in one folder.
#[derive(Clone, Debug)]
struct Naming {
    folder: PathBuf,
    set: (PathBuf, Option<Node>),
    /// The other half of a rename, which happens with it.
    also: Option<(PathBuf, Option<Node>)>,
}

pub(super) struct Disk {
    root: PathBuf,
    files: Vec<File>,
    now: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Naming>,
}

impl Disk {
    /// Nothing but `root`, which is durable.
    pub(super) fn new(root: PathBuf) -> Disk {
        Disk { root, files: Vec::new(), now: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.files.iter().any(|file| !file.pending.is_empty())
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::MakeFolder(path) => self.name(path, Some(Node::Folder), None),
            Event::Create(path, truncate) => match self.now.get(path) {
                Some(Node::File(_)) if *truncate => self.change(path, Change::Truncate(0)),
                Some(_) => {}
                None => {
                    self.files.push(File::default());
                    self.name(path, Some(Node::File(self.files.len() - 1)), None);
                }
            },
            Event::Write(path, offset, bytes) => self.change(path, Change::Write(*offset as usize, bytes.clone())),
            Event::Truncate(path, length) => self.change(path, Change::Truncate(*length as usize)),
            Event::Remove(path) => self.name(path, None, None),
            Event::Rename(from, to) => {
                let node = self.now[from];
                self.name(to, Some(node), Some((from.clone(), None)));
            }
            Event::SyncFile(path) => {
                let Some(Node::File(file)) = self.now.get(path) else { panic!("{}", path.display()) };
                let file = &mut self.files[*file];
                file.durable.clone_from(&file.now);
                file.pending.clear();
            }
            Event::SyncFolder(path) => {
                let (synced, rest) =
                    std::mem::take(&mut self.pending).into_iter().partition(|naming| naming.folder == *path);
                self.pending = rest;
                let synced: Vec<Naming> = synced;
                for naming in &synced {
                    set(&mut self.durable, naming);
                }
            }
            Event::Acknowledged(_) => {}
        }
    }

    fn name(&mut self, path: &Path, node: Option<Node>, also: Option<(PathBuf, Option<Node>)>) {
        let folder = path.parent().unwrap().to_owned();
        let naming = Naming { folder, set: (path.to_owned(), node), also };
        set(&mut self.now, &naming);
        self.pending.push(naming);
    }

    fn change(&mut self, path: &Path, change: Change) {
        let Some(Node::File(file)) = self.now.get(path) else { panic!("{}", path.display()) };
        let file = &mut self.files[*file];
        match &change {
            Change::Write(offset, bytes) => put(&mut file.now, *offset, bytes),
            Change::Truncate(length) => file.now.resize(*length, 0),
        }
        file.pending.push(change);
    }

    /// What could be on the disk if the power failed now. Variant 0 has nothing that was not synced, 1 has all of it.
    pub(super) fn after_a_cut(&self, random: &mut StdRng, variant: usize) -> HashMap<PathBuf, Content> {
        let mut names = self.durable.clone();
        for naming in &self.pending {
            let there = match variant {
                0 => false,
                1 => true,
                _ => random.random_ratio(3, 4),
            };
            if there {
                set(&mut names, naming);
            }
        }
        let mut disk = HashMap::new();
        for (path, node) in &names {
            // A name in a folder that is not there is not there. Folders come before what is in them.
            let parent = path.parent().unwrap();
            let has_folder = parent == self.root || disk.contains_key(&self.relative(parent));
            if has_folder {
                let content = match node {
                    Node::Folder => Content::Folder,
                    Node::File(file) => Content::File(self.files[*file].after_a_cut(random, variant)),
                };
                disk.insert(self.relative(path), content);
            }
        }
        disk
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }
}

fn set(names: &mut BTreeMap<PathBuf, Node>, naming: &Naming) {
    for (path, node) in [Some(&naming.set), naming.also.as_ref()].into_iter().flatten() {
        match node {
            Some(node) => names.insert(path.clone(), *node),
            None => names.remove(path),
        };
    }
}

impl File {
    fn after_a_cut(&self, random: &mut StdRng, variant: usize) -> Vec<u8> {
        match variant {
            0 => return self.durable.clone(),
            1 => return self.now.clone(),
            _ => {}
        }
        let mut bytes = self.durable.clone();
        let mut order: Vec<_> = self.pending.iter().collect();
        if random.random_ratio(1, 3) {
            order.shuffle(random);
        }
        for change in order {
            match change {
                Change::Truncate(length) => {
                    if random.random() && *length <= bytes.len() {
                        bytes.truncate(*length);
                    }
                }
                Change::Write(offset, written) => tear(&mut bytes, *offset, written, random),
            }
        }
        bytes
    }
}

/// Writes some of the sectors of a write.
fn tear(bytes: &mut Vec<u8>, offset: usize, written: &[u8], random: &mut StdRng) {
    let end = offset + written.len();
    let all = random.random_ratio(1, 8);
    let chance = random.random_range(0..=4);
    // The length may have come without the bytes.
    let grown = random.random_range(0..3);
    if grown > 0 && end > bytes.len() {
        let before = bytes.len();
        let length = if random.random() { end } else { random.random_range(before..=end) };
        bytes.resize(length, 0);
        if grown == 2 {
            random.fill(&mut bytes[before..]);
        }
    }
    let mut at = offset;
    while at < end {
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        if all || random.random_range(0..4) < chance {
            put(bytes, at, &written[at - offset..next - offset]);
        }
        at = next;
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// Tells disks apart.
pub(super) fn fingerprint(disk: &HashMap<PathBuf, Content>) -> u64 {
    let mut entries: Vec<_> = disk.iter().collect();
    entries.sort_unstable_by_key(|(path, _)| *path);
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    hasher.finish()
}

/// Makes the files and folders.
pub(super) fn write(disk: &HashMap<PathBuf, Content>, folder: &Path) {
    let mut entries: Vec<_> = disk.iter().collect();
    entries.sort_unstable_by_key(|(path, _)| *path);
    for (path, content) in entries {
        match content {
            Content::Folder => fs::create_dir(folder.join(path)).unwrap(),
            Content::File(bytes) => fs::write(folder.join(path), bytes).unwrap(),
        }
    }
}
