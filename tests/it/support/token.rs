//! A token in a temporary folder, of the HSM under test, and the programs run beside it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

pub(crate) use birthmark_bench::assertions::{refused, succeeded, text};
use birthmark_bench::{program, site};

/// The label of the token.
pub(crate) const LABEL: &str = "birthmark";

const PIN: &str = "123456";

/// The PKCS#11 module that the tests run on: SoftHSM unless BIRTHMARK_TEST_HSM says otherwise. docs/hsm.md
/// says how the others are run.
#[derive(Clone, Copy, PartialEq)]
#[expect(clippy::enum_variant_names, reason = "SoftHSM is its name")]
pub(crate) enum Hsm {
    SoftHsm,
    /// The module is named by BIRTHMARK_TEST_MODULE.
    Kryoptic,
    /// The machine's one soft token, which every test initialises again: run with --test-threads=1. It has RSA only.
    OpenCryptoki,
}

impl Hsm {
    pub(crate) fn under_test() -> Hsm {
        match std::env::var("BIRTHMARK_TEST_HSM").as_deref() {
            Ok("kryoptic") => Hsm::Kryoptic,
            Ok("opencryptoki") => Hsm::OpenCryptoki,
            Ok("softhsm") | Err(_) => Hsm::SoftHsm,
            Ok(other) => panic!("BIRTHMARK_TEST_HSM={other} is not known"),
        }
    }

    /// The environment variable that the module reads, and the name of its file in the token's folder.
    pub(crate) fn configuration(self) -> (&'static str, &'static str) {
        match self {
            Hsm::SoftHsm => ("SOFTHSM2_CONF", "softhsm2.conf"),
            Hsm::Kryoptic => ("KRYOPTIC_CONF", "kryoptic.conf"),
            Hsm::OpenCryptoki => ("OCK_UNUSED", "none"),
        }
    }

    /// The key type that CAs have in the tests.
    pub(crate) fn key_type(self) -> &'static str {
        if self == Hsm::OpenCryptoki { "rsa2048" } else { "p256" }
    }
}

/// The line of `[environment]` that the module needs.
pub(crate) fn environment() -> String {
    let (variable, file) = Hsm::under_test().configuration();
    format!("{variable} = \"{{config_dir}}/{file}\"")
}

/// A folder with a new token, its module's configuration and a `pin` file. It is removed when dropped.
pub(crate) struct Token {
    folder: tempfile::TempDir,
}

impl Token {
    pub(crate) fn new() -> Self {
        let token = Token { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(token.path("tokens")).unwrap();
        let tokens = token.path("tokens").display().to_string();
        let configuration = match Hsm::under_test() {
            Hsm::SoftHsm => format!("directories.tokendir = {tokens}\nlog.level = ERROR\n"),
            Hsm::Kryoptic => format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{tokens}/token.sql\"\n"),
            Hsm::OpenCryptoki => String::new(),
        };
        fs::write(token.path(Hsm::under_test().configuration().1), configuration).unwrap();
        token.write_secret("pin", PIN);
        token.init_token(LABEL);
        token
    }

    pub(crate) fn init_token(&self, label: &str) {
        let run = |program: &str, arguments: &[&str]| {
            let (variable, file) = Hsm::under_test().configuration();
            let run = Command::new(program).args(arguments).env(variable, self.path(file)).output();
            succeeded(&run.unwrap_or_else(|error| panic!("{program} must be installed: {error}")));
        };
        let module = module().display().to_string();
        match Hsm::under_test() {
            Hsm::SoftHsm => run(
                "softhsm2-util",
                &["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "87654321"],
            ),
            Hsm::Kryoptic => {
                let common = ["--module", &module, "--so-pin", "87654321"];
                run("pkcs11-tool", &[&common[..], &["--slot-index", "0", "--init-token", "--label", label]].concat());
                let login = ["--token-label", label, "--login", "--login-type", "so", "--init-pin", "--pin", PIN];
                run("pkcs11-tool", &[&common[..], &login].concat());
            }
            Hsm::OpenCryptoki => {
                // A token that is initialised again takes no security officer's PIN: it is thrown away whole.
                let steps = "S=/var/lib/opencryptoki/swtok
                    rm -rf $S/MK_SO $S/MK_USER $S/NVTOK.DAT $S/TOK_OBJ/* /dev/shm/var.lib.opencryptoki.swtok
                    printf '%s\\n' LABEL | pkcsconf -I -c 3 -S 87654321 && pkcsconf -P -c 3 -S 87654321 -n 76543210 &&
                    pkcsconf -u -c 3 -S 76543210 -n 11111111 && pkcsconf -p -c 3 -U 11111111 -n 123456";
                run("sh", &["-c", &steps.replace("LABEL", label)]);
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn write_secret(&self, name: &str, content: &str) {
        self.write(name, content);
        self.set_mode(name, 0o600);
    }

    pub(crate) fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The PKCS#11 URI of the token, or with `;object=…` of a key in it.
    pub(crate) fn uri(&self, object: &str) -> String {
        format!("pkcs11:token={LABEL}{object}?module-path={}&pin-source=file:pin", module().display())
    }

    /// As a site has it.
    pub(crate) fn as_site_token(&self) -> site::Token {
        let (variable, configuration) = Hsm::under_test().configuration();
        site::Token { uri: self.uri(""), variable, configuration }
    }

    /// The head of a ceremony file, before its steps.
    pub(crate) fn ceremony_head(&self) -> String {
        site::Site::ceremony_head(&self.as_site_token(), "ca/record.json")
    }

    /// Runs `birthmark` in the folder, without a terminal and without the environment that the module needs.
    pub(crate) fn birthmark(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        program::command(Path::new(env!("CARGO_BIN_EXE_birthmark")), self.folder.path(), arguments)
    }

    /// Runs `openssl` in the folder; it must succeed.
    pub(crate) fn openssl(&self, arguments: &[&str]) -> String {
        let run = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(run.status.success(), "openssl {arguments:?}: {}{}", text(&run.stdout), text(&run.stderr));
        text(&run.stdout)
    }
}

/// The PKCS#11 module under test.
pub(crate) fn module() -> &'static Path {
    static NAMED: OnceLock<Option<PathBuf>> = OnceLock::new();
    if let Some(module) = NAMED.get_or_init(|| std::env::var_os("BIRTHMARK_TEST_MODULE").map(PathBuf::from)) {
        return module;
    }
    if Hsm::under_test() == Hsm::OpenCryptoki {
        return Path::new("/usr/lib/x86_64-linux-gnu/pkcs11/libopencryptoki.so");
    }
    [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ]
    .iter()
    .map(Path::new)
    .find(|path| path.exists())
    .expect("SoftHSM must be installed")
}
