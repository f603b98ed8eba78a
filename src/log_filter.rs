//! What a log tells: `BIRTHMARK_LOG`, and the setting of the configuration, as people write them.

use tracing::level_filters::LevelFilter;

use crate::quote::quoted;

/// A level for our own programs, and others for what is named: `info,birthmark::grpc=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    /// Of what is not named.
    pub level: LevelFilter,
    /// `module=level`, as they were written.
    pub named: Vec<String>,
}

/// The text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name}: {} is not a level of the log; it is one of off, error, warn, info, debug and trace, alone or after the name of a \
     module, as in info,birthmark::grpc=debug",
    quoted(.level)
)]
pub struct LogFilterError {
    name: String,
    level: String,
}

impl LogFilter {
    /// Reads a filter; nothing is `info`. `name` is what it is called where people write it.
    ///
    /// # Errors
    /// It has something that is no level.
    pub fn read(name: &str, wanted: &str) -> Result<LogFilter, LogFilterError> {
        let mut filter = LogFilter { level: LevelFilter::INFO, named: Vec::new() };
        for directive in wanted.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            let text = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            // A number is a level as well, elsewhere.
            let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
            let parsed = text.parse::<LevelFilter>().ok().filter(|_| is_word);
            let parsed = parsed.ok_or_else(|| LogFilterError { name: name.to_owned(), level: text.to_owned() })?;
            match directive.contains('=') {
                true => filter.named.push(directive.to_owned()),
                false => filter.level = parsed,
            }
        }
        Ok(filter)
    }

    /// The filter as directives: our programs at its level, libraries at `most`, whatever that level is, and at last what is named:
    /// a later directive wins over what quiets the libraries.
    pub fn directives(&self, ours: &[&str], libraries: &str, most: LevelFilter) -> String {
        let others = self.level.min(most);
        let ours = ours.iter().map(|name| format!("{name}={}", self.level));
        let quiet = (!libraries.is_empty()).then(|| libraries.to_owned());
        let all = [others.to_string()].into_iter().chain(ours).chain(quiet).chain(self.named.iter().cloned());
        all.collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(wanted: &str) -> String {
        LogFilter::read("BIRTHMARK_LOG", wanted).unwrap().directives(
            &["birthmark", "security"],
            "loud=off",
            LevelFilter::WARN,
        )
    }

    /// A level in `BIRTHMARK_LOG` is that of birthmark; libraries stay quiet, also those that nobody has thought of.
    #[test]
    fn log_level_keeps_libraries_quiet() {
        for (wanted, level, library) in [
            ("", "info", "warn"),
            ("info", "info", "warn"),
            ("DEBUG", "debug", "warn"),
            ("error", "error", "error"),
            ("off", "off", "off"),
        ] {
            assert_eq!(directives(wanted), format!("{library},birthmark={level},security={level},loud=off"));
        }
        assert_eq!(
            directives("debug, h2=trace,hyper=error"),
            "warn,birthmark=debug,security=debug,loud=off,h2=trace,hyper=error"
        );
        // What is named comes beside the usual level.
        assert!(directives("birthmark::grpc=debug").starts_with("warn,birthmark=info,"));
    }

    /// A typo in the log level is an error.
    #[test]
    fn log_level_with_a_typo_is_an_error() {
        for wanted in ["debgu", "info,h2=loud", "birthmark", "h2=", "3", "info;debug"] {
            let error = LogFilter::read("log.level", wanted).unwrap_err().to_string();
            assert!(
                error.starts_with("log.level: ") && error.contains("off, error, warn, info, debug and trace"),
                "{error}"
            );
        }
    }
}
