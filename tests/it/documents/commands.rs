//! The documents and the program know the same commands and settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use regex::Regex;

use super::{pages, root};

/// Every command with its subcommands, and the options of those that have none.
type Commands = BTreeMap<String, (Vec<String>, BTreeSet<String>)>;

/// As `--help` tells them; no command is `birthmark` itself.
fn commands() -> Commands {
    let subcommand = Regex::new(r"(?m)^  ([a-z][a-z-]*)(?:  |$)").unwrap();
    let option = Regex::new(r"(?m)^ +(?:-[a-zA-Z], )?(--[a-z-]+)").unwrap();
    let mut commands = Commands::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let run = Command::new(env!("CARGO_BIN_EXE_birthmark")).args(&path).arg("--help").output().unwrap();
        let help = String::from_utf8(run.stdout).unwrap();
        let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or(rest));
        let named = |captures: regex::Captures<'_>| captures.get(1).unwrap().as_str().to_owned();
        let mut subcommands: Vec<_> = subcommand.captures_iter(list).map(named).collect();
        subcommands.retain(|name| name != "help");
        // For who packages it, and in no list.
        subcommands.extend(path.is_empty().then(|| "manual".to_owned()));
        open.extend(subcommands.iter().map(|name| [path.clone(), vec![name.clone()]].concat()));
        commands.insert(path.join(" "), (subcommands, option.captures_iter(&help).map(named).collect()));
    }
    commands
}

/// What is wrong with `birthmark WORDS` as a document has it.
fn fault(commands: &Commands, words: &[&str]) -> Option<String> {
    let mut path = String::new();
    let mut rest = words;
    while let Some((subcommands, _)) = commands.get(&path).filter(|(subcommands, _)| !subcommands.is_empty()) {
        let (word, after) = rest.split_first()?;
        // Several at once, such as `order pause|resume`.
        let unknown = word.split('|').find(|name| !subcommands.iter().any(|known| known == name));
        match unknown {
            Some(name) if name.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !name.starts_with('-') => {
                return Some(format!("there is no \"birthmark {path} {name}\""));
            }
            _ if unknown.is_some() || word.contains('|') => return None,
            _ => {}
        }
        path = format!("{path} {word}").trim_start().to_owned();
        rest = after;
    }
    let options = &commands.get(&path)?.1;
    let option = |word: &&&str| word.starts_with("--") && word.len() > 2;
    let unknown = rest.iter().filter(option).map(|word| word.split('=').next().unwrap_or(word)).find(|word| {
        let name: String = word.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        !options.contains(name.as_str())
    });
    unknown.map(|option| format!("\"birthmark {path}\" has no {option}"))
}

/// Documents name commands and options that there are, and leave out no command.
#[test]
fn document_names_each_command_and_none_that_is_not() {
    let commands = commands();
    assert!(commands.len() > 60, "{}", commands.len());
    let inline = Regex::new(r"`(?:sudo (?:-u \w+ )?)?birthmark ([^`]+)`").unwrap();
    let typed = Regex::new(r"(?m)^ *(?:\$ )?(?:sudo (?:-u \w+ )?)?birthmark ((?:.*\\\n)*.*)$").unwrap();
    let pipe = Regex::new(r"[|;&>]|\s#").unwrap();
    let mut faults = Vec::new();
    let mut all = String::new();
    for (page, text) in pages() {
        let joined = text.replace("\\\n", " ");
        let told = inline.captures_iter(&text).chain(typed.captures_iter(&joined));
        for command in told.map(|captures| captures.get(1).unwrap().as_str().to_owned()) {
            let bare = if command.contains('|') && !command.contains(" |") {
                &command
            } else {
                pipe.splitn(&command, 2).next().unwrap()
            };
            let words: Vec<_> = bare.split_whitespace().collect();
            faults.extend(fault(&commands, &words).map(|fault| format!("{page}: {fault}")));
        }
        all += &joined;
    }
    let left_out = commands.iter().filter(|(path, (subcommands, _))| {
        let (first, last) = path.rsplit_once(' ').unwrap_or(("", path));
        let several = Regex::new(&format!(r"birthmark(?:-station)? {first} ?[a-z|-]*\b{last}\b")).unwrap();
        let parent = format!("{first} {last}");
        subcommands.is_empty()
            && !path.is_empty()
            && !several.is_match(&all)
            && !all.contains(&format!("`{}", parent.trim()))
    });
    faults.extend(left_out.map(|(path, _)| format!("no document has \"birthmark {path}\"")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The settings that a section may have, as the reader of configurations tells them.
fn settings(example: &str, section: &str) -> Vec<String> {
    let header = format!("[{section}]\n");
    let unknown = "no_such_setting = 1\n";
    let text = match (section, example.contains(&format!("\n{header}"))) {
        ("", _) => format!("{unknown}{example}"),
        (_, true) => example.replacen(&format!("\n{header}"), &format!("\n{header}{unknown}"), 1),
        (_, false) => format!("{example}\n{header}{unknown}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("birthmark.toml");
    fs::write(&file, text).unwrap();
    let told = birthmark::config::Config::load(&file).map(|_| ()).unwrap_err().to_string();
    let (_, expected) = told.split_once("here, but ").unwrap_or_else(|| panic!("[{section}]: {told}"));
    let quoted = Regex::new("`([a-z_]+)`").unwrap();
    quoted.captures_iter(expected).map(|captures| captures.get(1).unwrap().as_str().to_owned()).collect()
}

/// The example has every setting that there is, as it is used or in a comment.
#[test]
fn example_configuration_has_every_setting() {
    let example = fs::read_to_string(root().join("hsm-config/birthmark.toml")).unwrap();
    let named = |name: &str| Regex::new(&format!(r"(?m)^(?:# )?{name}\s*=")).unwrap().is_match(&example);
    let mut left_out = Vec::new();
    for section in settings(&example, "") {
        let shown = Regex::new(&format!(r"(?m)^(?:# )?\[{section}(?:\.([a-z]+))?\]")).unwrap().captures(&example);
        let Some(shown) = shown else {
            left_out.push(format!("[{section}]"));
            continue;
        };
        // The names of the first are anybody's, those of the second depend on its format.
        if ["environment", "destinations"].contains(&section.as_str()) {
            continue;
        }
        let whole = shown.get(1).map_or(section.clone(), |name| format!("{section}.{}", name.as_str()));
        let settings = settings(&example, &whole);
        assert!(!settings.is_empty(), "[{whole}]");
        left_out.extend(settings.iter().filter(|name| !named(name)).map(|name| format!("[{whole}] {name}")));
    }
    assert!(left_out.is_empty(), "hsm-config/birthmark.toml lacks {left_out:?}");
}

/// Metrics that documents name are those that the daemon has.
#[test]
fn metric_that_a_document_names_exists() {
    let mut code = fs::read_to_string(root().join("src/metrics.rs")).unwrap();
    for entry in fs::read_dir(root().join("src/metrics")).into_iter().flatten() {
        code += &fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    let name = Regex::new(r"\bbirthmark_([a-z_]+)").unwrap();
    let mut faults = Vec::new();
    for (page, text) in pages() {
        for captures in name.captures_iter(&text) {
            let name = captures.get(1).unwrap().as_str();
            let parts = ["_bucket", "_sum", "_count"];
            let family = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            // Some at once, as in `birthmark_crl_…`; and the Python package.
            let known = match name.ends_with('_') {
                true => code.contains(&format!("\"{name}")),
                false => [name, family].iter().any(|name| code.contains(&format!("\"{name}\""))),
            };
            if !known && name != "station" {
                faults.push(format!("{page}: birthmark_{name}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
