//! Commands with what they print.

use birthmark_bench::pages::Block;

/// The lines of a command with their numbers in the page, and the lines below it.
pub(crate) type Shown = (Vec<(usize, String)>, Vec<String>);

/// The commands of a block. A command goes on in the next line after a backslash.
pub(crate) fn commands(block: &Block) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut goes_on = false;
    for (line, number) in block.lines.iter().zip(block.line + 1..) {
        let begins = line.strip_prefix("$ ");
        match (begins, shown.last_mut()) {
            (Some(command), _) if !goes_on => shown.push((vec![(number, command.to_owned())], Vec::new())),
            (_, Some((command, _))) if goes_on => command.push((number, line.clone())),
            (_, Some((_, output))) => output.push(line.clone()),
            (_, None) => {}
        }
        goes_on = (goes_on || begins.is_some()) && line.ends_with('\\');
    }
    shown
}

/// Where the output is not what is expected; `…` is anything within a line, and alone any lines.
pub(crate) fn differs(expected: &[String], printed: &str) -> Option<String> {
    let printed: Vec<_> = printed.lines().map(str::trim_end).collect();
    let expected: Vec<_> = expected.iter().map(|line| line.trim_end()).collect();
    (!fits(&expected, &printed))
        .then(|| format!("expected:\n{}\nprinted:\n{}", expected.join("\n"), printed.join("\n")))
}

fn fits(expected: &[&str], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((&"…", rest)) => (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..])),
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, others)| line_fits(line, first) && fits(rest, others))
        }
    }
}

fn line_fits(expected: &str, printed: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// What a page shows is held against what is printed.
#[test]
fn output_of_a_page_is_compared_but_for_wildcards() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let cases = [
        ("a\nb", "a\nb\n", true),
        ("a", "a\nb\n", false),
        ("a\n…", "a\nb\nc\n", true),
        ("…\nc", "a\nb\nc\n", true),
        ("took … s, … in all", "took 3.5 s, 17 in all", true),
        ("took … s", "took 3.5 ms", false),
        ("a … b", "a  b", true),
        ("lot-42", "lot-43", false),
    ];
    for (expected, printed, same) in cases {
        assert_eq!(differs(&lines(expected), printed).is_none(), same, "{expected:?} {printed:?}");
    }
}
