//! A connection for one question or order.

use std::time::{Duration, Instant};

use crate::channel::ChannelInfo;
use crate::error::{AdminError, ConnectError};
use crate::limits::HELLO_TIMEOUT_MS;
use crate::message::{Message, MessageInfo};
use crate::name::ChannelName;
use crate::stream::session::{Asking, Dialer};
use crate::wire::{
    Flags, FrameHeader, FrameLimits, HEADER_BYTES, Kind, ORIGIN_BYTES, Origin, RefusedCode, Reply, Request, Role,
    decode_headers, read_control,
};

pub(crate) struct ControlConnection {
    asking: Asking,
    dialer: Dialer,
    /// The run of the daemon that answers.
    daemon: u64,
}

impl ControlConnection {
    pub(crate) fn open(dialer: &Dialer) -> Result<Self, ConnectError> {
        let session = dialer.dial_or_start(&Role::Control)?;
        let daemon = session.welcome.daemon;
        Ok(Self { asking: Asking::new(session), dialer: dialer.clone(), daemon })
    }

    /// Which run of the daemon answers.
    pub(crate) fn daemon(&self) -> u64 {
        self.daemon
    }

    /// Asks, and gives the answer with the copies of messages that came before it.
    pub(crate) fn ask(mut self, request: &Request) -> Result<(Vec<Message>, Reply), AdminError> {
        let deadline = Instant::now() + Duration::from_millis(HELLO_TIMEOUT_MS);
        let mut messages = Vec::new();
        let answer = self.asking.ask(request, deadline, |kind, frame| {
            if kind == Kind::Deliver {
                messages.extend(message(frame));
            }
        });
        let body = answer.map_err(|error| self.dialer.connect_error(error))?;
        let reply = read_control(Kind::Reply, &body).map_err(|error| ConnectError::Protocol {
            address: self.dialer.address.clone(),
            text: error.to_string(),
        })?;
        Ok((messages, reply))
    }

    /// Everything about one channel.
    pub(crate) fn show(self, channel: &ChannelName) -> Result<ChannelInfo, AdminError> {
        match self.ask(&Request::Show(channel.clone()))?.1 {
            Reply::Channel(info) => Ok(*info),
            other => Err(unexpected(&other)),
        }
    }
}

/// A refusal, or an answer to another question.
pub(crate) fn unexpected(reply: &Reply) -> AdminError {
    match reply {
        Reply::Refused(refused) => AdminError::from_refusal(refused.code, refused.text.clone()),
        other => AdminError::Refused { text: format!("the daemon gave an answer to another question: {other:?}") },
    }
}

fn message(frame: &[u8]) -> Option<Message> {
    let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: 0 };
    let header = FrameHeader::decode(frame, limits).ok()??;
    let origin = Origin::decode(frame[HEADER_BYTES..].first_chunk()?);
    let (block, payload) = frame[HEADER_BYTES + ORIGIN_BYTES..].split_at_checked(header.header_block_bytes as usize)?;
    let info = MessageInfo::from_wire(
        origin.sender,
        origin.pid,
        header.sequence,
        header.sent_at_ns,
        origin.attempt,
        header.flags.has(Flags::REDELIVERED),
        header.codec,
    );
    Some(Message { info, headers: decode_headers(block).unwrap_or_default(), payload: payload.to_vec() })
}

impl AdminError {
    pub(crate) fn from_refusal(code: RefusedCode, text: String) -> Self {
        match code {
            RefusedCode::NoSuchChannel => Self::NoSuchChannel { text },
            RefusedCode::Denied => Self::Denied { text },
            RefusedCode::ReceiverTaken => Self::ReceiverTaken { text },
            _ => Self::Refused { text },
        }
    }
}
