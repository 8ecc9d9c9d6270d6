//! [`KnownSenders`]: the highest sequence that was acknowledged, for each sender.

use std::collections::HashMap;

use crate::limits::DEPARTED_SENDERS_MAX;
use crate::wire::{KnownSender, Origin};

#[derive(Debug, Default)]
pub(super) struct KnownSenders {
    /// The sender of the last message, because most come in runs. Not in `others`.
    last: Option<KnownSender>,
    others: HashMap<u64, KnownSender>,
}

impl KnownSenders {
    /// The highest sequence of a sender; 0 when it is not known.
    pub(super) fn sequence(&self, sender: u64) -> u64 {
        match &self.last {
            Some(last) if last.sender == sender => last.sequence,
            _ => self.others.get(&sender).map_or(0, |known| known.sequence),
        }
    }

    pub(super) fn note(&mut self, origin: Origin, sequence: u64) {
        if let Some(last) = self.last.as_mut().filter(|last| last.sender == origin.sender) {
            last.sequence = last.sequence.max(sequence);
            return;
        }
        let sequence = sequence.max(self.sequence(origin.sender));
        self.others.remove(&origin.sender);
        if let Some(earlier) = self.last.take() {
            if self.others.len() >= DEPARTED_SENDERS_MAX - 1 {
                // Any will do: this many senders do not come back all at once.
                let any = self.others.keys().next().copied();
                any.and_then(|sender| self.others.remove(&sender));
            }
            self.others.insert(earlier.sender, earlier);
        }
        let Origin { sender, pid, .. } = origin;
        self.last = Some(KnownSender { sender, pid, sequence });
    }

    pub(super) fn all(&self) -> Vec<KnownSender> {
        self.last.iter().chain(self.others.values()).copied().collect()
    }
}
