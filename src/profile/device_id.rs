//! Which device ids a profile takes, beyond what the protocol allows for all.

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::error::SubjectError;
use crate::id::{DeviceId, is_reserved_name};

/// The rule of ids that name files.
const FILE_NAME: &str = "file-name";

/// Names for the rules of clouds and of file systems.
const KNOWN: &[(&str, &str)] = &[
    // What AWS IoT Core allows in a thing name.
    ("aws-thing-name", "[a-zA-Z0-9:_-]{1,128}"),
    // What Azure DPS allows in a registration id that is also a CN, in lower case as DPS shows it.
    ("azure-registration-id", "[a-z0-9._:-]{0,63}[a-z0-9-]"),
    // What is a file's name everywhere, and of one device on disks that do not tell upper from lower case: Windows refuses
    // colons, a dot at the end, and the names of its own devices (CON, COM1, …), which it takes with any ending.
    (FILE_NAME, "[a-z0-9._-]{0,127}[a-z0-9_-]"),
];

#[derive(Debug)]
pub(super) struct DeviceIds {
    /// As the configuration writes it.
    rule: String,
    /// The whole id must fit.
    pattern: Regex,
    /// A short one.
    sample: DeviceId,
}

impl DeviceIds {
    /// Reads the name of a known rule, or a regular expression.
    pub(super) fn parse(rule: &str) -> Result<DeviceIds, String> {
        let expression = KNOWN.iter().find(|(name, _)| *name == rule).map_or(rule, |(_, expression)| expression);
        let pattern = Regex::new(&format!(r"\A(?:{expression})\z")).map_err(|error| {
            let names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
            format!("it is neither {} nor a regular expression: {error}", names.join(" nor "))
        })?;
        let shortest = regex_syntax::parse(expression).map(|parsed| shortest(&parsed)).unwrap_or_default();
        let mut ids = [shortest.as_str(), "0", "a", "A"].into_iter().filter_map(|id| id.parse::<DeviceId>().ok());
        let sample = ids.find(|id| pattern.is_match(id.as_str()));
        let sample = sample.ok_or_else(|| {
            format!(
                "\"{rule}\" takes no device id that can be found; an id has 1 to {} characters of A-Z a-z 0-9 . _ : - \
                 and begins with a letter or digit",
                DeviceId::LONGEST
            )
        })?;
        Ok(DeviceIds { rule: rule.to_owned(), pattern, sample })
    }

    pub(super) fn check(&self, device: &DeviceId) -> Result<(), SubjectError> {
        let reserved = self.rule == FILE_NAME && is_reserved_name(device.as_str());
        if self.pattern.is_match(device.as_str()) && !reserved {
            return Ok(());
        }
        let expression = KNOWN.iter().find(|(name, _)| *name == self.rule).map(|(_, expression)| *expression);
        Err(SubjectError::DeviceId { device: device.clone(), rule: self.rule.clone(), expression })
    }

    /// Whether every device id that fits can be the name of an AWS IoT thing. Both have 128 characters at most.
    pub(super) fn are_thing_names(&self) -> bool {
        let parsed = regex_syntax::parse(self.pattern.as_str());
        parsed.is_ok_and(|expression| has_only(&expression, &|one| one.is_ascii_alphanumeric() || ":_-".contains(one)))
    }

    /// A device id that fits, as short as they come.
    pub(super) fn sample(&self) -> &DeviceId {
        &self.sample
    }
}

/// A short text that fits an expression, of letters and digits where it leaves a choice.
fn shortest(expression: &Hir) -> String {
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) => String::new(),
        HirKind::Literal(literal) => String::from_utf8_lossy(&literal.0).into_owned(),
        HirKind::Class(class) => character(class).into(),
        HirKind::Repetition(repetition) => shortest(&repetition.sub).repeat(repetition.min as usize),
        HirKind::Capture(capture) => shortest(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(shortest).collect(),
        HirKind::Alternation(parts) => parts.iter().map(shortest).min_by_key(String::len).unwrap_or_default(),
    }
}

/// Whether an expression fits no other characters than these, of those that a device id may have.
fn has_only(expression: &Hir, allowed: &dyn Fn(char) -> bool) -> bool {
    let in_class =
        |from: char, to: char| (from..=to).all(|one| allowed(one) || DeviceId::check(&format!("0{one}")).is_err());
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => String::from_utf8_lossy(&literal.0).chars().all(allowed),
        HirKind::Class(Class::Unicode(class)) => {
            // Beyond ASCII there is nothing that an id may have.
            class
                .ranges()
                .iter()
                .filter(|range| range.start().is_ascii())
                .all(|range| in_class(range.start(), range.end().min('\u{7f}')))
        }
        HirKind::Class(Class::Bytes(class)) => {
            class.ranges().iter().all(|range| in_class(range.start().into(), range.end().into()))
        }
        HirKind::Repetition(repetition) => has_only(&repetition.sub, allowed),
        HirKind::Capture(capture) => has_only(&capture.sub, allowed),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().all(|part| has_only(part, allowed)),
    }
}

fn character(class: &Class) -> char {
    let holds = |wanted: char| match class {
        Class::Unicode(class) => class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&wanted)),
        Class::Bytes(class) => {
            class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&(wanted as u8)))
        }
    };
    ('0'..='9')
        .chain('a'..='z')
        .chain('A'..='Z')
        .chain(['-', '_', ':', '.'])
        .find(|wanted| holds(*wanted))
        .unwrap_or('?')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JITP makes things of device ids, so no id may have a dot.
    #[test]
    fn device_id_rule_for_things_has_no_dot() {
        for (rule, fits) in [
            ("aws-thing-name", true),
            ("SN[0-9]{8}", true),
            ("(ab|c-d)?x:[^.]*", true),
            ("azure-registration-id", false),
            ("SN.[0-9]", false),
            (r"SN\.[0-9]", false),
            ("(a|b.c)", false),
        ] {
            assert_eq!(DeviceIds::parse(rule).unwrap().are_thing_names(), fits, "{rule}");
        }
    }

    /// A pattern takes whole ids and has a sample.
    #[test]
    fn device_id_pattern_takes_whole_ids_and_has_a_sample() {
        for (rule, sample, good, bad) in [
            ("aws-thing-name", "0", "A:b_c-1", "a.b"),
            ("azure-registration-id", "0", "dev-0001", "Dev"),
            ("file-name", "0", "com10.a_b-1", "con.a"),
            ("file-name", "0", "a", "A"),
            ("file-name", "0", "a.b", "a:b"),
            ("file-name", "0", "nul1", "a."),
            ("SN[0-9]{6}", "SN000000", "SN123456", "SN1234567"),
            ("a|bc", "a", "bc", "abc"),
            (".*", "0", "x", "x\n"),
            ("(?i)dev-[^x]{2}", "dev-00", "dev-ab", "dev-a"),
        ] {
            let ids = DeviceIds::parse(rule).unwrap();
            assert_eq!(ids.sample().as_str(), sample, "{rule}");
            assert!(ids.check(&good.parse().unwrap()).is_ok(), "{rule}");
            // What is no id at all never gets here.
            let bad = bad.parse::<DeviceId>();
            assert!(bad.is_err() || ids.check(&bad.unwrap()).unwrap_err().to_string().contains(rule), "{rule}");
        }
        assert!(DeviceIds::parse("[").unwrap_err().contains("aws-thing-name"));
        assert!(DeviceIds::parse("/+").unwrap_err().contains("takes no device id"));
    }
}
