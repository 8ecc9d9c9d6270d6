//! The ends of a [`Bench`]: what they say, and what they have heard.

use bus_core::wire::LaneWish;

use super::*;

/// A connection.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(super) bench: Bench,
    pub(super) id: PeerId,
}

impl Peer {
    pub(crate) fn hello(&self, role: Role) {
        self.say(Kind::Hello, &Hello { name: "tester".to_owned(), pid: PID, role, clock: 0 });
    }

    pub(crate) fn say<T: serde::Serialize>(&self, kind: Kind, body: &T) {
        let mut frame = Vec::new();
        put_control(kind, body, &mut frame);
        self.say_bytes(frame);
    }

    pub(crate) fn say_bytes(&self, frame: Vec<u8>) {
        let state = &mut *self.bench.0.borrow_mut();
        state.hand_in(self.id, frame);
        state.turn();
    }

    pub(crate) fn all_heard(&self) -> Vec<Heard> {
        self.bench.0.borrow_mut().wires.get_mut(&self.id).map(|wire| wire.heard.drain(..).collect()).unwrap_or_default()
    }

    pub(crate) fn hear(&self) -> Heard {
        let heard = self.bench.0.borrow_mut().wires.get_mut(&self.id).and_then(|wire| wire.heard.pop_front());
        heard.expect("the peer has heard nothing")
    }

    pub(crate) fn hear_refusal(&self) -> Refused {
        match self.hear() {
            Heard::Refused(refused) => refused,
            other => panic!("not refused, but {other:?}"),
        }
    }

    /// Why the daemon has closed it, once it has.
    pub(crate) fn closed(&self) -> Option<String> {
        self.bench.0.borrow().wires.get(&self.id).and_then(|wire| wire.closed.clone())
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.bench.0.borrow().wires.get(&self.id).is_some_and(|wire| !wire.paused.is_empty())
    }

    /// How many bytes the daemon keeps for it.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        let mut slices = Vec::new();
        let state = &mut *self.bench.0.borrow_mut();
        state.broker.output(self.id, &mut slices);
        slices.iter().map(|slice| slice.len()).sum()
    }

    /// Sends the header of a large frame.
    pub(crate) fn announce(&self, header: &FrameHeader) -> Announced {
        let mut announced = None;
        self.bench.event(|broker, now| announced = Some(broker.announced(now, self.id, header)));
        announced.expect("the broker says what is to be done")
    }

    /// Its process stops: of a large message nothing comes but the header.
    pub(crate) fn stop(&self) {
        self.bench.0.borrow_mut().with_wire(self.id, |wire| wire.stopped = true);
    }

    /// Its process dies while a frame of it waits: its socket is closed, and what it held is kept.
    pub(crate) fn die_waiting(&self) {
        assert!(self.is_paused());
        let state = &mut *self.bench.0.borrow_mut();
        state.hang_up(self.id, "dead".to_owned());
        state.turn();
    }

    /// Its process dies.
    pub(crate) fn cut(&self) {
        let id = self.id;
        self.bench.event(|broker, now| broker.disconnected(now, id));
        self.bench.0.borrow_mut().wires.remove(&id);
    }

    /// From now on its socket takes so many bytes, and no more.
    pub(crate) fn give_room(&self, bytes: usize) {
        let state = &mut *self.bench.0.borrow_mut();
        state.with_wire(self.id, |wire| wire.room = Some(wire.room.unwrap_or(0) + bytes));
        state.write(self.id);
        state.turn();
    }

    /// Its socket takes everything again.
    pub(crate) fn give_all_room(&self) {
        let state = &mut *self.bench.0.borrow_mut();
        state.with_wire(self.id, |wire| wire.room = None);
        state.write(self.id);
        state.turn();
    }

    pub(super) fn into_sender(self) -> Sender {
        let welcome = match self.hear() {
            Heard::Welcome(Welcome { role: WelcomeRole::Sender(welcome), .. }) => welcome,
            other => panic!("no welcome, but {other:?}"),
        };
        Sender { peer: self, welcome, next: 1.into() }
    }
}

pub(crate) fn sender_hello(channel: &str) -> SenderHello {
    SenderHello { channel: name(channel), declares: None, require_receiver: false, resume: None, lane: LaneWish::Never }
}

pub(crate) fn receiver_hello(channel: &str) -> ReceiverHello {
    let channel = name(channel);
    ReceiverHello {
        channel,
        declares: None,
        standby: false,
        until_disconnected: false,
        returning: None,
        reads_lanes: false,
    }
}

pub(crate) fn declares(type_name: &str) -> Option<TypeDeclaration> {
    Some(TypeDeclaration { codec: Codec::Bincode, type_name: type_name.to_owned() })
}

pub(crate) struct Sender {
    pub(crate) peer: Peer,
    pub(crate) welcome: SenderWelcome,
    pub(super) next: std::cell::Cell<u64>,
}

/// A message as a test describes it.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing {
    pub(crate) sequence: u64,
    pub(crate) value: u64,
    pub(crate) bytes: usize,
    pub(crate) flags: u8,
}

impl Sender {
    /// Sends `value` as a message of eight bytes.
    pub(crate) fn send(&self, value: u64) {
        self.send_sized(value, 8);
    }

    pub(crate) fn send_all(&self, values: impl IntoIterator<Item = u64>) {
        values.into_iter().for_each(|value| self.send(value));
    }

    pub(crate) fn send_sized(&self, value: u64, bytes: usize) {
        self.send_with(Outgoing { sequence: self.next.get(), value, bytes, flags: 0 });
    }

    pub(crate) fn send_flagged(&self, value: u64, flags: u8) {
        self.send_with(Outgoing { sequence: self.next.get(), value, bytes: 8, flags });
    }

    pub(crate) fn send_with(&self, message: Outgoing) {
        self.next.set(message.sequence + 1);
        self.peer.say_bytes(data(message));
    }

    /// Sends the header of its next message, which is large. Where it may, the rest comes with
    /// [`Self::send_sized`]; else when there is room.
    pub(crate) fn announce(&self, value: u64, bytes: usize) -> Announced {
        let frame = data(Outgoing { sequence: self.next.get(), value, bytes, flags: 0 });
        let state = &mut *self.peer.bench.0.borrow_mut();
        let announced = state.announce(self.peer.id, &frame);
        state.turn();
        announced
    }

    pub(crate) fn want(&self, number: u64, bytes: u32, wait: bool) {
        self.peer.say(Kind::Want, &Want { number, bytes, wait });
    }

    /// The sequence of its next message.
    pub(crate) fn next_is(&self, sequence: u64) {
        self.next.set(sequence);
    }

    pub(crate) fn goodbye(&self) {
        self.peer.say(Kind::Goodbye, &());
        self.peer.cut();
    }

    pub(crate) fn id(&self) -> u64 {
        self.welcome.sender
    }

    /// The last that it was told of its messages.
    pub(crate) fn settled(&self) -> Settled {
        let told = self.peer.all_heard().into_iter().filter_map(|heard| match heard {
            Heard::Settled(settled) => Some(settled),
            _ => None,
        });
        told.last().expect("the sender was told nothing of its messages")
    }
}

pub(crate) fn data(Outgoing { sequence, value, bytes, flags }: Outgoing) -> Vec<u8> {
    let header = FrameHeader {
        kind: Kind::Data,
        flags: Flags(flags),
        codec: Codec::Raw,
        sequence,
        sent_at_ns: 5,
        body_bytes: bytes as u32,
        header_block_bytes: 0,
    };
    let value = value.to_le_bytes();
    let mut frame = header.encode().to_vec();
    frame.extend_from_slice(&value);
    frame.resize(HEADER_BYTES + bytes, value[0]);
    frame
}

pub(crate) struct Receiver {
    pub(crate) peer: Peer,
    pub(crate) welcome: ReceiverWelcome,
    pub(super) progress: std::cell::Cell<Progress>,
}

impl Receiver {
    /// The deliveries that have come since this was asked last. Nothing else may have come.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        let expected = |heard| match heard {
            Heard::Delivery(delivery) => delivery,
            other => panic!("no delivery, but {other:?}"),
        };
        self.peer.all_heard().into_iter().map(expected).collect()
    }

    pub(crate) fn values(&self) -> Vec<u64> {
        self.deliveries().into_iter().map(|delivery| delivery.value).collect()
    }

    /// Claims `count` more deliveries.
    pub(crate) fn claim(&self, count: u64) {
        let progress = self.progress.get();
        self.tell(Progress { taken: progress.taken + count, ..progress });
    }

    /// Acknowledges `count` more deliveries.
    pub(crate) fn ack(&self, count: u64) {
        let Progress { taken, acked, .. } = self.progress.get();
        let acked = acked + count;
        self.tell(Progress { taken: taken.max(acked), acked, head_given_back: 0 });
    }

    /// Gives the head back that it has claimed.
    pub(crate) fn give_back(&self) {
        let Progress { acked, head_given_back, .. } = self.progress.get();
        self.tell(Progress { taken: acked, acked, head_given_back: head_given_back + 1 });
    }

    pub(crate) fn tell(&self, progress: Progress) {
        self.progress.set(progress);
        self.peer.say(Kind::Progress, &progress);
    }

    pub(crate) fn answer_recall(&self) {
        self.peer.say(Kind::Recalled, &self.progress.get());
    }

    pub(crate) fn goodbye(&self) {
        self.peer.say(Kind::Goodbye, &self.progress.get());
        self.peer.cut();
    }
}

pub(crate) struct Control {
    pub(crate) peer: Peer,
}

impl Control {
    pub(crate) fn ask(&self, request: Request) -> Reply {
        let (copies, reply) = self.ask_with_copies(request);
        assert_eq!(copies, []);
        reply
    }

    pub(crate) fn ask_with_copies(&self, request: Request) -> (Vec<Delivery>, Reply) {
        self.peer.say(Kind::Request, &request);
        let mut copies = Vec::new();
        loop {
            match self.peer.hear() {
                Heard::Delivery(copy) => copies.push(copy),
                Heard::Reply(reply) => return (copies, reply),
                other => panic!("no reply, but {other:?}"),
            }
        }
    }
}

/// A receiver that has had another daemon comes back.
pub(crate) fn returning(seated: bool, senders: Vec<KnownSender>) -> Option<Returning> {
    Some(Returning { senders, sender_seen: true, seated, lanes: false })
}

pub(crate) fn known(sender: u64, sequence: u64) -> KnownSender {
    KnownSender { sender, pid: PID, sequence }
}
