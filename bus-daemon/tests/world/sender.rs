//! [`Sender`]: a sending process, which keeps what is not acknowledged and sends it again.

use std::collections::VecDeque;

use bus_core::wire::{
    Closing, ClosingCode, Flags, FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, LaneWish, Receivers, Refused,
    RefusedCode, Resume, Role, SenderHello, SenderWelcome, Settled, Want, Welcome, WelcomeRole, put_control,
    read_control,
};
use bus_core::{Codec, WhenFull};

use crate::daemon::{Daemon, Frames};
use crate::model::Model;
use crate::options::{Bug, Options};
use crate::rng::Rng;
use crate::wire::{WireId, Wires};

pub(crate) struct Sender {
    pub(crate) channel: usize,
    pub(crate) link: Link,
    rules: Option<SenderWelcome>,
    settled: Settled,
    last_sequence: u64,
    outbox: VecDeque<Kept>,
    /// What this connection is still to be written, frame by frame.
    unwritten: VecDeque<Piece>,
    inbox: Vec<u8>,
    want: Option<(Want, Option<Kind>)>,
    wants: u64,
    /// It was told so many receivers last, if it wants to know.
    receivers: Option<u32>,
    /// Up to here its messages are in the living daemon's hands.
    safe: u64,
    /// What it has written over this connection comes to nothing.
    deleted: bool,
    /// The daemon at the other end of its connection is dead: what it still reads of that is old.
    bereaved: bool,
    /// The frames of this step, for the journal.
    pub(crate) frames: Frames,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Away,
    /// Has said hello.
    Greeting(WireId),
    Up(WireId),
    /// For good.
    Over,
}

struct Kept {
    frame: Vec<u8>,
    /// It was written whole, over this connection or an earlier one.
    written: bool,
    message_bytes: u64,
}

impl Kept {
    fn was_sent_before(&self) -> bool {
        Flags(self.frame[FrameHeader::FLAGS_AT]).has(Flags::REDELIVERED)
    }
}

struct Piece {
    bytes: Vec<u8>,
    written: usize,
    /// Of the message, when it is one.
    sequence: Option<u64>,
}

/// How a call of a world's peer ends.
pub(crate) type Outcome = Result<(), String>;

impl Sender {
    pub(crate) fn new(channel: usize) -> Self {
        Self {
            channel,
            link: Link::Away,
            rules: None,
            settled: Settled::default(),
            last_sequence: 0,
            outbox: VecDeque::new(),
            unwritten: VecDeque::new(),
            inbox: Vec::new(),
            want: None,
            wants: 0,
            receivers: channel.is_multiple_of(2).then_some(0),
            safe: 0,
            deleted: false,
            bereaved: false,
            frames: Frames::new(),
        }
    }

    fn wire(&self) -> Option<WireId> {
        match self.link {
            Link::Greeting(wire) | Link::Up(wire) => Some(wire),
            Link::Away | Link::Over => None,
        }
    }

    fn id(&self) -> Option<u64> {
        self.rules.as_ref().map(|rules| rules.sender)
    }

    /// Its id, if it lives and would go on under it.
    pub(crate) fn id_to_resume(&self) -> Option<u64> {
        self.id().filter(|_| self.link != Link::Over)
    }

    pub(crate) fn connect(&mut self, options: &Options, daemon: &mut Daemon, wires: &mut Wires, now_ms: u64) {
        if self.link != Link::Away {
            return;
        }
        let wire = wires.open();
        daemon.accept(wire, now_ms);
        let next_sequence = self.last_sequence + 1 - self.outbox.len() as u64;
        let resume = self.rules.as_ref().map(|SenderWelcome { sender, token, .. }| Resume {
            sender: *sender,
            token: *token,
            next_sequence,
            last_sequence: self.last_sequence,
        });
        let channel = options.channels[self.channel].name.clone();
        let require_receiver = self.receivers.is_some();
        let hello = SenderHello { channel, declares: None, require_receiver, resume, lane: LaneWish::Never };
        self.unwritten.clear();
        self.inbox.clear();
        // Not with the welcome: the channel may be deleted before that is read.
        (self.deleted, self.bereaved) = (false, false);
        self.put(Kind::Hello, &Hello { name: "sender".to_owned(), pid: 3, role: Role::Sender(hello), clock: 0 });
        self.link = Link::Greeting(wire);
    }

    fn put<T: serde::Serialize>(&mut self, kind: Kind, body: &T) {
        let mut bytes = Vec::new();
        put_control(kind, body, &mut bytes);
        self.unwritten.push_back(Piece { bytes, written: 0, sequence: None });
    }

    /// Writes up to `most` bytes, and returns how many it was.
    pub(crate) fn write(&mut self, most: usize, wires: &mut Wires) -> usize {
        let mut all = 0;
        while let (Some(wire), Some(piece)) = (self.wire(), self.unwritten.front_mut()) {
            let rest = &piece.bytes[piece.written..];
            let asked = rest.len().min(most - all);
            let Ok(taken) = wires.write_up(wire, &rest[..asked]) else { break };
            all += taken;
            piece.written += taken;
            if piece.written < piece.bytes.len() {
                break;
            }
            if let Some(sequence) = piece.sequence {
                self.safe = self.safe.max(sequence);
                if sequence == self.last_sequence
                    && let Some(last) = self.outbox.back_mut()
                {
                    last.written = true;
                }
            }
            self.unwritten.pop_front();
        }
        all
    }

    /// Reads up to `most` bytes, and takes notice.
    pub(crate) fn read(&mut self, most: usize, wires: &mut Wires, model: &mut Model) -> Outcome {
        let Some(wire) = self.wire() else { return Ok(()) };
        match wires.read_down(wire, most) {
            Ok(bytes) => self.inbox.extend(bytes),
            Err(_) => self.lose_link(wires),
        }
        let limits = FrameLimits { message_max_bytes: 0, control_max_bytes: u32::MAX };
        loop {
            let header =
                FrameHeader::decode(&self.inbox, limits).map_err(|error| format!("a sender reads: {error}"))?;
            let Some(header) = header.filter(|header| self.inbox.len() >= header.frame_bytes()) else { return Ok(()) };
            let frame: Vec<u8> = self.inbox.drain(..header.frame_bytes()).collect();
            self.frames.push((header.kind, 0));
            self.notice(header.kind, &frame[HEADER_BYTES..], wires, model)?;
        }
    }

    fn notice(&mut self, kind: Kind, body: &[u8], wires: &mut Wires, model: &mut Model) -> Outcome {
        match kind {
            Kind::Welcome => {
                let Welcome { role: WelcomeRole::Sender(rules), .. } = decode(kind, body)? else {
                    return Err("a sender is welcomed as something else".to_owned());
                };
                self.begin(rules)
            }
            Kind::Refused => {
                let Refused { code, text } = decode(kind, body)?;
                self.lose_link(wires);
                if code == RefusedCode::Limit { Ok(()) } else { Err(format!("an honest sender is refused: {text}")) }
            }
            Kind::Settled => self.settle(decode(kind, body)?),
            Kind::Receivers if self.receivers.is_some() => {
                self.receivers = Some(decode::<Receivers>(kind, body)?.count);
                Ok(())
            }
            Kind::Granted | Kind::Full => {
                let answered: Want = decode(kind, body)?;
                let drops = self.rules.as_ref().is_some_and(|rules| rules.when_full == WhenFull::DropNewest);
                if kind == Kind::Full && drops {
                    model.dropped_unsent(self.channel);
                }
                if let Some((want, answer)) = &mut self.want
                    && want.number == answered.number
                {
                    *answer = Some(kind);
                }
                Ok(())
            }
            Kind::Closing => {
                let Closing { code, text } = decode(kind, body)?;
                self.lose_link(wires);
                match (code, self.id()) {
                    (ClosingCode::Deleted, Some(id)) => {
                        self.link = Link::Over;
                        let again = self.outbox.iter().filter(|kept| kept.was_sent_before()).count() as u64;
                        let first = self.last_sequence + 1 - self.outbox.len() as u64;
                        // What an earlier daemon may have delivered is not refused, whatever this one says.
                        model.lost_after(id, self.settled.accepted);
                        model.refused_after(id, self.settled.accepted.max(first + again - 1))
                    }
                    (ClosingCode::ShuttingDown, _) => Ok(()),
                    _ => Err(format!("an honest sender is closed: {text}")),
                }
            }
            kind => Err(format!("a sender was sent a {kind:?} frame")),
        }
    }

    /// Sends everything again that is not acknowledged.
    fn begin(&mut self, rules: SenderWelcome) -> Outcome {
        let Link::Greeting(wire) = self.link else { return Err("a second welcome".to_owned()) };
        if self.id().is_some_and(|id| id != rules.sender) {
            return Err("a resumed sender has got another id".to_owned());
        }
        self.link = Link::Up(wire);
        let acked = rules.settled.acked.max(self.settled.acked);
        let told = Settled { accepted: rules.settled.accepted.max(acked), acked, dropped: self.settled.dropped };
        // Or it is in an earlier socket, and not lost there.
        if !self.bereaved {
            self.safe = self.safe.max(rules.settled.accepted);
        }
        self.receivers = self.receivers.map(|_| rules.receivers);
        self.rules = Some(rules);
        self.want = None;
        self.settle(told)?;
        let first = self.last_sequence + 1 - self.outbox.len() as u64;
        for (sequence, kept) in (first..).zip(&mut self.outbox) {
            kept.frame[FrameHeader::FLAGS_AT] |= Flags::REDELIVERED;
            self.unwritten.push_back(Piece { bytes: kept.frame.clone(), written: 0, sequence: Some(sequence) });
        }
        Ok(())
    }

    fn settle(&mut self, told: Settled) -> Outcome {
        if told.acked > told.accepted || told.accepted > self.last_sequence || told.acked < self.settled.acked {
            let (settled, last) = (self.settled, self.last_sequence);
            return Err(format!("a sender at {last} that knew {settled:?} is told {told:?}"));
        }
        let count = told.acked - self.settled.acked;
        if count > self.outbox.len() as u64 {
            return Err(format!("{count} messages are acknowledged, and {} were not", self.outbox.len()));
        }
        self.outbox.drain(..count as usize);
        self.settled = told;
        Ok(())
    }

    /// Begins to send a message, if the window, and on an exact channel the daemon, has room for it.
    pub(crate) fn send(&mut self, rng: &mut Rng, options: &Options, model: &mut Model) -> Outcome {
        let (Some(rules), Link::Up(_)) = (&self.rules, self.link) else { return Ok(()) };
        let most = u64::from(rules.message_max_bytes);
        let bytes = match self.want {
            Some((want, _)) => u64::from(want.bytes),
            None if most > 17_000 && rng.chance(2) => rng.between(16_380, 17_000),
            None if rng.chance(5) => rng.between(8, most),
            None => rng.between(8, 40),
        };
        let held = self.outbox.len();
        let over =
            held > 0 && (held >= rules.window_messages as usize || self.outbox_bytes() + bytes > rules.window_bytes);
        if over && options.bug != Some(Bug::SenderIgnoresWindow) {
            return Ok(());
        }
        if rules.exact {
            match self.want {
                None => {
                    self.wants += 1;
                    let wait = rules.when_full == WhenFull::Block && rng.chance(70);
                    let want = Want { number: self.wants, bytes: bytes as u32, wait };
                    self.want = Some((want, None));
                    self.put(Kind::Want, &want);
                    return Ok(());
                }
                Some((want, None)) => {
                    if want.wait && rng.chance(5) {
                        self.put(Kind::Unwant, &want);
                        self.want = None;
                    }
                    return Ok(());
                }
                Some((_, Some(Kind::Granted))) => self.want = None,
                Some((_, Some(_))) => {
                    self.want = None;
                    return Ok(());
                }
            }
        }
        self.push(bytes as usize, rng, options, model);
        self.check_window()
    }

    fn push(&mut self, bytes: usize, rng: &mut Rng, options: &Options, model: &mut Model) {
        let Some(sender) = self.id() else { return };
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let mut value = model.send(self.channel, sender, sequence, bytes);
        if options.bug == Some(Bug::SenderLosesOne) && sequence == 5 {
            // The one before goes again in its place.
            value -= 1;
        }
        let flags = Flags(if rng.chance(10) { Flags::CONFIRM } else { 0 });
        let frame = data(sequence, value, bytes, flags);
        self.outbox.push_back(Kept { frame: frame.clone(), written: false, message_bytes: bytes as u64 });
        self.unwritten.push_back(Piece { bytes: frame, written: 0, sequence: Some(sequence) });
    }

    fn outbox_bytes(&self) -> u64 {
        self.outbox.iter().map(|kept| kept.message_bytes).sum()
    }

    /// The window, as the daemon gave it.
    fn check_window(&self) -> Outcome {
        let (held, bytes) = (self.outbox.len(), self.outbox_bytes());
        match &self.rules {
            Some(rules) if held > 1 && (held > rules.window_messages as usize || bytes > rules.window_bytes) => {
                let (messages, most) = (rules.window_messages, rules.window_bytes);
                Err(format!("window: {held} messages of {bytes} bytes, and it is {messages} and {most}"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn ask_for_confirmation(&mut self) {
        if matches!(self.link, Link::Up(_)) {
            self.put(Kind::Confirm, &());
        }
    }

    fn lose_link(&mut self, wires: &mut Wires) {
        if let Some(wire) = self.wire() {
            wires.close_client(wire);
            self.link = Link::Away;
            self.unwritten.clear();
        }
    }

    /// The connection goes, and the sender lives on.
    pub(crate) fn cut(&mut self, wires: &mut Wires) {
        self.lose_link(wires);
    }

    /// The time of the last message is up before it is written whole: the connection is given up, and
    /// the message was never sent.
    pub(crate) fn give_up(&mut self, wires: &mut Wires, model: &mut Model) -> Outcome {
        let was_written = self.outbox.back().is_none_or(|last| last.written);
        let (false, Link::Up(_), Some(id)) = (was_written, self.link, self.id()) else { return Ok(()) };
        self.lose_link(wires);
        self.outbox.pop_back();
        self.last_sequence -= 1;
        model.give_up(id, self.last_sequence + 1)
    }

    /// The process is killed. What it had written stays in the socket.
    pub(crate) fn crash(&mut self, daemon_lives: bool, wires: &mut Wires, model: &mut Model) {
        if let Some(id) = self.id() {
            let safe = if daemon_lives && !self.deleted { self.safe } else { self.settled.acked };
            model.lost_after(id, safe);
        }
        self.lose_link(wires);
        *self = Self::new(self.channel);
    }

    /// Its channel was deleted: what is in its socket comes to nothing.
    pub(crate) fn channel_deleted(&mut self, channel: usize) {
        self.deleted |= self.channel == channel;
    }

    /// Nothing more is to be sent: room that was granted is given up.
    pub(crate) fn stop_sending(&mut self) {
        if let Some((want, _)) = self.want.take()
            && matches!(self.link, Link::Up(_))
        {
            self.put(Kind::Unwant, &want);
        }
    }

    /// The daemon is dead, and with it what it alone held.
    pub(crate) fn daemon_died(&mut self) {
        self.safe = self.settled.acked;
        self.bereaved = true;
    }

    /// Whether everything is acknowledged, and nothing is on its way.
    pub(crate) fn is_done(&self) -> bool {
        self.link == Link::Over || (self.outbox.is_empty() && self.want.is_none() && matches!(self.link, Link::Up(_)))
    }

    /// What it was told of the receivers, when it is connected and wants to know.
    pub(crate) fn receivers_told(&self) -> Option<u32> {
        self.receivers.filter(|_| matches!(self.link, Link::Up(_)))
    }

    pub(crate) fn leave(&mut self, wires: &mut Wires) {
        if let Link::Up(wire) = self.link {
            let mut bytes = Vec::new();
            put_control(Kind::Goodbye, &(), &mut bytes);
            let _ = wires.write_up_whole(wire, &bytes);
        }
        self.lose_link(wires);
        self.link = Link::Over;
    }

    pub(crate) fn describe(&self) -> String {
        let Self { channel, link, settled, last_sequence, unwritten, want, .. } = self;
        let unwritten = unwritten.len();
        format!(
            "sender on channel {channel}, {link:?}, sent {last_sequence}, {settled:?}, {unwritten} unwritten, {want:?}"
        )
    }
}

/// A message of `bytes` bytes that tells its value, and can be seen to be whole.
pub(crate) fn data(sequence: u64, value: u64, bytes: usize, flags: Flags) -> Vec<u8> {
    let header = FrameHeader {
        kind: Kind::Data,
        flags,
        codec: Codec::Raw,
        sequence,
        sent_at_ns: 0,
        body_bytes: bytes as u32,
        header_block_bytes: 0,
    };
    let mut frame = header.encode().to_vec();
    frame.extend_from_slice(&value.to_le_bytes());
    frame.resize(HEADER_BYTES + bytes, value as u8);
    frame
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, String> {
    read_control(kind, body).map_err(|error| error.to_string())
}
