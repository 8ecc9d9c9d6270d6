//! What a sender's lane lies in, on its way: a thread fetches it, so that no call waits for a daemon that does not
//! answer. Until it is here the sender goes on as it did, on the stream or with the receiver that it had.

use std::io;
use std::sync::Weak;

use super::mapped::{Cursor, SenderLane, cursor_of};
use super::{State, StreamSender, Written};
use crate::lane::doorbell::Ringer;
use crate::stream::handover::may_yet_answer;
use crate::stream::keeper;
use crate::stream::session::{Backoff, Dialer};
use crate::wire::{CursorGiven, Kind, LaneDone, LaneHello, LaneNamed, LaneOffered, Turned};

/// How often what cannot be fetched or mapped is tried again before the sender does without its lane: for more than a
/// second, by growing pauses.
const CURSORS_MISSED_MAX: u32 = 12;

/// What is to be fetched next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Lane(LaneOffered),
    Cursor(CursorGiven, [u8; 16]),
}

/// What came of it.
enum Fetched {
    Lane(Box<SenderLane>),
    Cursor(Cursor, Ringer),
}

impl Errand {
    fn fetch(self, dialer: &Dialer) -> io::Result<Fetched> {
        match self {
            Self::Lane(offered) => {
                let descriptors = dialer.fetch(LaneHello { lane: offered.lane, ticket: offered.ticket })?;
                SenderLane::new(&offered, descriptors).map(|lane| Fetched::Lane(Box::new(lane)))
            }
            Self::Cursor(given, ticket) => {
                let descriptors = dialer.fetch(LaneHello { lane: given.lane, ticket })?;
                cursor_of(descriptors).map(|(cursor, ringer)| Fetched::Cursor(cursor, ringer))
            }
        }
    }
}

impl State {
    /// Forgotten with its connection, and when the daemon says something else in its place.
    fn errand(&self) -> Option<Errand> {
        let news = &self.sending.lanes;
        let cursor = || news.cursor.and_then(|given| given.ticket.map(|ticket| Errand::Cursor(given, ticket)));
        news.offered.map(Errand::Lane).or_else(cursor)
    }

    fn errand_is_done(&mut self, errand: Errand) {
        match errand {
            Errand::Lane(_) => self.sending.lanes.offered = None,
            Errand::Cursor(..) => self.sending.lanes.cursor = None,
        }
    }
}

impl StreamSender {
    /// Sees to it that what the daemon has announced is fetched.
    pub(super) fn fetch_what_is_announced(&self, state: &mut State) {
        if state.fetching || state.errand().is_none() {
            return;
        }
        let (endpoint, dialer) = (self.me.clone(), self.options.dialer.clone());
        let fetch = move || fetch_all(&endpoint, &dialer);
        // Without a thread it is tried again at the next look.
        state.fetching = std::thread::Builder::new().name("bus-fetch".into()).spawn(fetch).is_ok();
    }

    fn take(&self, state: &mut State, errand: Errand, fetched: Fetched) {
        state.errand_is_done(errand);
        match (errand, fetched) {
            (Errand::Lane(offered), Fetched::Lane(lane)) if state.lane.is_none() => {
                state.mapped = Some(*lane);
                state.sending.say(Kind::Moved, &LaneNamed { lane: offered.lane });
                // It listens for this end from now on, whose user may not call again.
                keeper::wake();
            }
            (Errand::Cursor(given, _), Fetched::Cursor(cursor, ringer)) => {
                let CursorGiven { lane: id, generation, .. } = given;
                let Some(lane) = state.lane_of(id) else { return };
                lane.turn(cursor, Some(ringer), generation);
                // Who waits for room may not know yet that there is some.
                lane.ring_own_bell();
                state.sending.say(Kind::Turned, &Turned { lane: id, generation });
            }
            (Errand::Lane(_) | Errand::Cursor(..), Fetched::Lane(_) | Fetched::Cursor(..)) => {}
        }
        self.write_or_leave(state);
        self.wake_others(state);
    }

    /// It cannot be had: the daemon takes the lane back.
    fn do_without(&self, state: &mut State, errand: Errand, error: &io::Error) {
        state.errand_is_done(errand);
        let (id, messages, what) = match errand {
            Errand::Lane(offered) => (offered.lane, 0, "the lane"),
            Errand::Cursor(given, _) => {
                let Some(lane) = state.lane_of(given.lane) else { return };
                (given.lane, lane.give_up(), "the cursor of its receiver")
            }
        };
        if state.mapped.as_ref().is_some_and(|lane| lane.id() == id) {
            // Nothing was sent there.
            state.mapped = None;
        }
        let fault = Some(format!("{what} cannot be used by its sender: {error}"));
        state.sending.say(Kind::LaneDone, &LaneDone { lane: id, messages, fault });
        self.write_or_leave(state);
    }

    /// Writes what was said; what the socket does not take now is the keeper's.
    pub(super) fn write_or_leave(&self, state: &mut State) {
        if self.write(state) == Written::SocketFull {
            keeper::wake();
        }
    }
}

/// Fetches one after the other, as long as there is something and somebody wants it.
fn fetch_all(endpoint: &Weak<StreamSender>, dialer: &Dialer) {
    let (mut last, mut missed, mut pauses) = (None, 0, Backoff::default());
    loop {
        // Not held while it waits: whoever drops the endpoint leaves the channel at once.
        let errand = {
            let Some(endpoint) = endpoint.upgrade() else { return };
            let mut state = endpoint.state.lock();
            let errand = state.errand();
            state.fetching = errand.is_some();
            errand
        };
        let Some(errand) = errand else { return };
        if last.replace(errand) != Some(errand) {
            (missed, pauses) = (0, Backoff::default());
        }
        let outcome = errand.fetch(dialer);
        let Some(endpoint) = endpoint.upgrade() else { return };
        let mut state = endpoint.state.lock();
        if state.errand() != Some(errand) {
            continue;
        }
        match outcome {
            Ok(fetched) => endpoint.take(&mut state, errand, fetched),
            Err(error) => {
                // A daemon that is stopped may go on at any time, and one that is gone is noticed elsewhere.
                missed += u32::from(!may_yet_answer(&error));
                if missed == CURSORS_MISSED_MAX {
                    endpoint.do_without(&mut state, errand, &error);
                    continue;
                }
                drop(state);
                drop(endpoint);
                std::thread::sleep(pauses.next_delay());
            }
        }
    }
}
