//! The reload of the configuration, as an operator asks for it.

use std::{pin::Pin, sync::Arc};

use tonic::Status;

use super::status;
use crate::{ledger::Actor, proto::ReloadReply};

/// What a reload did.
pub(crate) struct Reloaded {
    /// The settings that changed and are in force.
    pub(crate) changed: Vec<String>,
    /// Those that changed and need a restart.
    pub(crate) needs_restart: Vec<String>,
    /// SHA-256 of the configuration file.
    pub(crate) sha256: [u8; 32],
}

type Reloading = Pin<Box<dyn Future<Output = Result<Reloaded, String>> + Send>>;

/// Reads the configuration anew, for an operator or, at a signal, nobody; or says what is wrong with it.
pub(crate) type Reload = Arc<dyn Fn(Option<Actor>) -> Reloading + Send + Sync>;

/// Reloads, for an operator.
pub(super) async fn run(reload: &Reload, actor: Actor) -> Result<ReloadReply, Status> {
    match reload(Some(actor)).await {
        Ok(Reloaded { changed, needs_restart, sha256 }) => {
            Ok(ReloadReply { changed, needs_restart, configuration_sha256: sha256.to_vec().into() })
        }
        Err(message) => Err(status::configuration_refused(message)),
    }
}
