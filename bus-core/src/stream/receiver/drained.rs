//! Whether a channel has come to its end for now.

use super::StreamReceiver;
use crate::admin::ControlConnection;
use crate::channel::ChannelInfo;
use crate::error::AdminError;

impl StreamReceiver {
    /// Whether nothing is here and nothing is at the daemon, nor with anybody who is to bring it there.
    ///
    /// What the daemon says counts when it had heard of this receiver before: a new one learns from its receivers
    /// which senders to wait for.
    pub(crate) fn is_drained(&self) -> Result<bool, AdminError> {
        let Some(daemon) = self.rests_at() else { return Ok(false) };
        let control = ControlConnection::open(&self.options.dialer)?;
        if control.daemon() != daemon {
            return Ok(false);
        }
        match control.show(&self.options.channel) {
            Ok(info) => Ok(info.ledger.queued + info.ledger.in_delivery == 0 && info.awaited == 0),
            Err(error @ AdminError::Connect(_)) => Err(error),
            // Deleted, say. The next call tells of it.
            Err(_) => Ok(false),
        }
    }

    /// How its channel stands, by the daemon's word.
    pub(crate) fn stats(&self) -> Result<ChannelInfo, AdminError> {
        ControlConnection::open(&self.options.dialer)?.show(&self.options.channel)
    }

    /// The run of the daemon that it is connected to, if it holds the channel and nothing is here.
    fn rests_at(&self) -> Option<u64> {
        if self.len() > 0 || !self.is_seated() {
            return None;
        }
        let mut state = self.state.lock();
        if state.connection.is_some() {
            // What is acknowledged counts as in delivery until that is told.
            self.tell(&mut state, true);
        }
        (state.connection.is_some() && state.lent() == 0).then_some(state.daemon)
    }
}
