//! [`Receiver`]: a receiving process. It claims before it hands out, gives back what it does not
//! acknowledge, and brings what it knows to the next daemon.

use std::collections::{BTreeMap, VecDeque};

use bus_core::wire::{
    Closing, ClosingCode, Flags, FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, KnownSender, ORIGIN_BYTES,
    Origin, Progress, ReceiverHello, Refused, RefusedCode, Returning, Role, Welcome, WelcomeRole, put_control,
};

use crate::daemon::{Daemon, Frames};
use crate::model::{HandedOut, Model};
use crate::options::{Bug, Options};
use crate::sender::{Link, Outcome, decode};
use crate::wire::{WireId, Wires};

pub(crate) struct Receiver {
    /// Never used again by another process.
    pub(crate) number: usize,
    pub(crate) channel: usize,
    pub(crate) link: Link,
    standby: bool,
    until_disconnected: bool,
    /// Half a frame.
    begun: Vec<u8>,
    inbox: VecDeque<Frame>,
    orphans: VecDeque<Frame>,
    progress: Progress,
    lent: bool,
    /// How often the head was given back.
    given_back: u32,
    known: BTreeMap<u64, KnownSender>,
    seated: bool,
    sender_seen: bool,
    has_connected: bool,
    ended: Option<Ended>,
    /// The frames of this step, for the journal.
    pub(crate) frames: Frames,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Disconnected,
    ByOrder,
}

#[derive(Clone)]
struct Frame {
    header: FrameHeader,
    body: Vec<u8>,
}

impl Frame {
    fn origin(&self) -> Origin {
        self.body.first_chunk::<ORIGIN_BYTES>().map(Origin::decode).expect("a delivery has an origin")
    }

    fn is_delivery(&self) -> bool {
        self.header.kind == Kind::Deliver
    }
}

/// How a receiver is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) standby: bool,
    pub(crate) until_disconnected: bool,
}

impl Receiver {
    pub(crate) fn new(number: usize, channel: usize, manner: Manner) -> Self {
        Self {
            number,
            channel,
            link: Link::Away,
            standby: manner.standby,
            until_disconnected: manner.until_disconnected,
            begun: Vec::new(),
            inbox: VecDeque::new(),
            orphans: VecDeque::new(),
            progress: Progress::default(),
            lent: false,
            given_back: 0,
            known: BTreeMap::new(),
            seated: false,
            sender_seen: false,
            has_connected: false,
            ended: None,
            frames: Frames::new(),
        }
    }

    fn wire(&self) -> Option<WireId> {
        match self.link {
            Link::Greeting(wire) | Link::Up(wire) => Some(wire),
            Link::Away | Link::Over => None,
        }
    }

    pub(crate) fn connect(&mut self, options: &Options, daemon: &mut Daemon, wires: &mut Wires, now_ms: u64) {
        if self.link != Link::Away {
            return;
        }
        let wire = wires.open();
        daemon.accept(wire, now_ms);
        let returning = self.has_connected.then(|| self.returning());
        let hello = ReceiverHello {
            channel: options.channels[self.channel].name.clone(),
            declares: None,
            standby: self.standby,
            until_disconnected: self.until_disconnected,
            returning,
        };
        self.begun.clear();
        self.progress = Progress::default();
        self.link = Link::Greeting(wire);
        self.say(Kind::Hello, &Hello { name: "receiver".to_owned(), pid: 4, role: Role::Receiver(hello) }, wires);
    }

    fn returning(&self) -> Returning {
        Returning {
            senders: self.known.values().copied().collect(),
            sender_seen: self.sender_seen,
            seated: self.seated,
        }
    }

    /// Says something that the socket takes whole.
    fn say<T: serde::Serialize>(&mut self, kind: Kind, body: &T, wires: &mut Wires) {
        let Some(wire) = self.wire() else { return };
        let mut bytes = Vec::new();
        put_control(kind, body, &mut bytes);
        if wires.write_up_whole(wire, &bytes).is_err() {
            self.lose_link(wires);
        }
    }

    fn tell(&mut self, wires: &mut Wires) {
        self.say(Kind::Progress, &self.progress.clone(), wires);
    }

    /// Reads up to `most` bytes into the inbox.
    pub(crate) fn read(&mut self, most: usize, wires: &mut Wires) -> Outcome {
        let Some(wire) = self.wire() else { return Ok(()) };
        match wires.read_down(wire, most) {
            Ok(bytes) => self.fill(bytes),
            Err(_) => {
                self.lose_link(wires);
                Ok(())
            }
        }
    }

    fn fill(&mut self, bytes: Vec<u8>) -> Outcome {
        self.begun.extend(bytes);
        let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: u32::MAX };
        let mut at = 0;
        while let Some(header) =
            FrameHeader::decode(&self.begun[at..], limits).map_err(|error| format!("I1: a receiver reads: {error}"))?
        {
            let Some(frame) = self.begun[at..].get(..header.frame_bytes()) else { break };
            self.frames.push((header.kind, header.sequence));
            self.inbox.push_back(Frame { header, body: frame[HEADER_BYTES..].to_vec() });
            at += header.frame_bytes();
        }
        self.begun.drain(..at);
        Ok(())
    }

    /// Takes the next message into its hands, if there is one: claims it first, of several here as
    /// many as `claims`.
    pub(crate) fn take(&mut self, claims: u64, wires: &mut Wires, model: &mut Model, bug: Option<Bug>) -> Outcome {
        if self.lent {
            return Ok(());
        }
        self.look_for_orders(wires)?;
        if bug == Some(Bug::ReceiverSwapsTwo) && self.orphans.is_empty() && self.number.is_multiple_of(2) {
            self.swap_two();
        }
        loop {
            let is_orphan = !self.orphans.is_empty();
            let Some(head) = self.head(wires)? else { break };
            let origin = head.origin();
            if self.known.get(&origin.sender).is_some_and(|known| known.sequence >= head.header.sequence) {
                self.settle_head();
                self.tell(wires);
                continue;
            }
            if !is_orphan && self.progress.taken == self.progress.acked {
                let ready = self.inbox.iter().filter(|frame| frame.is_delivery()).count() as u64;
                self.progress.taken = self.progress.acked + ready.clamp(1, claims);
                self.tell(wires);
                if self.wire().is_none() {
                    // The daemon was not told: the head is an orphan now, or gone.
                    return Ok(());
                }
            }
            self.lent = true;
            let handed_out = self.handed_out(&head, bug);
            self.frames.push((Kind::Deliver, handed_out.sequence));
            if bug == Some(Bug::ReceiverLosesOne) && handed_out.sequence == 3 {
                return Ok(());
            }
            return model.hand_out(handed_out).and_then(|()| {
                if bug == Some(Bug::ReceiverRepeatsOne) && handed_out.sequence == 3 {
                    model.hand_out(handed_out)
                } else {
                    Ok(())
                }
            });
        }
        if self.ended.is_some() {
            self.lose_link(wires);
        }
        Ok(())
    }

    fn handed_out(&self, head: &Frame, bug: Option<Bug>) -> HandedOut {
        let Origin { sender, attempt, .. } = head.origin();
        let payload = &head.body[ORIGIN_BYTES..];
        let (value, filling) = payload.split_first_chunk::<8>().expect("messages of the world have 8 bytes and more");
        let mut value = u64::from_le_bytes(*value);
        if bug == Some(Bug::ReceiverChangesOne) && head.header.sequence == 3 {
            value ^= 1;
        }
        let attempt = attempt + self.given_back;
        let torn = filling.iter().any(|byte| *byte != value as u8);
        HandedOut {
            receiver: self.number,
            channel: self.channel,
            sender,
            sequence: head.header.sequence,
            value,
            bytes: if torn { usize::MAX } else { payload.len() },
            attempt,
            redelivered: attempt > 1 || head.header.flags.has(Flags::REDELIVERED),
            given_back: self.given_back > 0,
        }
    }

    fn swap_two(&mut self) {
        let all_deliveries = self.inbox.iter().take(2).filter(|frame| frame.is_delivery()).count() == 2;
        if all_deliveries && self.inbox[0].origin().sender == self.inbox[1].origin().sender {
            self.inbox.swap(0, 1);
        }
    }

    /// The next message, after taking notice of everything before it.
    fn head(&mut self, wires: &mut Wires) -> Result<Option<Frame>, String> {
        if let Some(frame) = self.orphans.front() {
            return Ok(Some(frame.clone()));
        }
        while let Some(frame) = self.inbox.front().cloned() {
            if frame.is_delivery() {
                self.sender_seen = true;
                return Ok(Some(frame));
            }
            self.inbox.pop_front();
            self.notice(&frame, wires)?;
        }
        Ok(None)
    }

    fn notice(&mut self, frame: &Frame, wires: &mut Wires) -> Outcome {
        let kind = frame.header.kind;
        match kind {
            Kind::Welcome => {
                let Welcome { role: WelcomeRole::Receiver(welcome), .. } = decode(kind, &frame.body)? else {
                    return Err("a receiver is welcomed as something else".to_owned());
                };
                let Link::Greeting(wire) = self.link else { return Err("a second welcome".to_owned()) };
                self.link = Link::Up(wire);
                self.seated = welcome.place_in_line == 0;
                self.has_connected = true;
            }
            Kind::Refused => {
                let Refused { code, text } = decode(kind, &frame.body)?;
                self.lose_link(wires);
                match code {
                    RefusedCode::Limit => {}
                    RefusedCode::ReceiverTaken => self.link = Link::Over,
                    _ => return Err(format!("an honest receiver is refused: {text}")),
                }
            }
            Kind::Seated => self.seated = true,
            Kind::Ended => {
                if !self.until_disconnected {
                    return Err("a receiver is ended that did not wish it".to_owned());
                }
                self.ended = Some(Ended::Disconnected);
            }
            Kind::Recall => {
                self.say(Kind::Recalled, &self.progress.clone(), wires);
                self.progress.head_given_back = 0;
            }
            Kind::Closing => {
                let Closing { code, text } = decode(kind, &frame.body)?;
                match code {
                    ClosingCode::ShuttingDown => self.lose_link(wires),
                    ClosingCode::Deleted | ClosingCode::Kicked => self.ended = Some(Ended::ByOrder),
                    _ => return Err(format!("an honest receiver is closed: {text}")),
                }
            }
            kind => return Err(format!("a receiver was sent a {kind:?} frame")),
        }
        Ok(())
    }

    /// An order that stands behind messages which are not claimed is obeyed first: those go back.
    fn look_for_orders(&mut self, wires: &mut Wires) -> Outcome {
        let claims = self.progress.taken > self.progress.acked;
        if claims || !self.orphans.is_empty() {
            return Ok(());
        }
        let is_order = |frame: &Frame| matches!(frame.header.kind, Kind::Recall | Kind::Closing);
        while let Some(last) = self.inbox.iter().position(is_order) {
            for _ in 0..=last {
                let Some(frame) = self.inbox.pop_front() else { return Ok(()) };
                if frame.is_delivery() {
                    self.given_back = 0;
                } else {
                    self.notice(&frame, wires)?;
                }
            }
        }
        Ok(())
    }

    /// The message in its hands is done with.
    pub(crate) fn acknowledge(&mut self, wires: &mut Wires) {
        if std::mem::take(&mut self.lent) {
            self.frames.push((Kind::Progress, self.progress.acked + 1));
            self.settle_head();
            self.tell(wires);
        }
    }

    /// The message in its hands was not done with: it stays at the head.
    pub(crate) fn give_back(&mut self, wires: &mut Wires) {
        if std::mem::take(&mut self.lent) {
            self.given_back += 1;
            if self.orphans.is_empty() {
                self.progress.taken = self.progress.acked;
                self.progress.head_given_back = self.given_back;
                self.tell(wires);
            }
        }
    }

    pub(crate) fn holds_one(&self) -> bool {
        self.lent
    }

    fn settle_head(&mut self) {
        self.given_back = 0;
        self.progress.head_given_back = 0;
        let is_orphan = !self.orphans.is_empty();
        let Some(head) = (if is_orphan { self.orphans.pop_front() } else { self.inbox.pop_front() }) else { return };
        let Origin { sender, pid, .. } = head.origin();
        let new = KnownSender { sender, pid, sequence: 0 };
        let known = self.known.entry(sender).or_insert(new);
        known.sequence = known.sequence.max(head.header.sequence);
        if !is_orphan {
            self.progress.acked += 1;
            self.progress.taken = self.progress.taken.max(self.progress.acked);
        }
    }

    /// The connection is gone. What it had brought whole stays, to be handed out first.
    fn lose_link(&mut self, wires: &mut Wires) {
        let Some(wire) = self.wire() else { return };
        while let Ok(bytes) = wires.read_down(wire, usize::MAX) {
            if bytes.is_empty() {
                break;
            }
            let _ = self.fill(bytes);
        }
        if self.ended.is_some() {
            let last = self.last_progress();
            let mut bytes = Vec::new();
            put_control(Kind::Goodbye, &last, &mut bytes);
            let _ = wires.write_up_whole(wire, &bytes);
        }
        wires.close_client(wire);
        self.link = Link::Away;
        self.keep_orphans();
        if self.ended.is_some() {
            self.link = Link::Over;
        }
    }

    fn last_progress(&self) -> Progress {
        Progress { taken: self.progress.taken.min(self.progress.acked + u64::from(self.lent)), ..self.progress }
    }

    fn keep_orphans(&mut self) {
        self.begun.clear();
        let frames = std::mem::take(&mut self.inbox);
        for frame in &frames {
            match frame.header.kind {
                Kind::Ended => self.ended = Some(Ended::Disconnected),
                Kind::Closing => {
                    let ordered = decode::<Closing>(Kind::Closing, &frame.body)
                        .is_ok_and(|closing| closing.code != ClosingCode::ShuttingDown);
                    if ordered {
                        self.ended = Some(Ended::ByOrder);
                    }
                }
                _ => {}
            }
        }
        let claimed = (self.progress.taken - self.progress.acked) as usize;
        let kept = if self.ended == Some(Ended::ByOrder) { claimed } else { usize::MAX };
        self.orphans.extend(frames.into_iter().filter(Frame::is_delivery).take(kept));
        self.progress.taken = self.progress.acked;
    }

    /// The process is killed. What it had written stays in the socket.
    pub(crate) fn crash(&mut self, wires: &mut Wires) {
        if let Some(wire) = self.wire() {
            wires.close_client(wire);
        }
        self.orphans.clear();
        self.inbox.clear();
        self.lent = false;
        self.link = Link::Over;
    }

    /// Leaves in order, when nothing is in its hands that no daemon has.
    pub(crate) fn leave(&mut self, wires: &mut Wires) {
        if let Some(wire) = self.wire() {
            let mut bytes = Vec::new();
            put_control(Kind::Goodbye, &self.last_progress(), &mut bytes);
            let _ = wires.write_up_whole(wire, &bytes);
        }
        self.crash(wires);
    }

    /// Whether there is nothing left that it could still hand out.
    pub(crate) fn is_over(&self) -> bool {
        self.link == Link::Over && self.orphans.is_empty() && !self.lent
    }

    /// Whether it holds no message.
    pub(crate) fn has_nothing(&self) -> bool {
        !self.lent && self.orphans.is_empty() && !self.inbox.iter().any(Frame::is_delivery)
    }

    pub(crate) fn describe(&self) -> String {
        let Self { number, channel, link, progress, lent, ended, seated, .. } = self;
        let (inbox, orphans) = (self.inbox.len(), self.orphans.len());
        format!(
            "receiver {number} on channel {channel}, {link:?}, {progress:?}, lent {lent}, {inbox} in its inbox, \
             {orphans} orphans, seated {seated}, {ended:?}"
        )
    }
}
