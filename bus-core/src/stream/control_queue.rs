//! [`ControlQueue`]: control frames on their way to the daemon.

use serde::Serialize;

use crate::wire::{Kind, put_control};

/// Control frames that the socket has not taken yet, one behind the other. Short at all times: an
/// endpoint has few things to say, and says each once.
#[derive(Debug, Default)]
pub struct ControlQueue {
    bytes: Vec<u8>,
    written: usize,
}

impl ControlQueue {
    /// Says one more thing.
    pub fn push<T: Serialize>(&mut self, kind: Kind, body: &T) {
        put_control(kind, body, &mut self.bytes);
    }

    /// Whether the socket has taken everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a frame may be in the socket in part: nothing else may go before the rest of it.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.written > 0
    }

    /// What the socket has not taken.
    #[must_use]
    pub fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// The socket has taken `bytes` of what [`unwritten`](Self::unwritten) gave.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.bytes.len() {
            self.clear();
        }
    }

    /// Forgets everything: the connection is gone.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_socket_took_in_part_goes_on_where_it_stopped() {
        let mut queue = ControlQueue::default();
        queue.push(Kind::Confirm, &());
        let whole = queue.unwritten().to_vec();
        queue.wrote(10);
        assert!(queue.has_begun());
        assert_eq!(queue.unwritten(), &whole[10..]);
        queue.wrote(whole.len() - 10);
        assert!(queue.is_empty() && !queue.has_begun());
    }
}
