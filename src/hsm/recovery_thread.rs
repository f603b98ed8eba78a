//! A thread that opens the sessions that a token lacks: all of them after an outage.

use std::{sync::Arc, thread};

use super::{
    error::Error,
    module::Module,
    pooled_token::{PooledToken, WorkerGuard},
    recovery::Recovery,
    signing_thread,
    worker::Worker,
};

/// Starts one, as this worker of the token.
pub(super) fn start(pooled: &Arc<PooledToken>, worker: Arc<Worker>) {
    let guard = WorkerGuard(Arc::clone(pooled), Arc::clone(&worker));
    let recovering = RecoveryThread { pooled: Arc::clone(pooled), worker };
    let spawned = thread::Builder::new().name("hsm-recovery".into()).spawn(move || {
        recovering.worker.begin_call();
        recovering.run();
        drop(guard);
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot start a thread");
    }
}

struct RecoveryThread {
    pooled: Arc<PooledToken>,
    worker: Arc<Worker>,
}

impl RecoveryThread {
    /// Opens the sessions that are missing, after a test signature, and has threads sign with them.
    fn run(&self) {
        let pooled = &self.pooled;
        let error = match self.fill() {
            Ok(()) => return,
            Err(error) => error,
        };
        if self.worker.is_abandoned() {
            return;
        }
        pooled.metrics.error(&error.code());
        if error.recovery() == Recovery::Operator {
            return pooled.open_breaker(&error);
        }
        if pooled.working() > 0 {
            pooled.run_short(&error);
            // Or those that count as working do not work either.
            if let Some(token) = pooled.token() {
                token.module().probe_idle();
            }
            return;
        }
        pooled.open_breaker(&error);
        self.reinitialize_module(&error);
    }

    fn fill(&self) -> Result<(), Error> {
        let pooled = &self.pooled;
        let (token, key) = pooled.open_key()?;
        let mut key = Some(key);
        loop {
            // A call hung meanwhile, and another thread does this.
            if self.worker.is_abandoned() || pooled.context.queue.is_closed() {
                return Ok(());
            }
            self.worker.begin_call();
            let next = match key.take() {
                Some(key) => key,
                None => pooled.reopen(&token, false)?,
            };
            if self.worker.is_abandoned() {
                return Ok(());
            }
            pooled.close_breaker();
            signing_thread::start(pooled, &token, next)?;
            if pooled.working() >= pooled.target_sessions() {
                return Ok(());
            }
        }
    }

    /// The last resort: many modules find a token that was away only then. The next probe says whether it helped.
    fn reinitialize_module(&self, error: &Error) {
        let pooled = &self.pooled;
        if !pooled.may_initialize() {
            return;
        }
        self.worker.begin_call();
        let module = match pooled.token() {
            Some(token) => Ok(Arc::clone(token.module())),
            // Not even once found: the module itself may have refused.
            None => Module::open(&pooled.uri.token.module_in(&pooled.context.base_dir)),
        };
        match module.and_then(|module| module.reinitialize(pooled.may_force(error))) {
            Ok(true) => pooled.try_now(),
            Ok(false) => {}
            Err(error) => {
                pooled.metrics.error(&error.code());
                tracing::warn!(issuer = pooled.context.issuer, token = pooled.name, %error, "not initialised again");
            }
        }
    }
}
