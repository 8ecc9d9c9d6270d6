//! [`Deferral`]: what tells the keeper that a receiver has put something off, and when to let it rest.
//!
//! The receiver's thread has its state locked while it waits. These flags are all that the two share then,
//! besides the mailbox in [`put_off`](super::put_off).

use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub(super) struct Deferral<F = AtomicBool> {
    /// Something was put off that the daemon is to be told: the keeper looks in.
    deferred: F,
    /// A thread waits with the state locked: for the daemon, or for the user of what is lent.
    asleep: F,
    /// The keeper has found it asleep, and nothing was put off since.
    rested: F,
}

/// A flag that two threads share: the processor's, or a model's.
pub(super) trait Flag {
    fn load(&self) -> bool;
    fn store(&self, value: bool);
    fn swap(&self, value: bool) -> bool;
}

impl Flag for AtomicBool {
    fn load(&self) -> bool {
        self.load(Ordering::SeqCst)
    }

    fn store(&self, value: bool) {
        self.store(value, Ordering::SeqCst);
    }

    fn swap(&self, value: bool) -> bool {
        self.swap(value, Ordering::SeqCst)
    }
}

impl<F: Flag> Deferral<F> {
    /// Something is put off. `true` when the keeper does not look by itself, and is to be woken.
    #[must_use]
    pub(super) fn defer(&self) -> bool {
        self.rested.swap(false);
        !self.deferred.swap(true)
    }

    /// As [`defer`](Self::defer), by a thread that is awake, and before it sleeps defers once more what the keeper could
    /// tell meanwhile. It does so for each message, and nearly always finds that the keeper looks anyway.
    #[inline]
    #[must_use]
    pub(super) fn defer_awake(&self) -> bool {
        // The keeper has not found it asleep since then: it looks once more, at least, before it rests.
        (!self.deferred.load() || self.rested.load()) && self.defer()
    }

    /// Whether the keeper is to look in.
    pub(super) fn is_deferred(&self) -> bool {
        self.deferred.load()
    }

    /// Nothing is put off any more.
    pub(super) fn settle(&self) {
        self.deferred.store(false);
    }

    /// The receiver's thread waits from now on, or its user works on what is lent: the state is locked, and
    /// the mailbox is the keeper's.
    pub(super) fn sleep(&self) {
        self.asleep.store(true);
    }

    /// The thread goes on.
    pub(super) fn wake(&self) {
        self.asleep.store(false);
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load()
    }

    /// The keeper has found the state free.
    pub(super) fn is_awake(&self) {
        self.rested.store(false);
    }

    /// The keeper has found the state locked, and nothing put off. `true` when it need not look again
    /// before something is.
    pub(super) fn rests(&self) -> bool {
        // One that was asleep at the last look as well needs nobody. Any other may soon stop with something
        // put off.
        if !self.asleep.load() || !self.rested.swap(true) {
            return false;
        }
        // Should its thread put something off at this very moment, one of the two sees the other: it takes
        // the rest back before it looks whether the keeper looks, and here it is the reverse. All of it by
        // swaps, so that whoever comes second has seen what the first did.
        self.deferred.swap(false);
        if self.asleep.load() && self.rested.load() {
            return true;
        }
        self.deferred.store(true);
        false
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::atomic::{AtomicBool, Ordering};
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::{Deferral, Flag};

    impl Flag for AtomicBool {
        fn load(&self) -> bool {
            self.load(Ordering::SeqCst)
        }

        fn store(&self, value: bool) {
            self.store(value, Ordering::SeqCst);
        }

        fn swap(&self, value: bool) -> bool {
            self.swap(value, Ordering::SeqCst)
        }
    }

    struct Shared {
        deferral: Deferral<AtomicBool>,
        /// The mailbox.
        put_off: Mutex<bool>,
    }

    impl Shared {
        /// Asleep, and looked at once since, or never.
        fn asleep(rested: bool) -> Arc<Self> {
            let deferral = Deferral {
                deferred: AtomicBool::new(true),
                asleep: AtomicBool::new(true),
                rested: AtomicBool::new(rested),
            };
            Arc::new(Self { deferral, put_off: Mutex::new(false) })
        }

        /// Wakes, and waits again with something put off. `true` when the keeper was woken.
        fn wakes_and_puts_off(&self) -> bool {
            let wakes = self.wakes_and_defers();
            *self.put_off.lock().unwrap() = true;
            let wakes = self.deferral.defer() || wakes;
            self.deferral.sleep();
            wakes
        }

        /// Wakes, and leaves something to the keeper while it goes on. `true` when the keeper was woken.
        fn wakes_and_defers(&self) -> bool {
            self.deferral.wake();
            self.deferral.defer_awake()
        }

        /// One look of the keeper. `true` when it looks again by itself.
        fn look(&self) -> bool {
            if !self.deferral.is_deferred() {
                return false;
            }
            if self.deferral.is_asleep() {
                let mut put_off = self.put_off.lock().unwrap();
                if std::mem::take(&mut *put_off) {
                    self.deferral.settle();
                    return true;
                }
            }
            !self.deferral.rests()
        }
    }

    /// The keeper let a receiver rest that had just put something off, and was woken by nobody: the daemon
    /// was not told before the next message.
    #[test]
    fn what_is_put_off_is_looked_at_whenever_the_keeper_looks() {
        for rested in [false, true] {
            loom::model(move || {
                let shared = Shared::asleep(rested);
                let receiver = Arc::clone(&shared);
                let thread = thread::spawn(move || receiver.wakes_and_puts_off());
                let looks_again = shared.look();
                let woken = thread.join().unwrap();
                if *shared.put_off.lock().unwrap() {
                    assert!(shared.deferral.is_deferred(), "the next look passes it by");
                    assert!(looks_again || woken, "there is no next look");
                }
            });
        }
    }

    #[test]
    fn what_is_left_by_one_that_is_awake_is_looked_at() {
        for rested in [false, true] {
            loom::model(move || {
                let shared = Shared::asleep(rested);
                let receiver = Arc::clone(&shared);
                let thread = thread::spawn(move || receiver.wakes_and_defers());
                let looks_again = shared.look();
                let woken = thread.join().unwrap();
                assert!(shared.deferral.is_deferred(), "the next look passes it by");
                assert!(looks_again || woken, "there is no next look");
            });
        }
    }
}
