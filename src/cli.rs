//! The command line: one file a command.

pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod ca;
pub(crate) mod ceremony;
pub(crate) mod companion;
pub(crate) mod crl;
pub(crate) mod enroll;
pub(crate) mod environment;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod hsm;
pub(crate) mod issuer;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod order;
pub(crate) mod profile;
pub(crate) mod record;
pub(crate) mod reload;
pub(crate) mod roles;
pub(crate) mod serve;
pub(crate) mod station;
pub(crate) mod vend;

mod device_list;
mod moment;
mod revoke;
mod stations;
mod table;
mod which;

pub(crate) use birthmark_station::cli::{arguments, block_on, connection as daemon};

/// What every command ends with.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0    done
  1    failed: nothing, or not all, was done; the message says which
  2    wrong usage
  3    \"station sign\" and \"station confirm\" finished with some devices refused; \"journal verify\" and \"journal dump\"
       found an incomplete last entry
  77   \"serve\" ended because a token refused the PIN
  130  \"station sign\" and \"station confirm --watch\" were stopped by SIGINT
  143  \"station sign\" and \"station confirm --watch\" were stopped by SIGTERM";

/// An error and its causes as one sentence.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    birthmark::console::sentence(error.as_ref())
}

/// The configuration of commands that are given none: `birthmark.toml` in the current folder, otherwise that of the system.
pub(crate) fn usual_configuration() -> std::path::PathBuf {
    let here = std::path::Path::new("birthmark.toml");
    if here.exists() { here.into() } else { "/etc/birthmark/birthmark.toml".into() }
}

/// Words as a command that a shell reads as it is printed.
fn command_line(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
        if !word.is_empty() && word.bytes().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Prints a value for programs.
fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    Ok(birthmark::console::print_json(value)?)
}

/// Prints on standard output.
fn print(text: &str) -> anyhow::Result<()> {
    Ok(birthmark::console::print(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_tells_each_cause_once() {
        let told = anyhow::anyhow!("no such file").context("cannot read x: no such file; create it").context("step 1");
        assert_eq!(sentence(&told), "step 1: cannot read x: no such file; create it");
    }

    #[test]
    fn printed_command_is_quoted_for_a_shell() {
        let words = ["get", "lot:7.0001", "--out", "my folder", "it's", ""].map(str::to_owned);
        assert_eq!(command_line(&words), "get lot:7.0001 --out 'my folder' 'it'\\''s' ''");
    }
}
