//! Tickets: descriptors that wait to be fetched by the user that they are for, until they are in use: an answer may be
//! lost, or come too late for whoever asked.

use bus_core::wire::{LaneHello, LaneId, RefusedCode};

use super::{LaneAction, LanePart};
use crate::broker::peer::{PeerId, PeerRole};
use crate::broker::{Action, Broker, Refusal};

/// What waits to be fetched.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Ticket {
    key: [u8; 16],
    lane: LaneId,
    part: LanePart,
    uid: u32,
}

impl Broker {
    /// Somebody fetches what a ticket stands for.
    pub(in crate::broker) fn fetch_lane(&mut self, id: PeerId, hello: LaneHello) -> Result<(), Refusal> {
        let uid = self.peer(id).map_or(0, |peer| peer.credentials.uid);
        let fits = |ticket: &Ticket| ticket.key == hello.ticket && ticket.lane == hello.lane && ticket.uid == uid;
        let Some(Ticket { lane, part, .. }) = self.tickets.iter().copied().find(fits) else {
            let text = format!("no descriptors of lane {} wait for this ticket", hello.lane.0);
            // Mostly it has come too late: what it was to have is another's, or gone.
            return Err(Refusal::new(RefusedCode::LaneUnknown, text));
        };
        if let Some(peer) = self.peer_mut(id) {
            peer.role = PeerRole::Control;
        }
        self.actions.push_back(Action::Lane(LaneAction::HandOver(id, lane, part)));
        Ok(())
    }

    /// Something waits to be fetched, by the user of `holder`. What waited for the same end of the lane does not any
    /// more: so there are three tickets for each lane at most.
    pub(super) fn ticket(&mut self, lane: LaneId, part: LanePart, holder: PeerId) -> [u8; 16] {
        let uid = self.peer(holder).map_or(0, |peer| peer.credentials.uid);
        let key = self.next_ticket(lane.0);
        match part {
            LanePart::ForSender => self.forget_data_tickets(lane),
            LanePart::ForReceiver(_) => self.forget_receiver_tickets(lane),
            LanePart::Cursor(_) | LanePart::StandIn => self.forget_cursor_tickets(lane),
        }
        self.tickets.push(Ticket { key, lane, part, uid });
        key
    }

    /// What was kept for a receiver that goes nobody else is to have.
    pub(super) fn forget_tickets_to(&mut self, id: PeerId) {
        self.tickets.retain(|ticket| match ticket.part {
            LanePart::ForReceiver(receiver) | LanePart::Cursor(receiver) => receiver != id,
            LanePart::ForSender | LanePart::StandIn => true,
        });
    }

    /// What its sender was to have, it has.
    pub(super) fn forget_data_tickets(&mut self, lane: LaneId) {
        self.tickets.retain(|ticket| ticket.lane != lane || ticket.part != LanePart::ForSender);
    }

    /// What its receiver was to have, it has.
    pub(super) fn forget_receiver_tickets(&mut self, lane: LaneId) {
        self.tickets.retain(|ticket| ticket.lane != lane || !matches!(ticket.part, LanePart::ForReceiver(_)));
    }

    /// Another cursor is made: what was kept of the last one is nothing for whoever honoured it.
    pub(super) fn forget_cursor_tickets(&mut self, lane: LaneId) {
        self.tickets
            .retain(|ticket| ticket.lane != lane || !matches!(ticket.part, LanePart::Cursor(_) | LanePart::StandIn));
    }

    /// A lane is free again.
    pub(super) fn forget_tickets_of(&mut self, lane: LaneId) {
        self.tickets.retain(|ticket| ticket.lane != lane);
    }
}
