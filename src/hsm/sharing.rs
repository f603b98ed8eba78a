//! Several pools use the sessions of one token: whoever has none gets one of those that another has to spare.
//!
//! Tokens allow few sessions (a YubiHSM 2 has 16), and each pool opens as many as it gains from. So the pool that comes
//! first, at the start or after an outage, may take all of them. One that would be left without any asks here, and the
//! pool with the most closes one and does not open it again. What a pool has to itself it keeps: one session.

use std::{
    sync::{Weak, mpsc},
    time::Duration,
};

use parking_lot::Mutex;

use super::{error::Error, recovery::Recovery};

/// How long to wait until a session that was asked for is closed: it may be in a call.
const CLOSING: Duration = Duration::from_secs(1);

/// A pool, as the other pools that use the token see it.
pub(super) trait SessionHolder: Send + Sync {
    /// How many sessions it could close: all but its last.
    fn spare(&self) -> usize;

    /// Asks it to close one and to be content with one less. What this gives is told when that is done, and dropped
    /// when it will not be.
    fn release_one(&self) -> mpsc::Receiver<()>;

    /// The session was of no use: it may open it again.
    fn take_back(&self);
}

/// The pools that use one token.
#[derive(Default)]
pub(super) struct Sharing(Mutex<Vec<Weak<dyn SessionHolder>>>);

impl Sharing {
    pub(super) fn add(&self, holder: Weak<dyn SessionHolder>) {
        let mut holders = self.0.lock();
        holders.retain(|other| other.strong_count() > 0 && !Weak::ptr_eq(other, &holder));
        holders.push(holder);
    }

    /// Opens a session. If the token has no room for it, in whatever code it says so, opens it after another was
    /// closed.
    pub(super) fn open<T>(&self, open: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        let error = match open() {
            Err(error) if error.recovery() == Recovery::Capacity || error.refuses_session() => error,
            outcome => return outcome,
        };
        // Not under the lock: closing a session takes its time.
        let holders: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let Some(holder) = holders.iter().filter(|holder| holder.spare() > 0).max_by_key(|holder| holder.spare())
        else {
            return Err(error);
        };
        // A session that hangs is not closed in time; the room may have come from elsewhere.
        let _ = holder.release_one().recv_timeout(CLOSING);
        open().inspect_err(|_| holder.take_back())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use cryptoki::{context::Function, error::RvError};

    use super::*;

    /// One with `sessions`, at a token with room for `free` more.
    struct Pool {
        sessions: AtomicUsize,
        free: Arc<AtomicUsize>,
        taken_back: AtomicUsize,
    }

    impl SessionHolder for Pool {
        fn spare(&self) -> usize {
            self.sessions.load(Ordering::SeqCst).saturating_sub(1)
        }

        fn release_one(&self) -> mpsc::Receiver<()> {
            self.sessions.fetch_sub(1, Ordering::SeqCst);
            self.free.fetch_add(1, Ordering::SeqCst);
            let (sender, receiver) = mpsc::sync_channel(1);
            sender.send(()).unwrap();
            receiver
        }

        fn take_back(&self) {
            self.taken_back.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn refused(function: Function, code: RvError) -> Error {
        Error::call("opening a session", (function, code))
    }

    /// Pools with `sessions` each, at a token without room for more.
    fn sharing(sessions: [usize; 2]) -> (Sharing, Arc<AtomicUsize>, [Arc<Pool>; 2]) {
        let (sharing, free) = (Sharing::default(), Arc::new(AtomicUsize::new(0)));
        let pools = sessions.map(|sessions| {
            let pool = Pool { sessions: sessions.into(), free: Arc::clone(&free), taken_back: 0.into() };
            let pool = Arc::new(pool);
            sharing.add(Arc::downgrade(&pool) as Weak<dyn SessionHolder>);
            pool
        });
        (sharing, free, pools)
    }

    fn open(free: &AtomicUsize, code: RvError) -> Result<(), Error> {
        let taken = free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1));
        taken.map(drop).map_err(|_| refused(Function::OpenSession, code))
    }

    /// The pool with the most sessions closes one, in whatever code the token says that it is full.
    #[test]
    fn session_at_a_full_token_comes_from_the_largest_pool() {
        for code in [RvError::SessionCount, RvError::ArgumentsBad, RvError::GeneralError] {
            let (sharing, free, [small, large]) = sharing([2, 3]);
            assert!(sharing.open(|| open(&free, code)).is_ok());
            assert_eq!((small.spare(), large.spare()), (1, 1), "{code:?}");
            assert_eq!(large.taken_back.load(Ordering::SeqCst), 0);
        }
    }

    /// A pool's last session is its own.
    #[test]
    fn last_session_of_a_pool_is_never_asked_for() {
        let (sharing, free, pools) = sharing([1, 1]);
        assert!(sharing.open(|| open(&free, RvError::SessionCount)).is_err());
        assert!(pools.iter().all(|pool| pool.sessions.load(Ordering::SeqCst) == 1));
    }

    /// A token that is away has no room either: what was closed in vain may be opened again.
    #[test]
    fn session_closed_in_vain_is_given_back() {
        let (sharing, _, [_, large]) = sharing([1, 3]);
        assert!(sharing.open(|| Err::<(), _>(refused(Function::OpenSession, RvError::DeviceError))).is_err());
        assert_eq!(large.taken_back.load(Ordering::SeqCst), 1);
        assert!(sharing.open(|| Err::<(), _>(refused(Function::Login, RvError::DeviceError))).is_err());
        assert_eq!(large.taken_back.load(Ordering::SeqCst), 1, "a login asks for no session");
    }
}
