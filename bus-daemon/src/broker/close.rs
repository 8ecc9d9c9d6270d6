//! Peers that are refused or closed: what they are told, and the order to close them.

use std::time::Duration;

use bus_core::wire::{Closing, ClosingCode, FrameError, Refused, RefusedCode};

use super::peer::{PeerId, PeerRole};
use super::{Action, Broker, Ending, Fault, Note, millis};
use bus_core::wire::Kind;

impl Broker {
    /// A frame of this peer was malformed: it is told, and closed.
    pub fn malformed(&mut self, now: Duration, id: PeerId, error: &FrameError) {
        self.now_ms = millis(now);
        let code = match error {
            FrameError::Protocol { .. } => RefusedCode::Version,
            _ => RefusedCode::Protocol,
        };
        self.end_faulty(id, code, error.to_string());
    }

    pub(super) fn fault(&mut self, id: PeerId, Fault(text): Fault) {
        self.end_faulty(id, RefusedCode::Protocol, text);
    }

    fn end_faulty(&mut self, id: PeerId, code: RefusedCode, text: String) {
        match self.peer(id).map(|peer| peer.role) {
            Some(PeerRole::Greeting { .. }) => self.refuse(id, code, text),
            Some(_) => self.close(id, ClosingCode::Fault, text),
            None => {}
        }
    }

    pub(super) fn refuse(&mut self, id: PeerId, code: RefusedCode, text: String) {
        if self.peer(id).is_some_and(|peer| !peer.closing) {
            self.put(id, Kind::Refused, &Refused { code, text: text.clone() });
        }
        let ending = match code {
            RefusedCode::Version | RefusedCode::Protocol | RefusedCode::Denied | RefusedCode::Limit => Ending::Fault,
            // It has come at the wrong time, or to the wrong place.
            _ => Ending::Order,
        };
        self.end(id, ending, text);
    }

    pub(super) fn close(&mut self, id: PeerId, code: ClosingCode, text: String) {
        if self.peer(id).is_some_and(|peer| !peer.closing) {
            self.put(id, Kind::Closing, &Closing { code, text: text.clone() });
        }
        let ending = if code == ClosingCode::Fault { Ending::Fault } else { Ending::Order };
        self.end(id, ending, text);
    }

    /// Nothing that the peer says counts any more, and it is closed. Also when it has taken its leave
    /// already: whoever goes on to talk may have hung up unnoticed.
    pub(super) fn end_peer(&mut self, id: PeerId, text: String) {
        self.end(id, Ending::Order, text);
    }

    /// The same, of a peer that is not told why, and whose fault it is.
    pub(super) fn end_at_fault(&mut self, id: PeerId, text: String) {
        self.end(id, Ending::Fault, text);
    }

    fn end(&mut self, id: PeerId, ending: Ending, text: String) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.closing = true;
        if !std::mem::replace(&mut peer.close_ordered, true) {
            self.note(Note::Ending { who: self.who(id), ending, reason: text.clone() });
            self.actions.push_back(Action::Close(id, text));
        }
    }

    /// Tells every peer that the daemon ends.
    pub fn close_all(&mut self) {
        // What is settled need not be sent to the next daemon.
        self.tell_all();
        let text = "the daemon is ending".to_owned();
        let ids: Vec<PeerId> = self.peer_ids().collect();
        for id in ids {
            self.close(id, ClosingCode::ShuttingDown, text.clone());
        }
    }

    pub(super) fn time_out_greetings(&mut self) {
        let limit = self.rules.hello_timeout_ms;
        let late: Vec<PeerId> = self
            .peer_ids()
            .filter(|id| {
                self.peer(*id).is_some_and(|peer| match peer.role {
                    PeerRole::Greeting { since_ms } => !peer.closing && since_ms + limit <= self.now_ms,
                    _ => false,
                })
            })
            .collect();
        for id in late {
            let text = format!("no hello came within {limit} ms of connecting (hello_timeout)");
            // Not for good: a client that was stopped meanwhile may try again.
            self.refuse(id, RefusedCode::Limit, text);
        }
    }
}
