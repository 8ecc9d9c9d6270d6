//! A receiver beside its lanes, with nothing to hand out: it looks for a moment, and then sleeps, on lanes and stream
//! together.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::lending::{DAEMON_LOOK, is_late};
use super::{CoarseTime, NoMessage, State, StreamReceiver, Wait};
use crate::lane::biased::BiasedGuard;
use crate::lane::ring::SleepsAt;
use crate::lane::sleep::WORDS_MAX;
use crate::stream::sentry::Post;
use crate::transport::Interest;
use crate::waiting::Waiting;

/// How long a receiver whose lanes are busy looks again and again before it sleeps. Waking a processor that
/// sleeps costs about as much.
const SPIN: Duration = Duration::from_micros(20);

/// How long a receiver that spins finds nothing before it gives way to others: its sender may wait for this very
/// processor.
const ALONE: Duration = Duration::from_micros(100);

/// How often a receiver that spins looks at what the daemon says.
const DAEMON_HEARD: Duration = Duration::from_millis(1);

/// How long the keeper has the state to itself, if it wants it.
const KEEPER_TURN: Duration = Duration::from_micros(100);

/// How often in a row lanes have to have woken it before it sleeps on their words, where what comes by the socket
/// takes longer to wake it.
const WOKEN_BY_LANES: u32 = 4;

impl State {
    /// Whether a look at lanes and board finds something that was not there.
    fn has_news(&mut self) -> bool {
        self.lanes.has_news(self.receiving.inbox.received().0, self.connection.is_some())
    }

    /// Looks again and again for something. `false` when it is late before that.
    fn looks_until(&mut self, until: Instant) -> bool {
        let gives_way_at = Instant::now() + ALONE;
        loop {
            for _ in 0..64 {
                if self.has_news() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            if now >= gives_way_at {
                std::thread::yield_now();
            }
        }
    }

    /// Says to all lanes that this end waits, and looks once more. `false` when there is something.
    pub(super) fn begin_wait(&mut self, at: SleepsAt) -> bool {
        self.lanes.begin_wait(at, self.receiving.inbox.received().0, self.connection.is_some())
    }

    /// Sleeps on a word of each lane until there is something; `true` when it may be the socket or the bell.
    fn sleep_on_words(&mut self, seen: u32, deadline: Option<Instant>) -> io::Result<bool> {
        let Some(post) = &self.post else { return Ok(true) };
        let Some(words) = self.lanes.words(post.wakeup(), seen) else { return Ok(post.was_woken()) };
        if words.sleep(deadline).is_err() {
            // The kernel cannot. The bell is for all.
            self.woken_by_lanes = 0;
            return Ok(true);
        }
        Ok(post.was_woken())
    }
}

impl StreamReceiver {
    /// Waits for something from lanes or stream.
    pub(super) fn wait_beside_lanes<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        if wait == Wait::Never {
            self.tell(&mut state, false);
            state.lanes.ring_for_those_who_wait();
            // What is no message is not always announced: an end, or a hang-up. Whoever polls is to find nothing
            // there that was there before.
            let looks = state.read_at != CoarseTime::now() || self.readiness.get().is_some();
            return if looks && self.fill(&mut state) { Ok(state) } else { Err(NoMessage::Empty) };
        }
        if self.finish_lanes(&mut state) || self.spin(&mut state) {
            return Ok(state);
        }
        if state.connection.is_none() {
            return self.wait_without_daemon(state, wait);
        }
        if self.options.waiting == Waiting::Spin {
            return self.go_on_spinning(state, wait);
        }
        self.tell(&mut state, true);
        // What is seen now, before the last look, is what it sleeps on.
        let seen = self.set_post(&mut state);
        let at = if seen.is_some() { SleepsAt::Word } else { SleepsAt::Bell };
        if !state.begin_wait(at) {
            return Ok(state);
        }
        // Nobody tells that the sender of an orphan has turned away, nor that a lane is here.
        let orphans = state.lanes.are_to_be_watched().then_some(DAEMON_LOOK);
        let look_after = orphans.into_iter().chain(state.coming.look_after()).min();
        let look_again = look_after.map(|after| Instant::now() + after);
        let until = [wait.deadline(), look_again].into_iter().flatten().min();
        // The keeper is not to look again and again for what it cannot see: the state is locked meanwhile.
        let said = state.receiving.control.is_empty();
        if said {
            self.put_off(&state);
        }
        let slept = match seen {
            Some(seen) => state.sleep_on_words(seen, until),
            None => self.sleep(&state, until),
        };
        if said {
            self.take_back(&mut state);
        }
        state.lanes.end_wait(seen.is_none() || matches!(slept, Ok(true)));
        match slept {
            Ok(true) => {
                state.woken_by_lanes = 0;
                self.fill(&mut state);
            }
            // While a lane is to come it wakes by itself, to look for that.
            Ok(false) if !state.coming.is_empty() => {}
            Ok(false) => state.woken_by_lanes = state.woken_by_lanes.saturating_add(1),
            Err(_) => self.lose_link(&mut state),
        }
        if is_late(wait) && !state.has_news() {
            self.leave_to_keeper(&state);
            return Err(NoMessage::Timeout);
        }
        Ok(state)
    }

    /// Looks for a moment whether there is something. It pays where something came the last time.
    fn spin(&self, state: &mut State) -> bool {
        if self.options.waiting != Waiting::Adaptive || !state.lanes.is_hot() {
            return false;
        }
        let found = if state.lanes.share_processor() {
            // Once it has had its turn, there is much.
            std::thread::yield_now();
            state.has_news()
        } else {
            state.looks_until(Instant::now() + SPIN)
        };
        if !found {
            state.lanes.cool();
        }
        found
    }

    /// As [`spin`](Self::spin), for a thread that has nothing else to do than to hand on: others of its process wait
    /// for a processor, perhaps, and have it between two looks.
    pub(super) fn gives_way(&self) -> bool {
        if self.options.waiting != Waiting::Adaptive || !self.state.lock().lanes.is_hot() {
            return false;
        }
        let until = Instant::now() + SPIN;
        loop {
            std::thread::yield_now();
            let mut state = self.state.lock();
            if state.has_news() {
                return true;
            }
            if Instant::now() >= until {
                state.lanes.cool();
                return false;
            }
        }
    }

    /// Looks until there is something, or it is time to hear the daemon.
    fn go_on_spinning<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        self.tell(&mut state, true);
        state.lanes.ring_for_those_who_wait();
        let look = Instant::now() + DAEMON_HEARD;
        if !state.looks_until(wait.deadline().map_or(look, |deadline| deadline.min(look))) {
            self.fill(&mut state);
            if is_late(wait) && !state.has_news() {
                self.leave_to_keeper(&state);
                return Err(NoMessage::Timeout);
            }
        }
        Ok(state)
    }

    /// Has its socket and bell watched by the sentry, where it is to sleep on words of its lanes: where those
    /// woke it the last few times. Returns what it has seen on its own word.
    fn set_post(&self, state: &mut State) -> Option<u32> {
        let sleeps_at_bell = state.woken_by_lanes < WOKEN_BY_LANES || state.lanes.len() >= WORDS_MAX;
        // Something may come that nobody wakes it for, or is to be written once the socket takes it.
        let listens = !state.coming.is_empty() || !state.receiving.control.is_empty();
        if sleeps_at_bell || listens || self.readiness.get().is_some() {
            return None;
        }
        let (connection, bell) = (state.connection.as_ref()?, state.lanes.bell()?);
        // Memory has its bell alone.
        connection.fd()?;
        if !state.post.as_ref().is_some_and(|post| post.is_of(connection, &bell)) {
            state.post = Post::new(connection, &bell).ok();
        }
        let post = state.post.as_ref()?;
        let seen = post.wakeup().seen();
        post.set().is_ok().then_some(seen)
    }

    /// Sleeps until there is something; `true` when the socket is readable.
    fn sleep(&self, state: &State, deadline: Option<Instant>) -> io::Result<bool> {
        let bell = state.lanes.bell();
        let Some(connection) = &state.connection else { return Ok(false) };
        if let (None, Some(bell)) = (connection.fd(), &bell) {
            // Memory, which the daemon fills in this process: it rings as well when it has.
            let until = Instant::now() + DAEMON_LOOK;
            bell.wait(deadline.map_or(until, |deadline| deadline.min(until)));
            return Ok(connection.wait(Interest::Readable, Some(Instant::now()))?.is_some());
        }
        let bell = bell.as_ref().map(|bell| bell.as_fd());
        let unsaid = !state.receiving.control.is_empty();
        let interest = if unsaid { Interest::Either } else { Interest::Readable };
        let ready = connection.wait_or_ring(interest, bell, deadline)?;
        Ok(ready.is_some_and(|ready| ready.readable))
    }

    /// Waits for lanes alone, while there is no daemon. The keeper, which finds the next one, needs the state.
    fn wait_without_daemon<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        if !state.begin_wait(SleepsAt::Bell) {
            return Ok(state);
        }
        let Some(bell) = state.lanes.bell() else { return Ok(state) };
        drop(state);
        let until = Instant::now() + DAEMON_LOOK;
        bell.wait(wait.deadline().map_or(until, |deadline| deadline.min(until)));
        // Where that is too late the next call ends the wait in those lanes that it still has.
        let mut state = self.lock_within(wait)?;
        state.lanes.end_wait(true);
        if is_late(wait) && !state.has_news() { Err(NoMessage::Timeout) } else { Ok(state) }
    }

    /// Lets the keeper in, once for each tick, while there is no daemon: lanes may keep this thread at work.
    pub(super) fn let_the_keeper_in<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        let now = CoarseTime::now();
        if std::mem::replace(&mut state.read_at, now) == now {
            return Ok(state);
        }
        drop(state);
        std::thread::sleep(KEEPER_TURN);
        self.lock_within(wait)
    }
}
