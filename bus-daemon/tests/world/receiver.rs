//! [`Receiver`]: a receiving process: the library's own [`Receiving`], driven as its threads drive it, with
//! the wires of the world for a socket.

use std::collections::HashSet;

use bus_core::endpoint::{Head, Inbox, LentFrame, Receiving};
use bus_core::wire::{
    Closing, ClosingCode, FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, ReceiverHello, ReceiverWelcome, Refused,
    RefusedCode, Role, Welcome, WelcomeRole, put_control,
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
    manner: Manner,
    /// What has come before the daemon has let it in.
    greeting: Vec<u8>,
    receiving: Receiving,
    has_connected: bool,
    /// Senders and sequences of what it has given back: that comes again, also after it went to the daemon.
    gave_back: HashSet<(u64, u64)>,
    /// The daemon has given its seat to another, and could not tell it.
    pub(crate) removed: bool,
    /// The frames of this step, for the journal.
    pub(crate) frames: Frames,
}

/// How a receiver is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) standby: bool,
    pub(crate) until_disconnected: bool,
}

/// How a message is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taking {
    /// It was told something within this tick of the clock.
    pub(crate) busy: bool,
    /// It is taken as a value, which is acknowledged before anybody sees it; else lent.
    pub(crate) as_value: bool,
    /// How many are lent at once at most.
    pub(crate) most: usize,
    /// Where there is none, it is waited for.
    pub(crate) waits: bool,
}

/// No bounds: those of the library are tested elsewhere.
const LIMITS: FrameLimits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: u32::MAX };

impl Receiver {
    pub(crate) fn new(number: usize, channel: usize, manner: Manner) -> Self {
        Self {
            number,
            channel,
            link: Link::Away,
            manner,
            greeting: Vec::new(),
            receiving: Receiving::default(),
            has_connected: false,
            gave_back: HashSet::new(),
            removed: false,
            frames: Frames::new(),
        }
    }

    pub(crate) fn wire(&self) -> Option<WireId> {
        match self.link {
            Link::Greeting(wire) | Link::Up(wire) => Some(wire),
            Link::Away | Link::Over => None,
        }
    }

    // Connections.

    pub(crate) fn connect(&mut self, options: &Options, daemon: &mut Daemon, wires: &mut Wires, now_ms: u64) {
        if self.link != Link::Away {
            return;
        }
        let wire = wires.open();
        daemon.accept(wire, now_ms);
        let hello = ReceiverHello {
            channel: options.channels[self.channel].name.clone(),
            declares: None,
            standby: self.manner.standby,
            until_disconnected: self.manner.until_disconnected,
            returning: self.has_connected.then(|| self.receiving.returning()),
            reads_lanes: false,
        };
        self.greeting.clear();
        self.link = Link::Greeting(wire);
        let hello = Hello { name: "receiver".to_owned(), pid: 4, role: Role::Receiver(hello), clock: 0 };
        let mut bytes = Vec::new();
        put_control(Kind::Hello, &hello, &mut bytes);
        if wires.write_up_whole(wire, &bytes).is_err() {
            self.lose_link(wires);
        }
    }

    /// Reads up to `most` bytes.
    pub(crate) fn read(&mut self, most: usize, wires: &mut Wires) -> Outcome {
        let Some(wire) = self.wire() else { return Ok(()) };
        match (wires.read_down(wire, most), self.link) {
            (Ok(bytes), Link::Greeting(_)) => {
                self.greeting.extend(bytes);
                self.look_for_welcome(wire, wires)
            }
            (Ok(bytes), _) => self.take_in(&bytes),
            (Err(_), _) => {
                self.lose_link(wires);
                Ok(())
            }
        }
    }

    fn look_for_welcome(&mut self, wire: WireId, wires: &mut Wires) -> Outcome {
        let header = FrameHeader::decode(&self.greeting, LIMITS).map_err(|error| format!("I1: a receiver: {error}"))?;
        let Some((kind, frame_bytes)) = header.map(|header| (header.kind, header.frame_bytes())) else { return Ok(()) };
        let Some(body) = self.greeting.get(HEADER_BYTES..frame_bytes) else { return Ok(()) };
        self.frames.push((kind, 0));
        match kind {
            Kind::Welcome => {
                let Welcome { role: WelcomeRole::Receiver(welcome), .. } = decode(kind, body)? else {
                    return Err("a receiver is welcomed as something else".to_owned());
                };
                self.welcomed(wire, welcome);
                let rest = std::mem::take(&mut self.greeting).split_off(frame_bytes);
                self.take_in(&rest)
            }
            Kind::Refused => {
                let Refused { code, text } = decode(kind, body)?;
                self.lose_link(wires);
                match code {
                    RefusedCode::Limit => {}
                    RefusedCode::ReceiverTaken => self.link = Link::Over,
                    _ => return Err(format!("an honest receiver is refused: {text}")),
                }
                Ok(())
            }
            kind => Err(format!("a receiver is greeted with a {kind:?} frame")),
        }
    }

    fn welcomed(&mut self, wire: WireId, welcome: ReceiverWelcome) {
        self.link = Link::Up(wire);
        self.has_connected = true;
        self.receiving.connected(welcome, Inbox::new(LIMITS));
    }

    fn take_in(&mut self, bytes: &[u8]) -> Outcome {
        let before = self.receiving.inbox.frames().count();
        self.receiving.inbox.take_in(bytes);
        if self.receiving.inbox.is_broken() {
            return Err("I1: a receiver reads what is no frame".to_owned());
        }
        for (kind, frame) in self.receiving.inbox.frames().skip(before) {
            let sequence = FrameHeader::decode(frame, LIMITS).ok().flatten().map_or(0, |header| header.sequence);
            self.frames.push((kind, sequence));
            match kind {
                Kind::Ended if !self.manner.until_disconnected => {
                    return Err("a receiver is ended that did not wish it".to_owned());
                }
                Kind::Closing => {
                    let Closing { code, text } = decode(kind, &frame[HEADER_BYTES..])?;
                    if code == ClosingCode::Fault {
                        return Err(format!("an honest receiver is closed: {text}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The connection is gone. What it had brought whole stays, to be handed out first.
    fn lose_link(&mut self, wires: &mut Wires) {
        let Some(wire) = self.wire() else { return };
        if matches!(self.link, Link::Up(_)) {
            while let Ok(bytes) = wires.read_down(wire, usize::MAX) {
                if bytes.is_empty() {
                    break;
                }
                self.receiving.inbox.take_in(&bytes);
            }
            if self.receiving.has_ended() {
                self.receiving.say_goodbye();
                let _ = wires.write_up_whole(wire, self.receiving.control.unwritten());
            }
            self.receiving.disconnected();
        }
        wires.close_client(wire);
        self.link = if self.receiving.has_ended() { Link::Over } else { Link::Away };
    }

    /// The process is killed. What it had written stays in the socket.
    pub(crate) fn crash(&mut self, wires: &mut Wires) {
        if let Some(wire) = self.wire() {
            wires.close_client(wire);
        }
        self.receiving = Receiving::default();
        self.link = Link::Over;
    }

    /// Leaves in order.
    pub(crate) fn leave(&mut self, wires: &mut Wires) {
        if let Link::Up(wire) = self.link {
            self.receiving.say_goodbye();
            let _ = wires.write_up_whole(wire, self.receiving.control.unwritten());
        }
        self.crash(wires);
    }

    // Messages.

    /// Takes the next message, or several, if there is one and the daemon can be told.
    pub(crate) fn take(&mut self, how: Taking, wires: &mut Wires, model: &mut Model, bug: Option<Bug>) -> Outcome {
        if !how.busy && !self.has_nothing() && self.receiving.lent() == 0 {
            self.read(usize::MAX, wires)?;
        }
        let Some(head) = self.next(how, wires) else { return Ok(()) };
        self.receiving.lend(1);
        if how.as_value {
            let handed_out = self.handed_out(&self.receiving.lent_frame());
            return if self.take_value(&head, how.busy, wires) { self.show(handed_out, model, bug) } else { Ok(()) };
        }
        self.extend(&head, how.most, wires);
        let mut handed_out: Vec<HandedOut> =
            self.receiving.lent_frames().map(|frame| self.handed_out(&frame)).collect();
        if bug == Some(Bug::ReceiverSwapsTwo) && handed_out.len() > 1 && handed_out[0].sender == handed_out[1].sender {
            handed_out.swap(0, 1);
        }
        handed_out.into_iter().try_for_each(|handed_out| self.show(handed_out, model, bug))
    }

    /// The head, claimed if it is to be lent.
    fn next(&mut self, how: Taking, wires: &mut Wires) -> Option<Head> {
        self.receiving.will_lend(!how.as_value);
        while self.receiving.lent() == 0 {
            if self.receiving.may_obey() && self.receiving.inbox.has_order() {
                match self.receiving.obey() {
                    Ok(()) => self.write(wires),
                    Err(_) => self.lose_link(wires),
                }
            }
            match self.receiving.head() {
                Ok(Some(head)) if self.receiving.is_known(&head) => {
                    self.receiving.settle_head(&head);
                    self.tell(false, how.busy, wires);
                }
                Ok(Some(head)) if how.as_value || self.receiving.is_claimed(&head) => return Some(head),
                Ok(Some(head)) => {
                    let connection = self.wire();
                    self.receiving.claim(how.busy);
                    self.say(wires);
                    if connection == self.wire() && !self.receiving.is_claimed(&head) {
                        // The socket is full.
                        return None;
                    }
                }
                Ok(None) => {
                    if self.receiving.has_ended() {
                        self.lose_link(wires);
                    } else {
                        self.wait(how, wires);
                    }
                    return None;
                }
                Err(_) => self.lose_link(wires),
            }
        }
        None
    }

    fn wait(&mut self, how: Taking, wires: &mut Wires) {
        if how.waits {
            self.receiving.claim_next(how.busy);
        }
        let untold = how.waits && self.receiving.may_wait_untold();
        self.tell(!untold, how.busy, wires);
    }

    /// Lends those that follow as well.
    fn extend(&mut self, head: &Head, most: usize, wires: &mut Wires) {
        let count = self.receiving.lendable(head, most);
        if count > 1 {
            self.receiving.claim_through(count);
            if !self.receiving.is_claimed_through(count) {
                self.tell(true, true, wires);
            }
        }
        let claimed = self.wire().is_some() && self.receiving.is_claimed_through(count);
        self.receiving.lend(if claimed { count } else { 1 });
    }

    /// Acknowledges the head before anybody has seen it. `false` when that could not be said.
    fn take_value(&mut self, head: &Head, busy: bool, wires: &mut Wires) -> bool {
        self.receiving.lend(0);
        if !self.receiving.is_claimed(head) {
            self.write(wires);
            if self.wire().is_some() && self.receiving.control.is_empty() {
                let said = self.receiving.say_taken(busy);
                self.write(wires);
                if self.wire().is_some() && (self.receiving.control.is_empty() || !self.receiving.unsay()) {
                    self.receiving.taken(head, said);
                    return true;
                }
            }
            if self.wire().is_some() || (self.receiving.has_ended() && self.receiving.waiting() == 0) {
                return false;
            }
        }
        self.receiving.lend(1);
        self.settle(1, busy, wires);
        true
    }

    /// Gives a message to its user.
    fn show(&mut self, mut handed_out: HandedOut, model: &mut Model, bug: Option<Bug>) -> Outcome {
        self.frames.push((Kind::Deliver, handed_out.sequence));
        let is_third = handed_out.sequence == 3;
        if bug == Some(Bug::ReceiverLosesOne) && is_third {
            return Ok(());
        }
        if bug == Some(Bug::ReceiverChangesOne) && is_third {
            handed_out.value ^= 1;
        }
        model.hand_out(handed_out)?;
        if bug == Some(Bug::ReceiverRepeatsOne) && is_third { model.hand_out(handed_out) } else { Ok(()) }
    }

    fn handed_out(&self, frame: &LentFrame<'_>) -> HandedOut {
        let info = frame.info();
        let (value, filling) =
            frame.payload().split_first_chunk::<8>().expect("messages of the world have 8 bytes and more");
        let value = u64::from_le_bytes(*value);
        let torn = filling.iter().any(|byte| *byte != value as u8);
        HandedOut {
            receiver: self.number,
            channel: self.channel,
            sender: info.sender.0,
            sequence: info.sequence,
            value,
            bytes: if torn { usize::MAX } else { frame.payload().len() },
            attempt: info.attempt,
            redelivered: info.redelivered,
            removed: self.removed,
            given_back: self.gave_back.contains(&(info.sender.0, info.sequence)),
        }
    }

    /// Its user is done with the first `count` of what is lent, and gives the others back.
    pub(crate) fn settle(&mut self, count: usize, busy: bool, wires: &mut Wires) {
        if self.receiving.lent() > 0 {
            self.frames.push((Kind::Progress, count as u64));
            let ids = |frame: LentFrame<'_>| (frame.info().sender.0, frame.info().sequence);
            self.gave_back.extend(self.receiving.lent_frames().skip(count).map(ids));
            let gives_back = self.receiving.settle(count);
            self.tell(gives_back, busy, wires);
        }
    }

    // What the daemon is told.

    /// As the keeper does when nothing has changed for a while: nobody else uses the receiver, or a message is
    /// lent, or waited for.
    pub(crate) fn tend(&mut self, in_use: bool, wires: &mut Wires) {
        if !in_use {
            self.receiving.claim_no_more();
            self.say(wires);
        } else if self.receiving.may_be_told()
            && self.wire().is_some()
            && let Some(untold) = self.receiving.untold()
        {
            self.receiving.control.push(Kind::Progress, &untold);
            self.write(wires);
            let rest = std::mem::take(&mut self.receiving.control);
            if self.wire().is_some() {
                self.receiving.was_told(untold, rest);
            }
        }
    }

    fn tell(&mut self, must: bool, busy: bool, wires: &mut Wires) {
        if must || self.receiving.owes_much() || !busy {
            if !must {
                self.receiving.claim_ahead(busy);
            }
            self.say(wires);
        }
    }

    fn say(&mut self, wires: &mut Wires) {
        self.write(wires);
        self.receiving.say_progress();
        self.write(wires);
    }

    /// Writes what the socket takes.
    fn write(&mut self, wires: &mut Wires) {
        let Link::Up(wire) = self.link else { return };
        if self.receiving.control.is_empty() {
            return;
        }
        match wires.write_up_piece(wire, self.receiving.control.unwritten()) {
            Ok(bytes) => self.receiving.control.wrote(bytes),
            Err(_) => self.lose_link(wires),
        }
    }

    // What the world looks at.

    pub(crate) fn holds(&self) -> usize {
        self.receiving.lent()
    }

    /// Whether there is nothing left that it could still hand out.
    pub(crate) fn is_over(&self) -> bool {
        self.link == Link::Over && self.has_nothing()
    }

    /// Whether it holds no message.
    pub(crate) fn has_nothing(&self) -> bool {
        self.receiving.lent() == 0 && self.receiving.waiting() == 0
    }

    pub(crate) fn describe(&self) -> String {
        let Self { number, channel, link, receiving, .. } = self;
        let (lent, waiting, seated) = (receiving.lent(), receiving.waiting(), receiving.is_seated());
        format!("receiver {number} on channel {channel}, {link:?}, lent {lent}, {waiting} wait, seated {seated}")
    }
}
