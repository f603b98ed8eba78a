//! README.md and docs/, run: every command that a reader is told to type is typed here, in the order of its page.
//!
//! **For who writes a page.** Each page is one shell script: its fenced blocks one after the other, with `set -euo pipefail`, in
//! an empty folder and in namespaces of the page's own (`documents/world.sh`), so that default ports, `/etc/birthmark`,
//! `/var/lib/birthmark`, `/run/birthmark`, `/mnt` and `/srv` are free and are the page's alone. `birthmark serve` comes back when the
//! daemon is ready, as in a terminal of its own; `systemctl` and `journalctl` stand in for systemd's.
//!
//! | block | what happens |
//! |---|---|
//! | `sh` | is run; every command must succeed |
//! | `console` | the lines after `$ ` are run; what they print must be the lines below, where `…` is anything in a line, and a line `…` any lines |
//! | `toml` | is read as a part of `birthmark.toml`, or of a ceremony file if it has `[[step]]`; `<!-- in: profiles.device -->` before it says where lines without a header belong |
//! | `json` | is parsed, each line or the whole; `…` is anything |
//! | `proto` | each line must be one of `proto/birthmark/v1/` |
//! | `text`, or no word | nothing |
//!
//! Comments, which no reader sees, say the rest; the first two stand alone, the others before a block:
//!
//! | comment | |
//! |---|---|
//! | `<!-- test: checkout -->` | the page starts in a checkout of the repository; `installed`: a daemon runs as the package has it (the default); `elsewhere FILE`: FILE runs the page |
//! | `<!-- run` and lines of shell | run in their turn, to set things up or to look at what came of it |
//! | `<!-- not run: REASON -->` | the block is not run, and counted |
//! | `<!-- file: NAME -->` | the block, of whatever language, becomes this file |
//! | `<!-- append to: NAME -->` | the block is put at the end of this file |
//!
//! `BIRTHMARK_PAGE=restore cargo test --test it documents:: -- --nocapture` runs one page and shows what it does.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use birthmark_bench::pages::{Block, blocks};

mod commands;
mod console;
mod links;
mod read;

/// How many pages run at the same time.
const AT_ONCE: usize = 3;

/// How long a page may take, on a machine that is busy with other tests.
const LONGEST: Duration = Duration::from_secs(150);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents, by their paths in the repository.
fn pages() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned()];
    for folder in ["docs", "hsm-config", "hsm-config/softhsm", "hsm-config/vendors"] {
        let names = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let pages = names.map(|name| format!("{folder}/{}", name.to_str().unwrap()));
        paths.extend(pages.filter(|path| path.ends_with(".md")));
    }
    paths.sort();
    let read = |path: String| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// What the page has before its first command: `checkout`, `installed`, or `elsewhere` and who runs it.
fn start(blocks: &[Block]) -> String {
    let told = blocks.iter().filter(|block| block.language.is_none());
    let told = told.filter_map(|block| block.lines.first()?.trim().strip_prefix("test:").map(str::trim)).next();
    told.unwrap_or("installed").to_owned()
}

/// A page as a script whose lines are the page's.
struct Script {
    lines: Vec<String>,
    runs: bool,
    /// What each command of `console` blocks must print, by its line.
    expected: BTreeMap<usize, Vec<String>>,
    commands: usize,
    not_run: Vec<String>,
}

impl Script {
    fn new(page: &str, text: &str, blocks: &[Block], faults: &mut Vec<String>) -> Script {
        let mut script = Script {
            lines: vec![String::new(); text.lines().count() + 1],
            runs: false,
            expected: BTreeMap::new(),
            commands: 0,
            not_run: Vec::new(),
        };
        for block in blocks {
            if let Some(reason) = block.note("not run") {
                script.not_run.push(format!("{page}:{}: {reason}", block.line));
                continue;
            }
            let file = block.note("file").map(|file| format!("cat >{file}"));
            if let Some(command) = file.or_else(|| block.note("append to").map(|file| format!("cat >>{file}"))) {
                script.set(block.line, format!("{command} <<'END OF BLOCK'"));
                script.copy(block);
                script.set(block.line + block.lines.len() + 1, "END OF BLOCK".to_owned());
                script.runs = true;
                continue;
            }
            match block.language.as_deref() {
                None if block.lines.first().is_some_and(|line| line.trim() == "run") => {
                    script.runs = true;
                    let lines = block.lines.iter().zip(block.line..).skip(1);
                    lines.for_each(|(line, number)| script.set(number, line.clone()));
                }
                Some("sh") => {
                    script.runs = true;
                    script.commands += block.lines.iter().filter(|line| !line.trim().is_empty()).count();
                    script.copy(block);
                }
                Some("console") => script.console(block),
                Some("" | "text") | None => {}
                Some(language) => {
                    let fault = read::fault(language, block);
                    faults.extend(fault.map(|fault| format!("{page}:{}: {language}: {fault}", block.line)));
                }
            }
        }
        let prelude = "exec 9>&2; BASH_XTRACEFD=9; PS4='line $LINENO: '; set -euxo pipefail";
        script.lines[0].insert_str(0, prelude);
        script
    }

    /// Lines count from 1.
    fn set(&mut self, line: usize, text: String) {
        self.lines[line - 1] = text;
    }

    fn copy(&mut self, block: &Block) {
        let lines = block.lines.iter().zip(block.line + 1..);
        lines.for_each(|(line, number)| self.set(number, line.clone()));
    }

    /// A command whose output stands below it has what it prints kept, for [`console::differs`].
    fn console(&mut self, block: &Block) {
        self.runs = true;
        for (command, outputs) in console::commands(block) {
            self.commands += 1;
            let (first, last) = (command[0].0, command[command.len() - 1].0);
            for (number, text) in command {
                self.set(number, text);
            }
            if !outputs.is_empty() {
                self.lines[first - 1].insert_str(0, "{ ");
                self.set(last + 1, format!("}} >\"$CONSOLE/{first}\" 2>&1 || true"));
                self.expected.insert(first, outputs);
            }
        }
    }
}

/// Runs a page; gives what went wrong.
fn run(page: &str, start: &str, script: &Script) -> Result<Duration, String> {
    let began = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("page.sh"), script.lines.join("\n")).unwrap();
    fs::create_dir(at("console")).unwrap();
    let log = fs::File::create(at("page.log")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "bash"])
        .arg(root().join("tests/it/documents/world.sh"))
        .args([folder.path(), Path::new(start), &at("page.sh")])
        .env("REPOSITORY", root())
        .env("PROGRAM", Path::new(env!("CARGO_BIN_EXE_birthmark")).parent().unwrap())
        .env("CONSOLE", at("console"))
        .env("PYTHONPATH", root().join("clients/python/src"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut process = command.spawn().map_err(|error| format!("{page}: unshare: {error}"))?;
    let status = loop {
        match process.try_wait().unwrap() {
            Some(status) => break status,
            None if began.elapsed() < LONGEST => std::thread::park_timeout(Duration::from_millis(20)),
            None => {
                process.kill().unwrap();
                break process.wait().unwrap();
            }
        }
    };
    let log = fs::read_to_string(at("page.log")).unwrap();
    if std::env::var_os("BIRTHMARK_PAGE").is_some() {
        println!("{log}{}", fs::read_to_string(at("daemon.err")).unwrap_or_default());
    }
    if !status.success() {
        let last: Vec<_> = log.lines().rev().take(25).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        return Err(format!("{page}: {status} after {:?}:\n    {}", began.elapsed(), last.join("\n    ")));
    }
    let mut faults = String::new();
    for (line, expected) in &script.expected {
        let printed = fs::read_to_string(at("console").join(line.to_string())).unwrap_or_default();
        if let Some(difference) = console::differs(expected, &printed) {
            writeln!(faults, "{page}:{line}: {difference}").unwrap();
        }
    }
    if faults.is_empty() { Ok(began.elapsed()) } else { Err(faults) }
}

/// Whether this system allows the namespaces that pages run in.
fn has_namespaces() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--map-root-user",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "ip",
        "link",
        "set",
        "lo",
        "up",
    ]);
    let able = unshare.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    assert!(able || std::env::var_os("BIRTHMARK_NAMESPACES_REQUIRED").is_none(), "this system allows no namespaces");
    if !able {
        println!("*** SKIPPED: no command of the documents was run: this system allows no namespaces (unshare) ***");
    }
    able
}

/// Whoever types what a page says, from its first line to its last, gets what it says.
#[test]
fn command_of_every_page_works_as_it_stands() {
    let only = std::env::var("BIRTHMARK_PAGE").ok();
    let (mut faults, mut not_run, mut commands) = (Vec::new(), Vec::new(), 0);
    let mut waiting = Vec::new();
    for (page, text) in pages() {
        if only.as_ref().is_some_and(|only| !page.contains(only.as_str())) {
            continue;
        }
        let blocks = blocks(&text);
        let start = start(&blocks);
        if let Some(runner) = start.strip_prefix("elsewhere ") {
            let test = fs::read_to_string(root().join(runner)).unwrap_or_default();
            let name = page.rsplit('/').next().unwrap();
            let known = test.contains(name);
            faults.extend((!known).then(|| format!("{page}: {runner} does not run it")));
            continue;
        }
        let script = Script::new(&page, &text, &blocks, &mut faults);
        commands += script.commands;
        not_run.extend(script.not_run.iter().cloned());
        if script.runs {
            waiting.push((page, start, script));
        }
    }
    println!("{commands} lines of commands; {} blocks are not run:\n{}", not_run.len(), not_run.join("\n"));
    if has_namespaces() {
        let (waiting, found) = (Mutex::new(waiting), Mutex::new(&mut faults));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let Some((page, start, script)) = waiting.lock().unwrap().pop() else { break };
                        match run(&page, &start, &script) {
                            Ok(passed) => println!("{page}: {passed:.1?}"),
                            Err(fault) => found.lock().unwrap().push(fault),
                        }
                    }
                });
            }
        });
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
