//! [`BiasedMutex`]: a mutex for what nearly always the same thread locks. That thread pays no locked instruction for it.
//!
//! An instruction that locks a line of the cache also waits until all that was stored before has reached it. Of the 110 ns
//! that a sender had for a message in a lane, a mutex took 12; where it had come out of a system call, 35 (Zen 3).
//!
//! A thread that has locked it [`REGULAR`] times in a row owns it. From then on it says that it is inside by a plain store,
//! and looks whether it still is the owner. Any other thread takes the ownership away first, makes every processor that
//! runs this process pass a fence (`membarrier`), and sleeps until the owner is outside:
//! either the owner has seen that it no longer is one, or the other sees it inside, and is seen to wait. Without an owner
//! it is a mutex like any other, and so it stays where the kernel has no such fence to offer.
//!
//! An owner that has lost it may be about to say that it is inside, for as long as it does not run, and takes that back when
//! it does. So no two threads ever say so in the same place: each that becomes an owner has one of [`PLACES`] for good, and
//! where its place is another's it becomes none.
//!
//! What is needed of the memory stands in [`Words`], so that a model can run [`Bias`] as it is.

#![expect(unsafe_code, reason = "the value is reached through a lock that the language does not know")]

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

/// How often in a row a thread locks it before it owns it. To take it away from one that runs costs 19 us, and a lock that
/// is owned saves 12 ns or more (two processors of Zen 3).
const REGULAR: u32 = 8192;

/// How many threads of a handle may own it one after the other. A handle is passed on once or twice.
const PLACES: usize = 8;

/// Far longer than a processor keeps a store to itself.
const STORED: Duration = Duration::from_millis(10);

/// Whether the kernel offers the fence.
static HAS_FENCE: AtomicBool = AtomicBool::new(false);

/// Whether the kernel was asked for it.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether there is the fence, for who could be an owner. Asking for it takes 10 ms in a process of several threads, for
/// which its end waits as well: a thread of its own does it, and not before somebody has a use for it.
fn has_fence() -> bool {
    if !ASKED.load(Ordering::Relaxed) && !ASKED.swap(true, Ordering::Relaxed) {
        // Without a thread there are no owners.
        let _ = thread::Builder::new().name("bus-fence".into()).spawn(prepare);
    }
    HAS_FENCE.load(Ordering::Relaxed)
}

fn prepare() {
    HAS_FENCE.store(membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok(), Ordering::Relaxed);
}

/// Makes every thread of this process pass a fence.
fn fence_everywhere() {
    let fence = || membarrier(MembarrierCommand::PrivateExpedited).is_ok();
    if fence() {
        return;
    }
    prepare();
    if !fence() {
        // Forbidden since it was asked for. Soon nobody becomes an owner any more; and what those that are left have
        // stored is where all can see it before long.
        HAS_FENCE.store(false, Ordering::Relaxed);
        thread::sleep(STORED);
    }
}

/// A thread, by a number that no other ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ThreadNumber(u64);

impl ThreadNumber {
    const NOBODY: Self = Self(0);

    #[inline]
    fn here() -> Self {
        thread_local! {
            static HERE: Cell<u64> = const { Cell::new(0) };
        }
        static LAST: AtomicU64 = AtomicU64::new(0);
        HERE.with(|here| {
            if here.get() == 0 {
                here.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
            }
            Self(here.get())
        })
    }

    /// Where it says that it is inside.
    #[inline]
    fn place(self) -> usize {
        self.0 as usize % PLACES
    }
}

/// What the owner and the others tell each other by.
trait Words {
    fn owner(&self) -> u64;
    fn set_owner(&self, owner: u64);
    fn is_inside(&self, place: usize, ordering: Ordering) -> bool;
    fn set_inside(&self, place: usize, inside: bool, ordering: Ordering);
    fn is_awaited(&self) -> bool;
    fn set_awaited(&self, awaited: bool);
    /// The owner's fence, which is one only together with the other.
    fn fence_of_owner(&self);
    /// The fence of whoever takes the ownership away: the owner passes one as well, wherever it is.
    fn fence_of_others(&self);
}

/// Who may enter by saying so alone. Apart from the owner's own steps all is done behind the gate, by one at a time.
#[derive(Debug, Default)]
struct Bias<W>(W);

impl<W: Words> Bias<W> {
    /// Enters, if it is this thread's, and it is not inside already.
    #[inline]
    fn enter(&self, me: ThreadNumber) -> Entered {
        // The place is the owner's alone.
        if self.0.owner() != me.0 || self.0.is_inside(me.place(), Ordering::Relaxed) {
            return Entered::Not;
        }
        self.0.set_inside(me.place(), true, Ordering::Relaxed);
        // (I) Between saying that one is inside and looking whether one may be.
        self.0.fence_of_owner();
        if self.0.owner() == me.0 { Entered::Inside } else { Entered::InVain }
    }

    /// Leaves, also where it entered in vain. `true` when somebody sleeps until then.
    #[inline]
    #[must_use]
    fn leave(&self, me: ThreadNumber) -> bool {
        // (O) What was done inside is seen by whoever sees nobody inside.
        self.0.set_inside(me.place(), false, Ordering::Release);
        // (I) Between saying that nobody is inside and looking whether that is waited for.
        self.0.fence_of_owner();
        self.0.is_awaited()
    }

    /// Nobody enters by saying so any more. The owner may still be inside.
    fn take_away(&self) {
        if self.0.owner() != ThreadNumber::NOBODY.0 {
            self.0.set_owner(ThreadNumber::NOBODY.0);
            // Pairs with (I): the owner is seen inside, or has seen that it no longer is one.
            self.0.fence_of_others();
        }
    }

    /// Whether the thread that owned it last is outside. For who has taken it away.
    fn is_left_by(&self, last: ThreadNumber) -> bool {
        // Pairs with (O).
        !self.0.is_inside(last.place(), Ordering::Acquire)
    }

    /// Whether one may sleep until the owner has left: it is inside, and will see that it is waited for.
    fn awaits(&self, last: ThreadNumber) -> bool {
        self.0.set_awaited(true);
        // Pairs with (I): the owner sees this, or is seen to have left.
        self.0.fence_of_others();
        !self.is_left_by(last)
    }

    fn awaits_nobody(&self) {
        self.0.set_awaited(false);
    }

    /// From now on it belongs to the thread that is about to leave the gate, and sees all that was done before. Its place
    /// is its own, and the last owner is outside.
    fn give(&self, me: ThreadNumber) {
        self.0.set_owner(me.0);
    }
}

/// What came of entering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entered {
    Inside,
    Not,
    /// It has been taken away meanwhile. Whoever did may have seen this thread inside: it is to leave.
    InVain,
}

#[derive(Debug, Default)]
struct Atomics {
    owner: AtomicU64,
    inside: [AtomicBool; PLACES],
    awaited: AtomicBool,
}

impl Words for Atomics {
    #[inline]
    fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    fn set_owner(&self, owner: u64) {
        self.owner.store(owner, Ordering::Relaxed);
    }

    fn is_inside(&self, place: usize, ordering: Ordering) -> bool {
        self.inside[place].load(ordering)
    }

    #[inline]
    fn set_inside(&self, place: usize, inside: bool, ordering: Ordering) {
        self.inside[place].store(inside, ordering);
    }

    #[inline]
    fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Relaxed);
    }

    #[inline]
    fn fence_of_owner(&self) {
        // The processor's part comes with the other fence.
        compiler_fence(Ordering::SeqCst);
    }

    fn fence_of_others(&self) {
        fence_everywhere();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of those who lock it.
#[derive(Debug)]
struct Gate {
    /// Who passed the gate last, and how often in a row.
    regular: ThreadNumber,
    times: u32,
    /// Who owns it, or did last.
    owner: ThreadNumber,
    /// Who is behind the gate owns it from when it leaves.
    gives: bool,
    /// Whose each place is.
    places: [ThreadNumber; PLACES],
}

impl Gate {
    /// A thread passes: it may have become the owner.
    fn note(&mut self, me: ThreadNumber) {
        self.times = if self.regular == me { self.times.saturating_add(1) } else { 1 };
        self.regular = me;
        let place = &mut self.places[me.place()];
        if self.times >= REGULAR && [me, ThreadNumber::NOBODY].contains(place) && has_fence() {
            (*place, self.times, self.gives) = (me, 0, true);
        }
    }
}

/// A mutex for what nearly always the same thread locks.
pub(crate) struct BiasedMutex<T> {
    bias: Bias<Atomics>,
    /// Everybody passes it who is not the owner.
    gate: Mutex<Gate>,
    /// The gate, while somebody has it who passed it.
    passed: UnsafeCell<MaybeUninit<MutexGuard<'static, Gate>>>,
    /// Where one sleeps behind the gate until the owner has left.
    sleeping: Mutex<()>,
    left: Condvar,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by a guard alone, and of guards there is one at a time: so the mutex gives the value from
// thread to thread as `Mutex` does, and asks the same of it; as its guard does of those that share one.
unsafe impl<T: Send> Sync for BiasedMutex<T> {}
// SAFETY: nobody has it while it is sent, so of the gate that somebody had there is nothing left to use.
unsafe impl<T: Send> Send for BiasedMutex<T> {}

impl<T> BiasedMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        let nobody = ThreadNumber::NOBODY;
        let gate =
            Mutex::new(Gate { regular: nobody, times: 0, owner: nobody, gives: false, places: [nobody; PLACES] });
        let passed = UnsafeCell::new(MaybeUninit::uninit());
        Self {
            bias: Bias::default(),
            gate,
            passed,
            sleeping: Mutex::default(),
            left: Condvar::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until nobody else has it. Also after a panic of another holder, as what it guards is consistent between
    /// statements.
    #[inline]
    pub(crate) fn lock(&self) -> BiasedGuard<'_, T> {
        let me = ThreadNumber::here();
        let is_owner = self.enter(me);
        if !is_owner {
            self.pass_gate(me);
        }
        BiasedGuard { mutex: self, is_owner, stays: PhantomData }
    }

    /// Locks it where nobody has it.
    pub(crate) fn try_lock(&self) -> Option<BiasedGuard<'_, T>> {
        let me = ThreadNumber::here();
        if self.enter(me) {
            return Some(BiasedGuard { mutex: self, is_owner: true, stays: PhantomData });
        }
        let gate = match self.gate.try_lock() {
            Ok(gate) => gate,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // Before anything is taken away for nothing.
        if !self.bias.is_left_by(gate.owner) {
            return None;
        }
        self.bias.take_away();
        self.bias.is_left_by(gate.owner).then(|| {
            self.hold_gate(gate, me);
            BiasedGuard { mutex: self, is_owner: false, stays: PhantomData }
        })
    }

    /// Enters as the owner, if it is this thread.
    #[inline]
    fn enter(&self, me: ThreadNumber) -> bool {
        match self.bias.enter(me) {
            Entered::Inside => true,
            Entered::Not => false,
            Entered::InVain => {
                self.leave(me);
                false
            }
        }
    }

    /// Leaves as the owner.
    #[inline]
    fn leave(&self, me: ThreadNumber) {
        if self.bias.leave(me) {
            self.wake_sleeper();
        }
    }

    #[cold]
    fn pass_gate(&self, me: ThreadNumber) {
        let gate = lock(&self.gate);
        self.bias.take_away();
        if !self.bias.is_left_by(gate.owner) {
            assert_ne!(gate.owner, me, "a thread locks what it has locked, and would wait for itself");
            self.sleep_until_left(gate.owner);
        }
        self.hold_gate(gate, me);
    }

    /// Behind the gate: the owner has lost it, and is still inside.
    fn sleep_until_left(&self, owner: ThreadNumber) {
        let mut sleeping = lock(&self.sleeping);
        if self.bias.awaits(owner) {
            while !self.bias.is_left_by(owner) {
                sleeping = self.left.wait(sleeping).unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.bias.awaits_nobody();
    }

    #[cold]
    fn wake_sleeper(&self) {
        // Who has seen it inside sleeps once this can be locked.
        drop(lock(&self.sleeping));
        self.left.notify_all();
    }

    /// Behind the gate, and nobody is inside.
    fn hold_gate<'a>(&'a self, mut gate: MutexGuard<'a, Gate>, me: ThreadNumber) {
        gate.note(me);
        // SAFETY: it is not used for longer than it lives: `leave_gate` takes it out, before this mutex can be moved,
        // for its guard borrows it. Where that is forgotten the gate stays shut, and nobody touches this any more.
        let gate = unsafe { mem::transmute::<MutexGuard<'a, Gate>, MutexGuard<'static, Gate>>(gate) };
        // SAFETY: only who has the gate comes here.
        unsafe { (*self.passed.get()).write(gate) };
    }

    /// For who has passed the gate, once.
    fn leave_gate(&self) {
        // SAFETY: only who has the gate comes here, and has put it there.
        let mut gate = unsafe { (*self.passed.get()).assume_init_read() };
        if mem::take(&mut gate.gives) {
            gate.owner = gate.regular;
            self.bias.give(gate.owner);
        }
    }
}

impl<T> fmt::Debug for BiasedMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BiasedMutex").field("bias", &self.bias).finish_non_exhaustive()
    }
}

/// What is locked, until it is dropped. Two words, and so handed from function to function in registers: with the gate in
/// it, it was written to memory and read back at every step, at more cost than the lock has.
pub(crate) struct BiasedGuard<'a, T> {
    mutex: &'a BiasedMutex<T>,
    /// Or has passed the gate.
    is_owner: bool,
    /// To be dropped by the thread that locked it, and shared as the value may be.
    stays: PhantomData<MutexGuard<'a, T>>,
}

impl<T: fmt::Debug> fmt::Debug for BiasedGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T> Deref for BiasedGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: of guards there is one at a time. One has the gate, and has seen that nobody is inside without it,
        // nor can enter: `take_away` and `is_left_by`. Or it is the owner's, and whoever has the gate waits for it.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for BiasedGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for BiasedGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        match self.is_owner {
            true => self.mutex.leave(ThreadNumber::here()),
            false => self.mutex.leave_gate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Owned by the thread that calls this.
    fn owned<T>(value: T) -> BiasedMutex<T> {
        prepare();
        let mutex = BiasedMutex::new(value);
        for _ in 0..REGULAR {
            drop(mutex.lock());
        }
        assert_eq!(mutex.bias.0.owner(), ThreadNumber::here().0, "the kernel has the fence that this needs");
        mutex
    }

    #[test]
    fn who_locks_it_again_and_again_owns_it_until_another_does() {
        let mutex = owned(0);
        assert!(mutex.lock().is_owner);
        thread::scope(|scope| scope.spawn(|| *mutex.lock() += 1).join().unwrap());
        let guard = mutex.lock();
        assert_eq!((*guard, guard.is_owner), (1, false));
    }

    #[test]
    fn another_thread_waits_until_the_owner_is_outside() {
        let mutex = owned(0);
        let tried = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut guard = mutex.lock();
            assert!(guard.is_owner);
            scope.spawn(|| {
                assert!(mutex.try_lock().is_none());
                tried.store(true, Ordering::Release);
                assert_eq!(*mutex.lock(), 7);
            });
            while !tried.load(Ordering::Acquire) {
                thread::yield_now();
            }
            // It has lost the ownership, and what it has locked is still its own.
            *guard = 7;
        });
        assert_eq!(*mutex.try_lock().unwrap(), 7);
    }

    #[test]
    fn who_waits_for_the_owner_uses_no_processor() {
        let mutex = owned(0);
        let guard = mutex.lock();
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let clock = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                let before = clock();
                drop(mutex.lock());
                let after = clock();
                Duration::new(after.tv_sec as u64, after.tv_nsec as u32)
                    - Duration::new(before.tv_sec as u64, before.tv_nsec as u32)
            });
            while !mutex.bias.0.is_awaited() {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(200));
            drop(guard);
            let used = waits.join().unwrap();
            assert!(used < Duration::from_millis(50), "{used:?} of 200 ms");
        });
    }

    /// Not beside itself, either: neither as the owner, nor when it becomes one.
    #[test]
    fn a_thread_gets_no_second_guard() {
        prepare();
        let mutex = BiasedMutex::new(0);
        for pass in 1..=REGULAR + 2 {
            let guard = mutex.lock();
            assert_eq!(guard.is_owner, pass > REGULAR);
            assert!(mutex.try_lock().is_none(), "at pass {pass}");
        }
        let _guard = mutex.lock();
        let again = std::panic::AssertUnwindSafe(|| drop(mutex.lock()));
        assert!(std::panic::catch_unwind(again).is_err());
    }

    #[test]
    fn a_panic_of_the_owner_leaves_it_open() {
        let mutex = Arc::new(owned(0));
        let inside = std::panic::AssertUnwindSafe(|| {
            let _guard = mutex.lock();
            panic!("inside");
        });
        assert!(std::panic::catch_unwind(inside).is_err());
        assert!(mutex.try_lock().is_some());
    }

    /// Owners come and go while others break in: what each adds is there in the end, and nobody is inside beside another.
    #[test]
    fn nobody_is_inside_beside_another() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 300_000;
        prepare();
        let mutex = BiasedMutex::new(0_u64);
        let (inside, owned) = (AtomicU32::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for thread in 1..=THREADS {
                let (mutex, inside, owned) = (&mutex, &inside, &owned);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let mut guard = mutex.lock();
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                        *guard += 1;
                        owned.fetch_or(guard.is_owner, Ordering::Relaxed);
                        inside.fetch_sub(1, Ordering::Relaxed);
                        drop(guard);
                        // Runs long enough that there are owners, of different length.
                        if round % (thread * 20_000) == 0 {
                            thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(*mutex.lock(), THREADS * ROUNDS);
        assert!(owned.into_inner(), "nobody ever owned it");
    }

    /// Two threads, each of which becomes the owner, in every order in which processors may see what they do.
    #[test]
    fn in_every_order_one_is_inside() {
        use loom::sync::atomic::{AtomicBool, AtomicU64, fence};

        #[derive(Default)]
        struct Model {
            owner: AtomicU64,
            inside: [AtomicBool; 3],
            awaited: AtomicBool,
        }

        impl Words for Model {
            fn owner(&self) -> u64 {
                self.owner.load(Ordering::Relaxed)
            }
            fn set_owner(&self, owner: u64) {
                self.owner.store(owner, Ordering::Relaxed);
            }
            fn is_inside(&self, place: usize, ordering: Ordering) -> bool {
                self.inside[place].load(ordering)
            }
            fn set_inside(&self, place: usize, inside: bool, ordering: Ordering) {
                self.inside[place].store(inside, ordering);
            }
            fn is_awaited(&self) -> bool {
                self.awaited.load(Ordering::Relaxed)
            }
            fn set_awaited(&self, awaited: bool) {
                self.awaited.store(awaited, Ordering::Relaxed);
            }
            fn fence_of_owner(&self) {
                fence(Ordering::SeqCst);
            }
            fn fence_of_others(&self) {
                fence(Ordering::SeqCst);
            }
        }

        struct Shared {
            bias: Bias<Model>,
            /// Who owned it last.
            gate: loom::sync::Mutex<ThreadNumber>,
            value: loom::cell::UnsafeCell<u32>,
            left: loom::sync::Notify,
        }

        impl Shared {
            /// Adds one inside: loom fails where another is inside, or what it did is not seen.
            fn add(&self) {
                // SAFETY: what this test is about.
                self.value.with_mut(|value| unsafe { *value += 1 });
            }

            fn by_gate(&self, me: ThreadNumber, gives: bool) {
                let mut owner = self.gate.lock().unwrap();
                self.bias.take_away();
                // Loom fails where it sleeps for ever.
                if !self.bias.is_left_by(*owner) && self.bias.awaits(*owner) {
                    while !self.bias.is_left_by(*owner) {
                        self.left.wait();
                    }
                }
                self.bias.awaits_nobody();
                self.add();
                if gives {
                    *owner = me;
                    self.bias.give(me);
                }
                drop(owner);
            }

            fn add_as(&self, me: ThreadNumber) {
                let entered = self.bias.enter(me);
                if entered == Entered::Inside {
                    self.add();
                }
                if entered != Entered::Not && self.bias.leave(me) {
                    self.left.notify();
                }
                if entered != Entered::Inside {
                    self.by_gate(me, false);
                }
            }
        }

        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = loom::sync::Arc::new(Shared {
                bias: Bias::default(),
                gate: loom::sync::Mutex::new(ThreadNumber::NOBODY),
                value: loom::cell::UnsafeCell::new(0),
                left: loom::sync::Notify::new(),
            });
            let other = {
                let shared = loom::sync::Arc::clone(&shared);
                loom::thread::spawn(move || {
                    shared.by_gate(ThreadNumber(2), true);
                    shared.add_as(ThreadNumber(2));
                })
            };
            shared.by_gate(ThreadNumber(1), true);
            shared.add_as(ThreadNumber(1));
            shared.add_as(ThreadNumber(1));
            other.join().unwrap();
            shared.by_gate(ThreadNumber(1), false);
            // SAFETY: nobody else is left.
            assert_eq!(shared.value.with(|value| unsafe { *value }), 6);
        });
    }
}
