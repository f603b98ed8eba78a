//! A network of its own for each test: the emulator's broker listens on all addresses, and always on the same port.
//!
//! A test runs itself again in namespaces (user, network, mounts) that `unshare` makes. Where the system does not allow that,
//! the test is skipped, and says so past the test harness.

use std::{
    env,
    io::Write as _,
    process::{Command, Stdio},
};

/// Holds the name of the test that runs in its namespaces.
const MARK: &str = "BIRTHMARK_AWS_NAMESPACE";

/// Set where a skipped test would be a failure.
const REQUIRED: &str = "BIRTHMARK_AWS_NAMESPACE_REQUIRED";

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--mount"]);
    command
}

/// Runs the body of the test of this name, such as `register::device_connects`, in namespaces of its own.
#[track_caller]
pub(crate) fn run(name: &str, body: impl FnOnce()) {
    if env::var(MARK).is_ok_and(|inside| inside == name) {
        return body();
    }
    let able = unshare().args(["ip", "link", "set", "lo", "up"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !able.is_ok_and(|status| status.success()) {
        assert!(env::var_os(REQUIRED).is_none(), "this system allows no network namespaces");
        let _ = writeln!(
            std::io::stderr(),
            "\n*** SKIPPED: {name}: this system allows no network namespaces (unshare --map-root-user --net --mount); \
             nothing about AWS IoT was tested ***\n"
        );
        return;
    }
    let program = env::current_exe().unwrap();
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let mut inside = unshare();
    inside.args(["sh", "-c", script]).arg(program).args(["--exact", name, "--nocapture", "--test-threads", "1"]);
    let output = inside.env(MARK, name).stdin(Stdio::null()).output().unwrap();
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed in its namespaces, see above");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "there is no test called {name}");
}
