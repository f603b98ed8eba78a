//! The layers of the code, as ARCHITECTURE.md draws them: every import leads to a lower floor, no two files import each
//! other, directly or around, and a library stays in the modules that exist to hide it.
//!
//! The imports are read from the syntax trees of the files. Code of `#[cfg(test)]` is free.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, ImplItemFn, Item, ItemFn, ItemMod, Macro, UseTree,
    visit::{self, Visit},
};

/// From the top floor down; the modules of one floor import none of each other. A folder belongs to its module.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["serve"],
    &["est"],
    &["grpc", "http"],
    &["status"],
    &["checkpoint", "configure", "crl_publisher", "destinations", "issuer", "proof"],
    &["events", "lint", "reconcile", "refusals", "registration"],
    &["committer"],
    &["cert", "describe_certificate", "enroll", "export"],
    &["ceremony", "profile"],
    &["ca", "crl", "expiry"],
    &["agreement", "csr", "handshake", "path", "vending"],
    &["hsm", "ledger"],
    &["config", "connections", "log_filter", "readiness", "roles", "roster", "security_log", "signer"],
    &["fairness", "throughput"],
    &["file_lock", "live", "local_user", "metrics", "pattern", "possession", "private_key", "security", "serial"],
];

/// A library, or the protocol's generated types, and the only modules that may name it.
const BOUNDARIES: &[(&str, &[&str])] = &[
    ("cryptoki", &["hsm"]),
    ("cryptoki_sys", &["hsm"]),
    ("rcgen", &["ceremony", "enroll", "hsm", "lint"]),
    ("sled", &["ledger::index"]),
    ("tokio_postgres", &["ledger::shared"]),
    ("tokio_postgres_rustls", &["ledger::shared"]),
    ("birthmark::proto", &["grpc", "cli", "events", "export"]),
    ("clap", &["main", "cli"]),
    ("anyhow", &["main", "cli", "serve"]),
    ("axum", &["http", "est"]),
];

/// No file is longer.
const LONGEST_FILE: usize = 600;

/// A path of modules from a crate's root.
type ModulePath = Vec<String>;

/// A crate of this workspace, whose files are looked at.
struct Package {
    /// As other crates name its library.
    name: &'static str,
    folder: &'static str,
}

const DAEMON: Package = Package { name: "birthmark", folder: "src" };
const PACKAGES: [Package; 7] = [
    DAEMON,
    Package { name: "birthmark_base", folder: "base/src" },
    Package { name: "birthmark_client", folder: "clients/rust/src" },
    Package { name: "birthmark_station", folder: "clients/station/src" },
    Package { name: "birthmark_bench", folder: "bench/src" },
    Package { name: "birthmark_aws", folder: "aws-iot/src" },
    Package { name: "birthmark_manual", folder: "manual/src" },
];

/// The folders of sources.
const FOLDERS: [&str; 11] = [
    "src",
    "aws-iot/src",
    "aws-iot/tests/it",
    "base/src",
    "bench/src",
    "bench/tests/it",
    "benches",
    "clients/rust/src",
    "clients/station/src",
    "manual/src",
    "tests/it",
];

/// What one file imports: paths from the crate's root, and names of other crates.
struct Imports {
    package: &'static str,
    module: ModulePath,
    modules: BTreeSet<ModulePath>,
    crates: BTreeSet<String>,
    /// Its modules that exist in tests only.
    tests: BTreeSet<ModulePath>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The source files below a folder, by the module that each would be.
fn files_below(folder: &Path) -> BTreeMap<ModulePath, PathBuf> {
    fn walk(folder: &Path, module: &[String], found: &mut BTreeMap<ModulePath, PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let inner = [module, &[name]].concat();
            if path.is_dir() {
                walk(&path, &inner, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(inner, path);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, &[], &mut found);
    found
}

fn module_path(name: &str) -> ModulePath {
    name.split("::").map(str::to_owned).collect()
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test")))
    })
}

impl Imports {
    fn of(package: &'static str, module: &[String], path: &Path) -> Imports {
        let text = fs::read_to_string(path).unwrap();
        Imports::of_text(package, module, &text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn of_text(package: &'static str, module: &[String], text: &str) -> syn::Result<Imports> {
        let mut imports = Imports {
            package,
            module: module.to_vec(),
            modules: BTreeSet::new(),
            crates: BTreeSet::new(),
            tests: BTreeSet::new(),
        };
        imports.visit_file(&syn::parse_file(text)?);
        Ok(imports)
    }

    /// Where the children of this file are: the modules of a crate's root are not below it.
    fn children(&self) -> &[String] {
        match &self.module[..] {
            [one] if one == "main" || one == "lib" => &[],
            module => module,
        }
    }

    fn add(&mut self, segments: &[String]) {
        let Some(first) = segments.first() else { return };
        let ups = segments.iter().take_while(|segment| *segment == "super").count();
        let from_root = match first.as_str() {
            "crate" => segments[1..].to_vec(),
            name if name == self.package => segments[1..].to_vec(),
            "self" => [self.children(), &segments[1..]].concat(),
            "super" => [&self.module[..self.module.len().saturating_sub(ups)], &segments[ups..]].concat(),
            other => {
                self.crates.insert(other.to_owned());
                // A child that is named without `self`.
                [self.children(), segments].concat()
            }
        };
        self.modules.insert(from_root);
    }

    fn add_tree(&mut self, tree: &UseTree, before: &mut ModulePath) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_tree(&path.tree, before);
                before.pop();
            }
            UseTree::Name(name) => self.add(&[&before[..], &[name.ident.to_string()]].concat()),
            UseTree::Rename(name) => self.add(&[&before[..], &[name.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.add(before),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, before)),
        }
    }
}

impl<'a> Visit<'a> for Imports {
    fn visit_item(&mut self, item: &'a Item) {
        match item {
            Item::Use(found) if !is_test(&found.attrs) => self.add_tree(&found.tree, &mut Vec::new()),
            Item::Use(_) => {}
            other => visit::visit_item(self, other),
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if is_test(&item.attrs) {
            self.tests.insert([self.children(), &[item.ident.to_string()]].concat());
        } else {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.add(&segments);
        }
        visit::visit_path(self, path);
    }

    /// What a macro is given is tokens; a path in it is found by its text.
    fn visit_macro(&mut self, found: &'a Macro) {
        let text = found.tokens.to_string().replace(' ', "");
        let package = format!("{}::", self.package);
        for head in ["crate::", "super::", "sled::", "cryptoki::", &package] {
            for (at, _) in text.match_indices(head) {
                // Not the end of a longer name, nor of a path that was found already.
                if text[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':')) {
                    continue;
                }
                let rest = &text[at..];
                let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':'))).unwrap_or(rest.len());
                let segments: Vec<_> =
                    rest[..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
                self.add(&segments);
            }
        }
        visit::visit_macro(self, found);
    }
}

/// What each file imports, without the files that exist in tests only.
fn imports(package: &Package) -> BTreeMap<ModulePath, Imports> {
    let files = files_below(&root().join(package.folder));
    let mut imports: BTreeMap<_, _> = files
        .into_iter()
        .map(|(module, path)| {
            let imports = Imports::of(package.name, &module, &path);
            (module, imports)
        })
        .collect();
    let tests: BTreeSet<ModulePath> = imports.values().flat_map(|file| file.tests.clone()).collect();
    imports.retain(|module, _| !(1..=module.len()).any(|length| tests.contains(&module[..length])));
    imports
}

/// The files that each file imports something from.
fn arrows(package: &Package) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let files = imports(package);
    let target = |imported: &ModulePath| {
        let mut prefixes = (1..=imported.len()).rev().map(|length| imported[..length].to_vec());
        prefixes.find(|prefix| files.contains_key(prefix))
    };
    files
        .iter()
        .map(|(module, imports)| {
            let targets = imports.modules.iter().filter_map(target).filter(|target| target != module);
            (module.clone(), targets.collect())
        })
        .collect()
}

/// The imports that are part of a circle: a file leads to itself when its imports are followed.
fn circles(arrows: &BTreeMap<ModulePath, BTreeSet<ModulePath>>) -> Vec<String> {
    let mut circles = Vec::new();
    for start in arrows.keys() {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(file) = open.pop() {
            for target in &arrows[file] {
                if target == start {
                    circles.push(format!("{} <- {}", start.join("::"), file.join("::")));
                }
                if seen.insert(target) {
                    open.push(target);
                }
            }
        }
    }
    circles
}

fn floor(module: &[String]) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&module[0].as_str()))
        .unwrap_or_else(|| panic!("{} stands on no floor", module.join("::")))
}

/// Also a file and its own children count: a child imports its siblings, not its parent, or the parent none of them.
#[test]
fn files_import_each_other_in_no_circle() {
    for package in PACKAGES {
        let circles = circles(&arrows(&package));
        assert!(circles.is_empty(), "{}: {} imports in circles:\n{}", package.name, circles.len(), circles.join("\n"));
    }
}

/// Within a module the files are free, but for circles.
#[test]
fn modules_import_from_lower_floors_only() {
    let mut upward = Vec::new();
    let arrows = arrows(&DAEMON);
    let library = arrows.iter().filter(|(file, _)| file[0] != "lib");
    for (file, targets) in library {
        for target in targets.iter().filter(|target| target[0] != file[0] && floor(target) <= floor(file)) {
            upward.push(format!("{} -> {}", file.join("::"), target.join("::")));
        }
    }
    assert!(upward.is_empty(), "{} imports do not lead down:\n{}", upward.len(), upward.join("\n"));
}

/// The table is the house's: every module stands on one floor, and there is none without a module.
#[test]
fn floors_are_those_of_the_files() {
    let files = imports(&DAEMON);
    let modules: BTreeSet<&str> = files.keys().map(|file| file[0].as_str()).filter(|module| *module != "lib").collect();
    let drawn: Vec<&str> = FLOORS.iter().flat_map(|floor| floor.iter().copied()).collect();
    assert_eq!(modules, drawn.iter().copied().collect());
    assert_eq!(drawn.len(), modules.len(), "a module stands on two floors");
}

/// ARCHITECTURE.md draws a floor as one line, with two spaces between modules.
#[test]
fn floors_are_those_of_architecture_md() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut lines = document.lines().map(str::trim);
    for floor in FLOORS {
        let drawn = floor.join("  ");
        assert!(lines.any(|line| line == drawn), "ARCHITECTURE.md has no floor \"{drawn}\", or not in this order");
    }
}

#[test]
fn libraries_stay_inside_their_boundary() {
    let mut breaches = Vec::new();
    let mut used = BTreeSet::new();
    for (module, imports) in imports(&DAEMON) {
        let name = module.join("::");
        for (library, inside) in BOUNDARIES {
            let names = match library.strip_prefix("birthmark::") {
                Some(own) => {
                    imports.modules.iter().any(|path| path[..] == [own] || path.first().is_some_and(|it| it == own))
                }
                None => imports.crates.contains(*library),
            };
            let allowed = inside.iter().any(|inside| name == *inside || name.starts_with(&format!("{inside}::")));
            if names && !allowed && name != "lib" {
                breaches.push(format!("{library} in {name}"));
            }
            if names {
                used.insert(*library);
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
    assert_eq!(used.len(), BOUNDARIES.len(), "a boundary that nothing needs: only {used:?} are used");
}

/// `foo.rs` and `foo/`, never `foo/mod.rs`: an editor's tab has the module's name.
#[test]
fn module_files_have_the_name_of_their_module() {
    for folder in FOLDERS {
        let files = files_below(&root().join(folder));
        let found: Vec<_> = files.into_iter().filter(|(module, _)| module.ends_with(&["mod".to_owned()])).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn files_have_a_length_that_can_be_read() {
    let mut long = Vec::new();
    for folder in FOLDERS {
        for path in files_below(&root().join(folder)).into_values() {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if lines > LONGEST_FILE {
                long.push(format!("{lines} {}", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The ten that lib.rs states: each is named, as `(invariant 3)`, at the lines that keep it.
#[test]
fn invariants_are_named_where_they_are_kept() {
    let files = files_below(&root().join("src"));
    let text: String = files
        .into_iter()
        .filter(|(module, _)| *module != module_path("lib"))
        .map(|(_, path)| fs::read_to_string(path).unwrap())
        .collect();
    let missing: Vec<_> = (1..=10).filter(|number| !text.contains(&format!("(invariant {number})"))).collect();
    assert!(missing.is_empty(), "no line keeps the invariants {missing:?}");
}

/// The reader of imports itself: every way in which Rust names a module, and none that tests use.
#[test]
fn imports_of_a_file_are_all_found() {
    let text = r#"
        use crate::{a::{self, A}, b as other};
        use super::sibling::X;
        use cryptoki::context;
        mod child;
        pub use child::Y;
        #[cfg(test)] use crate::free;
        #[cfg(test)] mod tests;
        #[cfg(test)] mod inline { use crate::free; }
        fn f() { crate::c::d(); birthmark::e(); self::child::g(); println!("{}", crate::h::i()); not_crate::j(); }
        #[test] fn t() { crate::free(); }
        impl T { fn m(&self) -> super::super::k::K { sled::open() } }
    "#;
    let found = Imports::of_text("birthmark", &module_path("top::inner"), text).unwrap();
    let expected = ["a", "a::A", "b", "top::sibling::X", "top::inner::child::Y", "c::d", "e", "h::i", "k::K"];
    for path in expected {
        let path = module_path(path);
        let known = found.modules.iter().any(|found| found.starts_with(&path));
        assert!(known, "{path:?} is not in {:?}", found.modules);
    }
    assert!(!found.modules.iter().any(|path| path[0] == "free" || path[0] == "j"), "{:?}", found.modules);
    assert!(found.crates.contains("cryptoki") && found.crates.contains("sled"), "{:?}", found.crates);
    assert_eq!(found.tests, ["tests", "inline"].map(|name| module_path(&format!("top::inner::{name}"))).into());
}

/// A circle is found, directly and around; what only leads into it is none.
#[test]
fn circles_of_imports_are_found() {
    let graph = |arrows: &[(&str, &[&str])]| -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        arrows
            .iter()
            .map(|(file, targets)| (module_path(file), targets.iter().map(|target| module_path(target)).collect()))
            .collect()
    };
    assert!(circles(&graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let around = circles(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["a"])]));
    assert_eq!(around, ["a <- c", "b <- a", "c <- b"]);
    let own_child = circles(&graph(&[("a", &["a::x"]), ("a::x", &["a"])]));
    assert_eq!(own_child, ["a <- a::x", "a::x <- a"]);
}
