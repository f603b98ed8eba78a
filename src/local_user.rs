//! Who is at this machine: the name of the user of a process, also behind sudo, for the journal's actors.

use std::fs;

/// What `/proc/PID/loginuid` has of a process that no login began.
const NO_LOGIN: u32 = u32::MAX;

/// Files of `/proc` and `/etc` that are read here are short.
const LONGEST: usize = 4 << 20;

/// The longest name, in characters, that an identity can have.
const LONGEST_NAME: usize = 64;

/// How the user of a process is named: `local-` and the login name, or `local-uid-` and the number of a user that
/// `/etc/passwd` does not have.
///
/// The kernel keeps with each process who logged in, which sudo and su do not change (`/proc/PID/loginuid`). Where it does
/// not (no audit support, containers), a process of root is asked for what sudo left in its environment, if that can be
/// read, and any other is its user.
pub fn name(user: u32, process: Option<u32>) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let login = process.and_then(|process| login(user, process)).unwrap_or(user);
    named(&passwd, login)
}

/// The name of whoever runs this process.
pub fn own_name() -> String {
    name(rustix::process::getuid().as_raw(), Some(std::process::id()))
}

fn login(user: u32, process: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/loginuid")).ok();
    let kept = text.and_then(|text| text.trim().parse().ok()).filter(|login| *login != NO_LOGIN);
    kept.or_else(|| {
        let environment = (user == 0).then(|| fs::read(format!("/proc/{process}/environ")).ok()).flatten()?;
        sudo_user(&environment)
    })
}

/// Who called sudo, by the environment that it gives.
fn sudo_user(environment: &[u8]) -> Option<u32> {
    let variables = environment.get(..environment.len().min(LONGEST))?.split(|octet| *octet == 0);
    let mut users = variables.filter_map(|variable| variable.strip_prefix(b"SUDO_UID="));
    std::str::from_utf8(users.next()?).ok()?.parse().ok()
}

fn named(passwd: &str, user: u32) -> String {
    let entries = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(user)).then_some(name)
    });
    let fits = |name: &&str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !name.is_empty() && name.len() <= LONGEST_NAME - "local-".len() && name.bytes().all(allowed)
    };
    match entries.into_iter().find(fits) {
        Some(name) => format!("local-{name}"),
        None => format!("local-uid-{user}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_user_has_its_login_name_or_its_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/sh\nodd name:x:7:7::/:/\n";
        assert_eq!(named(passwd, 0), "local-root");
        assert_eq!(named(passwd, 1000), "local-anna");
        // A name that no identity can have, and no name.
        assert_eq!((named(passwd, 7), named(passwd, 8)), ("local-uid-7".into(), "local-uid-8".into()));
        let identity = crate::identity::Identity::new(crate::identity::Role::Operator, &named(passwd, u32::MAX));
        assert_eq!(identity.unwrap().actor(), "operator:local-uid-4294967295");
    }

    #[test]
    fn local_user_behind_sudo_is_who_called_it() {
        assert_eq!(sudo_user(b"PATH=/bin\0SUDO_UID=1000\0SUDO_GID=1000\0"), Some(1000));
        assert_eq!(sudo_user(b"PATH=/bin\0XSUDO_UID=1\0SUDO_UID=x\0"), None);
        assert_eq!(sudo_user(b""), None);
    }
}
