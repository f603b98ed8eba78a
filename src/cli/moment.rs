//! Times on the command line.

use anyhow::Context;

/// A moment as RFC 3339 has it, or the beginning of a day in UTC.
pub(super) fn moment(text: &str) -> anyhow::Result<jiff::Timestamp> {
    // A date alone is no moment elsewhere either.
    let day = || text.parse::<jiff::civil::Date>().ok().and_then(|day| format!("{day}T00:00:00Z").parse().ok());
    let parsed = text.parse().ok().or_else(day);
    parsed.context(
        "a time is written as RFC 3339, such as 2026-03-01T06:00:00Z or …T06:00:00+01:00, or as a day, 2026-03-01",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_a_time_or_the_beginning_of_a_day() {
        for (text, means) in [
            ("2026-03-01T06:00:00Z", "2026-03-01T06:00:00Z"),
            ("2026-03-01T06:00:00+01:00", "2026-03-01T05:00:00Z"),
            ("2026-03-01", "2026-03-01T00:00:00Z"),
        ] {
            assert_eq!(moment(text).unwrap().to_string(), means);
        }
        for text in ["", "yesterday", "2026-13-01", "6:00"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
