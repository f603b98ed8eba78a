//! A child process that does not outlive its owner.

use std::{
    io,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to become ready or to exit.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The pace at which a process is looked at.
pub const PACE: Duration = Duration::from_millis(5);

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts the command.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Process> {
        command.spawn().map(Process)
    }

    /// The parent's ends of its pipes, and all else of it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// `kill -9`; it has exited afterwards.
    ///
    /// # Errors
    ///
    /// The system does not let it be killed.
    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// The process has exited and was waited for.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// Whether it has not exited yet.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    /// Waits for its exit, for [`PATIENCE`] at most.
    ///
    /// # Errors
    ///
    /// It did not exit in time.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait()? {
                Some(status) => return Ok(status),
                None if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
                None => thread::park_timeout(PACE),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has exited already, or its owner failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
