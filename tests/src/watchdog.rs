//! The watchdog: a test that hangs fails, with its name, and the others go on.

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Longer than all patience that a test may need, one after the other.
const HANG: Duration = Duration::from_secs(60);

/// Runs `body` on a thread of its own. When that hangs, `give_up` is called, and the test fails.
///
/// # Panics
/// When `body` does, and when it hangs.
pub fn watch(name: &str, body: impl FnOnce() + Send + 'static, give_up: impl FnOnce()) {
    let (done, is_done) = channel();
    let run = move || {
        // Dropped at the end, also by a panic.
        let _done = done;
        body();
    };
    let test = thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread");
    match is_done.recv_timeout(HANG) {
        Err(RecvTimeoutError::Disconnected) => {
            if let Err(panic) = test.join() {
                resume_unwind(panic);
            }
        }
        Ok(()) => unreachable!("nothing is ever sent"),
        Err(RecvTimeoutError::Timeout) => {
            give_up();
            panic!("{name} hangs: nothing came of it in {} s", HANG.as_secs());
        }
    }
}
