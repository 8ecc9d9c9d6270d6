//! Lanes that come: given by the daemon, and not mapped yet. A thread fetches what they lie in, so that no call waits
//! for a daemon that does not answer.
//!
//! Until a lane is here nobody knows what is in it. While it may hold messages nothing else is handed out, because it
//! might come after them; a lane in which nothing can have been sent holds nothing back.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use super::lanes::{Ends, Lane};
use super::lending::DAEMON_LOOK;
use super::{NoMessage, State, StreamReceiver, Wait};
use crate::lane::biased::BiasedGuard;
use crate::stream::handover::{is_gone_for_good, may_yet_answer};
use crate::stream::session::{Backoff, Dialer, lock, wall_clock_ns};
use crate::wire::{Kind, LaneDone, LaneGiven, LaneHello, LaneId, LaneSkip, Watching};

/// How often a lane that cannot be fetched or mapped is tried again before the daemon is told that this end cannot have
/// it: for more than a second, by growing pauses.
const LANES_MISSED_MAX: u32 = 12;

/// When a receiver that sleeps looks for the first time whether a lane is here: fetching it takes a little longer.
const FIRST_LOOK: Duration = Duration::from_micros(100);

/// Lanes that are given and not here, as their receiver sees them.
#[derive(Debug, Default)]
pub(super) struct Coming {
    lanes: Vec<Expected>,
    /// After which time a receiver that sleeps looks whether they are here.
    look_after: Duration,
}

#[derive(Debug)]
struct Expected {
    lane: LaneId,
    generation: u64,
    /// Something may have been sent there.
    in_use: bool,
    sender_gone: bool,
    skips: Vec<LaneSkip>,
    /// It cannot be had, and the daemon was told.
    missed: bool,
}

/// What the thread is to fetch, and what it has.
#[derive(Debug, Default)]
pub(super) struct Errands {
    wanted: VecDeque<Wanted>,
    fetched: Vec<Fetched>,
    /// Counts the connections: what was asked for over an earlier one is nothing to this.
    connection: u64,
    /// A thread is about it.
    fetching: bool,
}

#[derive(Debug)]
struct Wanted {
    connection: u64,
    given: LaneGiven,
    message_max_bytes: u32,
}

#[derive(Debug)]
struct Fetched {
    lane: LaneId,
    generation: u64,
    outcome: Result<(Lane, Ends), String>,
}

impl Coming {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether some may hold messages that come before all others.
    pub(super) fn hold_back(&self) -> bool {
        self.lanes.iter().any(|lane| lane.in_use)
    }

    /// When a receiver that sleeps looks whether they are here, which nobody can tell it: soon, because the daemon answers
    /// in a fraction of a millisecond when it is well, and else after growing pauses.
    pub(super) fn look_after(&mut self) -> Option<Duration> {
        let now = self.look_after;
        self.look_after = (now * 2).min(DAEMON_LOOK);
        (!self.is_empty()).then_some(now)
    }

    /// Nobody writes any more to a lane that is to come. `false` when that is another.
    pub(super) fn sender_is_gone(&mut self, lane: LaneId) -> bool {
        let Some(index) = self.lanes.iter().position(|expected| expected.lane == lane) else { return false };
        match self.lanes[index].missed {
            // The daemon has taken it back.
            true => drop(self.lanes.remove(index)),
            false => self.lanes[index].sender_gone = true,
        }
        true
    }

    /// Takes an order to skip messages of a lane that is to come.
    pub(super) fn order_skip(&mut self, order: LaneSkip) -> bool {
        let expected = self.lanes.iter_mut().find(|expected| expected.lane == order.lane);
        expected.map(|expected| expected.skips.push(order)).is_some()
    }
}

impl StreamReceiver {
    /// A lane is to be fetched.
    pub(super) fn expect_lane(&self, state: &mut State, given: LaneGiven) {
        let LaneGiven { lane, generation, in_use, sender_gone, .. } = given;
        state.coming.lanes.retain(|expected| expected.lane != lane);
        state.coming.look_after = FIRST_LOOK;
        state.coming.lanes.push(Expected { lane, generation, in_use, sender_gone, skips: Vec::new(), missed: false });
        let message_max_bytes = state.receiving.message_max_bytes();
        let mut errands = lock(&self.errands);
        let connection = errands.connection;
        errands.wanted.push_back(Wanted { connection, given, message_max_bytes });
        if std::mem::replace(&mut errands.fetching, true) {
            return;
        }
        let (endpoint, dialer) = (self.me.clone(), self.options.dialer.clone());
        let fetch = move || fetch_all(&endpoint, &dialer);
        if let Err(error) = std::thread::Builder::new().name("bus-fetch".into()).spawn(fetch) {
            errands.fetching = false;
            let none = |wanted: Wanted| {
                let outcome = Err(format!("there is no thread that could fetch it: {error}"));
                Fetched { lane: wanted.given.lane, generation: wanted.given.generation, outcome }
            };
            let unfetched = std::mem::take(&mut errands.wanted);
            errands.fetched.extend(unfetched.into_iter().map(none));
        }
    }

    /// The connection is another, or gone: all lanes are given again.
    pub(super) fn forget_coming(&self, state: &mut State) {
        state.coming.lanes.clear();
        let mut errands = lock(&self.errands);
        errands.connection += 1;
        errands.wanted.clear();
        errands.fetched.clear();
    }

    /// Takes the lanes up that are here by now.
    pub(super) fn take_up_fetched(&self, state: &mut State) {
        if state.coming.is_empty() {
            return;
        }
        let fetched = std::mem::take(&mut lock(&self.errands).fetched);
        for Fetched { lane, generation, outcome } in fetched {
            // It may have been given again since.
            let is_it = |expected: &Expected| expected.lane == lane && expected.generation == generation;
            let Some(index) = state.coming.lanes.iter().position(is_it) else { continue };
            match outcome {
                Ok((new, ends)) => {
                    let expected = state.coming.lanes.remove(index);
                    self.take_up_lane(state, new, ends, expected);
                }
                Err(fault) => {
                    // The daemon sees to it that nothing is lost: its sender goes back to the stream with what is in
                    // there, or this receiver leaves, and the next one reads it.
                    state.coming.lanes[index].missed = true;
                    state.coming.lanes.retain(|expected| expected.in_use || !expected.missed);
                    let done = LaneDone { lane, messages: 0, fault: Some(fault) };
                    state.receiving.control.push(Kind::LaneDone, &done);
                }
            }
            self.write(state);
        }
    }

    fn take_up_lane(&self, state: &mut State, mut new: Lane, ends: Ends, expected: Expected) {
        let Expected { lane, generation, sender_gone, skips, .. } = expected;
        state.receiving.note_sender();
        if let Some(former) = state.lanes.remove(lane) {
            // It was here before, and the daemon has it from elsewhere by now.
            state.receiving.note(former.origin(), former.last_sequence());
        }
        new.known_through = state.receiving.known_of(new.origin().sender);
        if sender_gone {
            new.sender_is_gone();
        }
        state.lanes.set_clock(wall_clock_ns());
        state.lanes.add(new, ends);
        for order in skips {
            state.lanes.order_skip(order);
        }
        state.receiving.control.push(Kind::Watching, &Watching { lane, generation });
    }

    /// Waits for a lane of which nobody knows what is in it. Whoever waits, and several may, is woken when it is here;
    /// meanwhile one hears now and then what the daemon says.
    pub(super) fn wait_for_lanes<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        self.tell(&mut state, wait != Wait::Never);
        if wait == Wait::Never {
            return if self.fill(&mut state) { Ok(state) } else { Err(NoMessage::Empty) };
        }
        let mut state = self.wait_for_change_within(state, wait, Some(DAEMON_LOOK))?;
        self.fill(&mut state);
        Ok(state)
    }

    /// What was fetched is there, or cannot be had. Whoever has the state locked takes it up, and may sleep with it: the
    /// next lanes are not to wait for that.
    fn lanes_came(&self) {
        let mut pauses = Backoff::default();
        loop {
            if let Some(mut state) = self.state.try_lock() {
                self.take_up_fetched(&mut state);
                self.leave_to_keeper(&state);
                self.show_state(&mut state);
                self.changed.tell();
                return;
            }
            let errands = lock(&self.errands);
            if errands.fetched.is_empty() || !errands.wanted.is_empty() {
                // It is taken up, or comes up again with the next.
                return;
            }
            drop(errands);
            std::thread::sleep(pauses.next_delay());
        }
    }
}

/// Fetches one lane after the other, as long as there are some and somebody wants them.
fn fetch_all(endpoint: &Weak<StreamReceiver>, dialer: &Dialer) {
    let next = || {
        // Not held while it waits: whoever drops the endpoint leaves the channel at once.
        let endpoint = endpoint.upgrade()?;
        let mut errands = lock(&endpoint.errands);
        let next = errands.wanted.pop_front();
        errands.fetching = next.is_some();
        next
    };
    while let Some(wanted) = next() {
        let is_of = |endpoint: &StreamReceiver| lock(&endpoint.errands).connection == wanted.connection;
        let outcome = wanted.fetch(dialer, || endpoint.upgrade().is_some_and(|endpoint| is_of(&endpoint)));
        let Some(endpoint) = endpoint.upgrade() else { return };
        let mut errands = lock(&endpoint.errands);
        if errands.connection == wanted.connection {
            let LaneGiven { lane, generation, .. } = wanted.given;
            errands.fetched.push(Fetched { lane, generation, outcome });
        }
        drop(errands);
        endpoint.lanes_came();
    }
}

impl Wanted {
    /// Fetches a lane, and tries again where that fails.
    fn fetch(&self, dialer: &Dialer, is_wanted: impl Fn() -> bool) -> Result<(Lane, Ends), String> {
        let (mut missed, mut pauses) = (0, Backoff::default());
        loop {
            let fetched = dialer.fetch(LaneHello { lane: self.given.lane, ticket: self.given.ticket });
            let mapped =
                fetched.and_then(|descriptors| Lane::new(self.given.clone(), self.message_max_bytes, descriptors));
            let error = match mapped {
                Ok(mapped) => return Ok(mapped),
                Err(error) => error,
            };
            // A daemon that is stopped may go on at any time, and one that is gone is noticed elsewhere.
            missed += u32::from(!may_yet_answer(&error));
            if missed == LANES_MISSED_MAX || is_gone_for_good(&error) || !is_wanted() {
                return Err(format!("lane {} cannot be read by its receiver: {error}", self.given.lane.0));
            }
            std::thread::sleep(pauses.next_delay());
        }
    }
}
