//! `birthmark station request`, `renew` and `pkcs12`: the station's own key and certificate.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use birthmark_base::{
    identity::{Identity, Role},
    secret_file,
};
use zeroize::Zeroizing;

use super::{
    connection::ConnectionArgs,
    shared::{block_on, print},
};
use crate::{
    identity::{NewKey, pkcs12, write_secret},
    renew,
};

/// The longest file with a key or a password, in bytes.
const LONGEST_SECRET: usize = 1 << 20;

#[doc(hidden)]
#[derive(Debug, clap::Args)]
pub struct RequestArgs {
    /// The name: <line>/<station>, such as line1/tester3
    name: String,

    /// The folder for key.pem, which stays here, and request.csr [default: the name, with "-" for "/"]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[doc(hidden)]
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --new-key the new key and certificate take the place of both files, and then the certificates of the old key \
    are ended: streams that still use it are cut off within a second, and have to be opened again."
)]
pub struct RenewArgs {
    /// Make a new key, and have the certificates of the old one ended
    #[arg(long)]
    new_key: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[doc(hidden)]
#[derive(Debug, clap::Args)]
pub struct Pkcs12Args {
    /// The folder with cert.pem, key.pem and ca.pem
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,

    /// The file to write, such as tester3.p12
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// A file of mode 600 with the password of the new file [default: BIRTHMARK_PKCS12_PASSWORD]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub(super) fn request(args: RequestArgs) -> anyhow::Result<ExitCode> {
    let identity = Identity::new(Role::Station, &args.name)?;
    let folder = args.out.unwrap_or_else(|| args.name.replace('/', "-").into());
    let (key, csr) = NewKey::generate(identity.name())?.write(&folder)?;
    print(&format!(
        "{} stays here; have {} certified where the daemon is:\n  birthmark station enroll {} --csr {}\nand copy cert.pem and \
         ca.pem into {}\n",
        key.display(),
        csr.display(),
        args.name,
        csr.file_name().map(Path::new).unwrap_or(&csr).display(),
        folder.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn renew(args: RenewArgs) -> anyhow::Result<ExitCode> {
    let daemon = args.connection.daemon()?;
    let Some(folder) = daemon.identity().map(Path::to_owned) else {
        bail!("say which daemon and which identity: --server https://HOST:PORT --identity DIR");
    };
    let renewed = block_on(async {
        match args.new_key {
            true => Ok(renew::renew_key(&daemon, &folder).await?),
            false => Ok(renew::renew(&daemon, &folder).await?),
        }
    })?;
    print(&format!("{} is renewed; valid until {renewed}\n", folder.join("cert.pem").display()))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn write_pkcs12(args: Pkcs12Args) -> anyhow::Result<ExitCode> {
    let read = |name: &str| {
        let path = args.identity.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let key = args.identity.join("key.pem");
    let key = secret_file::read(&key, LONGEST_SECRET).with_context(|| format!("cannot use {}", key.display()))?;
    let (certificate, ca) = (read("cert.pem")?, read("ca.pem")?);
    let password = password(args.password_file.as_deref())?;
    let name = args.identity.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file =
        pkcs12(&name, &key, &[&certificate, &ca], &password).with_context(|| args.identity.display().to_string())?;
    write_secret(&args.out, &file)?;
    print(&format!("{}\n", args.out.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn password(file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    if let Some(path) = file {
        return secret_file::read_text(path, LONGEST_SECRET).with_context(|| format!("cannot use {}", path.display()));
    }
    if let Ok(password) = std::env::var("BIRTHMARK_PKCS12_PASSWORD") {
        return Ok(Zeroizing::new(password.trim_end_matches(['\r', '\n']).to_owned()));
    }
    bail!("the new file needs a password: --password-file FILE, or BIRTHMARK_PKCS12_PASSWORD in the environment")
}
