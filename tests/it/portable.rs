//! The station's packages build for other systems than this one: what is Unix's or Linux' alone stands behind a gate, with
//! another way beside it, and they link nothing of the daemon.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use syn::{
    Attribute, Expr, ImplItemFn, Item, Meta, Stmt, Token,
    punctuated::Punctuated,
    visit::{self, Visit},
};

const PACKAGES: [&str; 3] = ["base/src", "clients/rust/src", "clients/station/src"];

/// Beginnings of paths that other systems do not have.
const UNIX: [&str; 6] =
    ["std::os::unix", "std::os::linux", "rustix", "libc", "tokio::signal::unix", "tokio::net::Unix"];

/// What a station must not link: the HSM, the ledger, the server.
const DAEMONS: [&str; 8] =
    ["birthmark ", "axum", "cryptoki", "mimalloc", "sled", "toml ", "tonic-health", "tonic-reflection"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What stands where, by the condition on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gate {
    /// `test`, or `all(test, …)`.
    Test,
    /// `unix`, or a system that is one.
    Unix,
    /// `windows`, `not(unix)`, or `not(target_os = "linux")`.
    Others,
}

/// The condition of `#[cfg(…)]`, if it is one of these.
fn gate(attributes: &[Attribute]) -> Option<Gate> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).find_map(|attribute| {
        let Meta::List(list) = &attribute.meta else { return None };
        condition(&list.parse_args::<Meta>().ok()?)
    })
}

fn condition(meta: &Meta) -> Option<Gate> {
    let inner = |list: &syn::MetaList| list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok();
    match meta {
        Meta::Path(path) if path.is_ident("test") => Some(Gate::Test),
        Meta::Path(path) if path.is_ident("unix") => Some(Gate::Unix),
        Meta::Path(path) if path.is_ident("windows") => Some(Gate::Others),
        Meta::NameValue(pair) if pair.path.is_ident("target_os") => Some(Gate::Unix),
        Meta::List(list) if list.path.is_ident("not") => match condition(inner(list)?.first()?)? {
            Gate::Unix => Some(Gate::Others),
            _ => None,
        },
        Meta::List(list) if list.path.is_ident("all") => inner(list)?.iter().filter_map(condition).min(),
        _ => None,
    }
}

#[derive(Default)]
struct Portable {
    gates: Vec<Gate>,
    /// Paths that other systems do not have, outside a gate.
    breaches: Vec<String>,
    /// Functions and types that only Unix has, and those that only the others have.
    gated: [BTreeSet<String>; 2],
}

impl Portable {
    fn within(&mut self, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let gate = gate(attributes);
        self.gates.extend(gate);
        visit(self);
        if gate.is_some() {
            self.gates.pop();
        }
    }

    fn check(&mut self, path: &str) {
        let named = |unix: &str| {
            path == unix || path.starts_with(&format!("{unix}::")) || (unix.ends_with("Unix") && path.starts_with(unix))
        };
        if UNIX.iter().any(|unix| named(unix)) && !self.gates.iter().any(|gate| *gate != Gate::Others) {
            self.breaches.push(path.to_owned());
        }
    }

    fn define(&mut self, name: &syn::Ident, attributes: &[Attribute]) {
        if self.gates.contains(&Gate::Test) {
            return;
        }
        match gate(attributes) {
            Some(Gate::Unix) => drop(self.gated[0].insert(name.to_string())),
            Some(Gate::Others) => drop(self.gated[1].insert(name.to_string())),
            _ => {}
        }
    }
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'a> Visit<'a> for Portable {
    fn visit_item(&mut self, item: &'a Item) {
        match item {
            Item::Fn(found) => self.define(&found.sig.ident, &found.attrs),
            Item::Struct(found) => self.define(&found.ident, &found.attrs),
            _ => {}
        }
        self.within(attributes_of(item), |portable| {
            if let Item::Use(found) = item {
                fn paths(tree: &syn::UseTree, before: String, found: &mut Vec<String>) {
                    match tree {
                        syn::UseTree::Path(path) => paths(&path.tree, format!("{before}{}::", path.ident), found),
                        syn::UseTree::Name(name) => found.push(format!("{before}{}", name.ident)),
                        syn::UseTree::Rename(name) => found.push(format!("{before}{}", name.ident)),
                        syn::UseTree::Glob(_) => found.push(before.trim_end_matches("::").to_owned()),
                        syn::UseTree::Group(group) => {
                            group.items.iter().for_each(|tree| paths(tree, before.clone(), found));
                        }
                    }
                }
                let mut named = Vec::new();
                paths(&found.tree, String::new(), &mut named);
                named.iter().for_each(|path| portable.check(path));
            }
            visit::visit_item(portable, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        self.within(&item.attrs, |portable| visit::visit_impl_item_fn(portable, item));
    }

    fn visit_stmt(&mut self, statement: &'a Stmt) {
        let attributes = match statement {
            Stmt::Local(local) => &local.attrs[..],
            Stmt::Expr(Expr::Block(block), _) => &block.attrs,
            Stmt::Expr(Expr::Call(call), _) => &call.attrs,
            Stmt::Expr(Expr::MethodCall(call), _) => &call.attrs,
            Stmt::Expr(Expr::Try(tried), _) => &tried.attrs,
            _ => &[],
        };
        self.within(attributes, |portable| visit::visit_stmt(portable, statement));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.check(&segments.join("::"));
        visit::visit_path(self, path);
    }
}

fn looked_at(text: &str) -> Portable {
    let mut portable = Portable::default();
    portable.visit_file(&syn::parse_file(text).unwrap());
    portable
}

/// The station's packages name what Unix alone has behind a gate only, and whatever is behind one has another way beside it.
#[test]
fn stations_name_unix_behind_gates_only() {
    let mut faults = Vec::new();
    for folder in PACKAGES {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        // A module of tests that its parent gates.
        let is_tests = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
        let tests = |path: &PathBuf| path.strip_prefix(root()).unwrap_or(path).iter().any(is_tests);
        for path in files.into_iter().filter(|path| !tests(path)) {
            let found = looked_at(&fs::read_to_string(&path).unwrap());
            faults.extend(found.breaches.iter().map(|what| format!("{}: {what} without a gate", path.display())));
            let [unix, others] = &found.gated;
            let alone = unix.symmetric_difference(others);
            faults.extend(alone.map(|what| format!("{}: {what} has no other way", path.display())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The test above finds what it is to find.
#[test]
fn gates_are_told_from_what_stands_without() {
    let found = looked_at(
        r#"
        use std::os::unix::fs::MetadataExt;
        #[cfg(unix)] fn a() { rustix::fs::sync(); }
        #[cfg(not(unix))] fn a() {}
        #[cfg(target_os = "linux")] fn b() { libc::sync(); }
        fn c() { #[cfg(unix)] { rustix::fs::sync(); } #[cfg(unix)] std::os::unix::x(); rustix::bad(); }
        #[cfg(all(test, unix))] mod tests { use std::os::unix::fs::symlink; }
        #[cfg(windows)] fn d() { tokio::signal::unix::signal(); }
        "#,
    );
    assert_eq!(found.breaches, ["std::os::unix::fs::MetadataExt", "rustix::bad", "tokio::signal::unix::signal"]);
    assert_eq!(found.gated, [["a", "b"].map(str::to_owned).into(), ["a", "d"].map(str::to_owned).into()]);
}

/// Whoever installs the station's program installs no HSM, ledger or server with it.
#[test]
fn station_program_links_nothing_of_the_daemon() {
    for (target, needed) in [("x86_64-unknown-linux-gnu", "rustix"), ("x86_64-pc-windows-msvc", "windows-sys")] {
        let listed = Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["tree", "--offline", "--locked", "--package", "birthmark-station", "--edges", "normal"])
            .args(["--prefix", "none", "--target", target])
            .output()
            .unwrap();
        let tree = String::from_utf8_lossy(&listed.stdout);
        // Cargo may not have fetched what only other systems need.
        if !listed.status.success() && target.contains("windows") {
            continue;
        }
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        assert!(tree.contains(needed), "{tree}");
        let linked: Vec<_> = tree.lines().filter(|line| DAEMONS.iter().any(|name| line.starts_with(name))).collect();
        assert!(linked.is_empty(), "{linked:?}");
        if target.contains("windows") {
            assert!(!tree.contains("rustix"), "{tree}");
        }
    }
    let features = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--offline", "--locked", "--package", "birthmark-station", "--edges", "normal,features"])
        .args(["--prefix", "none", "--format", "{p} {f}"])
        .output()
        .unwrap();
    let features = String::from_utf8_lossy(&features.stdout);
    let tonic = features.lines().find(|line| line.starts_with("tonic v")).unwrap();
    assert!(!tonic.contains("server") && !tonic.contains("router"), "{tonic}");
}
