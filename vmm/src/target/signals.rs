//! Signals that end the process, where something is to be tidied up first.

use std::{ffi::OsString, io, thread};

use nix::sys::signal::{SigSet, Signal, raise};

use super::new_file::Directory;

/// What ends a command from outside and can be handled.
const FATAL: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Removes the files before the process ends by a signal, and calls `tidy`.
pub fn tidy_before_the_end(files: Vec<(Directory, OsString)>, tidy: Option<fn()>) -> io::Result<()> {
    let signals: SigSet = FATAL.into_iter().collect();
    // Those of threads started later, too.
    signals.thread_block()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        for (directory, name) in files {
            directory.remove(&name);
        }
        if let Some(tidy) = tidy {
            tidy();
        }
        // Nothing handles it: that is the end.
        if signals.thread_unblock().is_ok() {
            let _ = raise(signal);
        }
    })?;
    Ok(())
}
