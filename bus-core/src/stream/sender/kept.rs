//! A sender in the keeper's care.

use std::sync::Arc;

use super::mapped::SenderLane;
use super::{Link, StreamSender, hello};
use crate::address::Address;
use crate::obstacle::Closed;
use crate::stream::keeper::{Kept, Reattached, Standing, Tended};
use crate::stream::session::{DialError, Session, is_final};
use crate::wire::{Kind, LaneNamed, LaneWish, Refused, RefusedCode, Role, WelcomeRole};

impl Kept for StreamSender {
    fn address(&self) -> &Address {
        &self.options.dialer.address
    }

    fn standing(&self) -> Standing {
        let state = self.state.lock();
        match &state.link {
            Link::Up(connection) => {
                let wants_room = state.sending.has_output_of_its_own();
                // What the daemon says of lanes is not for later: somebody else waits for it.
                let wants_news = state.lane.is_some() || state.mapped.is_some();
                Standing::Up { connection: Arc::clone(connection), wants_room, wants_news }
            }
            Link::Away => Standing::Away,
            Link::Closed => Standing::Over,
        }
    }

    fn room(&self) {
        let mut state = self.state.lock();
        self.write(&mut state);
        self.wake_others(&state);
    }

    fn news(&self) -> bool {
        let state = self.state.lock();
        let free = !state.reading;
        if free {
            let state = self.look_around(state);
            self.wake_others(&state);
        }
        free
    }

    fn tend(&self) -> Tended {
        Tended::Nothing
    }

    fn hung_up(&self) -> bool {
        let mut state = self.state.lock();
        // A thread that is reading wakes by the same hang-up.
        if state.reading {
            return false;
        }
        self.pump(&mut state);
        true
    }

    fn reattach(&self) -> Reattached {
        let (resume, had_lane) = {
            let mut state = self.state.lock();
            self.settle_stream(&mut state);
            (state.sending.resume(), state.lane.as_ref().map(SenderLane::id))
        };
        let wish = had_lane.map_or(self.options.lane, LaneWish::Has);
        let role = Role::Sender(hello(&self.options, Some(resume), wish));
        let session = match self.options.dialer.dial(&role) {
            Ok(session) => session,
            Err(DialError::Refused(Refused { code: RefusedCode::LaneUnknown, .. })) => return self.bring_or_fold(),
            Err(DialError::Refused(refused)) if is_final(refused.code) => {
                let mut state = self.state.lock();
                state.link = Link::Closed;
                state.sending.close(Closed::Refused(refused.text));
                state.closing.close();
                self.wake_others(&state);
                return Reattached::Done;
            }
            Err(DialError::Refused(_)) => return Reattached::NotNow,
            Err(DialError::Unreachable(_) | DialError::Protocol(_)) => return Reattached::NobodyThere,
        };
        let Session { connection, inbox, welcome } = session;
        let WelcomeRole::Sender(rules) = welcome.role else { return Reattached::NotNow };
        let mut state = self.state.lock();
        if state.lane.as_ref().map(SenderLane::id) != had_lane {
            return Reattached::NotNow;
        }
        state.link = Link::Up(Arc::new(connection));
        state.inbox = inbox;
        if state.sending.resumed(rules).is_err() || self.take_notice(&mut state).is_err() {
            self.lose_link(&mut state);
            return Reattached::NotNow;
        }
        if let Some(lane) = had_lane {
            state.sending.say(Kind::Moved, &LaneNamed { lane });
        }
        self.write(&mut state);
        let state = self.look_around(state);
        self.wake_others(&state);
        Reattached::Done
    }
}

impl StreamSender {
    /// The daemon does not know the lane: it is brought there; where that cannot be, what is in it goes by the
    /// stream.
    fn bring_or_fold(&self) -> Reattached {
        match self.bring_lane() {
            // It knows it now.
            Ok(()) => {}
            Err(DialError::Unreachable(_)) => return Reattached::NobodyThere,
            Err(DialError::Refused(Refused { code: RefusedCode::ShuttingDown, .. })) => {}
            Err(DialError::Refused(_) | DialError::Protocol(_)) => {
                let mut state = self.state.lock();
                self.fold_lane(&mut state);
                self.wake_others(&state);
            }
        }
        Reattached::NotNow
    }
}
