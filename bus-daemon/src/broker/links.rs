//! Orders about gateways: who may give them, and how the broker parts with the ends of a gateway.
//!
//! A gateway is an ordinary sender or receiver. Only its making and its end are done elsewhere.

use bus_core::wire::{ClosingCode, Kind, Refused, RefusedCode, Reply};

use super::peer::{PeerId, PeerRole};
use super::{Action, Broker, LinkOrder};

impl Broker {
    /// A gateway runs as the daemon's own user: nobody else may have one made, or ended.
    pub(super) fn order_link(&mut self, id: PeerId, order: LinkOrder) {
        let uid = self.peer(id).map_or(u32::MAX, |peer| peer.credentials.uid);
        // The daemon's own user is the first of them.
        let own_uid = self.rules.allowed_uids.first().copied();
        let denied = order != LinkOrder::List && uid != 0 && Some(uid) != own_uid;
        if denied {
            let own_uid = own_uid.unwrap_or_default();
            let text = format!(
                "user {uid} may not link pipes or commands, which run as user {own_uid} of the daemon: ask that user, or use `bus publish` and `bus consume`"
            );
            return self.answer(id, &Reply::Refused(Refused { code: RefusedCode::Denied, text }));
        }
        if self.shutting_down && matches!(order, LinkOrder::Link(_)) {
            let text = "the daemon is ending: link again when the next one serves".to_owned();
            return self.answer(id, &Reply::Refused(Refused { code: RefusedCode::ShuttingDown, text }));
        }
        self.actions.push_back(Action::Link(id, order));
    }

    /// Answers the order of an [`Action::Link`]; nobody hears it when the peer is gone.
    pub fn answer(&mut self, id: PeerId, reply: &Reply) {
        self.put(id, Kind::Reply, reply);
    }

    /// Tells the gateway whose end is closed: it may wait for its pipe, and look at the bus much later.
    pub(super) fn tell_gateway(&mut self, end: PeerId, why: &str) {
        let Some(peer) = self.peer(end).filter(|peer| peer.credentials.pid == self.rules.pid) else { return };
        let order = LinkOrder::Parted { name: peer.name.clone(), why: why.to_owned() };
        self.actions.push_back(Action::Link(end, order));
    }

    /// Parts with the ends that a process named so: they are told that they have ended for good, and need not
    /// wait for anything any more. What a receiver had not acknowledged goes to the next one.
    pub fn part_with(&mut self, pid: u32, name_prefix: &str) {
        let is_meant = |peer: &PeerId| {
            let peer = self.peer(*peer).filter(|peer| !peer.closing);
            peer.is_some_and(|peer| peer.credentials.pid == pid && peer.name.starts_with(name_prefix))
        };
        let ids: Vec<PeerId> = self.peer_ids().filter(is_meant).collect();
        let text = "its gateway has ended".to_owned();
        for id in ids {
            match self.peer(id).map(|peer| peer.role) {
                Some(PeerRole::Sender { channel, account, .. }) => {
                    // It learns what was accepted: the rest comes back to it.
                    let settled = self.channel(channel).account(account).settled();
                    self.put(id, Kind::Settled, &settled);
                    self.close(id, ClosingCode::Deleted, text.clone());
                }
                Some(PeerRole::Receiver { channel, .. }) => {
                    if self.channel(channel).seat.as_ref().is_some_and(|seat| seat.peer == id) {
                        // It may have something to acknowledge yet.
                        self.dismiss_within(GATEWAY_PATIENCE_MS, channel, ClosingCode::Kicked, &text);
                    } else {
                        self.close(id, ClosingCode::Kicked, text.clone());
                    }
                }
                Some(
                    PeerRole::FormerSender { .. }
                    | PeerRole::Greeting { .. }
                    | PeerRole::Early
                    | PeerRole::Bringing
                    | PeerRole::Control,
                )
                | None => {}
            }
        }
    }
}

/// Longer than a gateway that is to end waits for what is being read.
const GATEWAY_PATIENCE_MS: u64 = 2_500;
