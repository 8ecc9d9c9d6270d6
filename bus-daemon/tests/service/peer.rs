//! [`Peer`]: a client that says exactly what a test tells it to, and reads only when told.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bus_core::lane::stamp::clock;
use bus_core::wire::{
    Flags, FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, KnownSender, LaneHello, LaneId, LaneWish,
    ReceiverHello, Reply, Request, Resume, Returning, Role, SenderHello, SenderWelcome, Welcome, WelcomeRole,
    put_control, read_control,
};
use bus_core::{ChannelName, Codec};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::time::Timespec;

pub(crate) struct Peer {
    stream: UnixStream,
}

impl Peer {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream }
    }

    pub(crate) fn sender(socket: &Path, channel: &str) -> Self {
        let mut peer = Self::connect(socket);
        let channel = name(channel);
        peer.greet(Role::Sender(SenderHello {
            channel,
            declares: None,
            require_receiver: false,
            resume: None,
            lane: LaneWish::Never,
        }));
        peer
    }

    /// The sender that was welcomed so, over another connection.
    pub(crate) fn resumed(socket: &Path, channel: &str, welcome: &Welcome) -> Self {
        let WelcomeRole::Sender(SenderWelcome { sender, token, .. }) = welcome.role else { panic!("no sender") };
        let mut peer = Self::connect(socket);
        let (channel, resume) = (name(channel), Some(Resume { sender, token, next_sequence: 1, last_sequence: 0 }));
        peer.greet(Role::Sender(SenderHello {
            channel,
            declares: None,
            require_receiver: false,
            resume,
            lane: LaneWish::Never,
        }));
        peer
    }

    pub(crate) fn receiver(socket: &Path, channel: &str) -> Self {
        let mut peer = Self::connect(socket);
        let (channel, declares, returning) = (name(channel), None, None);
        let hello = ReceiverHello {
            channel,
            declares,
            standby: false,
            until_disconnected: false,
            returning,
            reads_lanes: false,
        };
        peer.greet(Role::Receiver(hello));
        peer
    }

    /// A receiver that had one sender, of process `pid`, under an earlier daemon, and ends with it.
    pub(crate) fn returned(socket: &Path, channel: &str, pid: u32) -> Self {
        let mut peer = Self::connect(socket);
        let senders = vec![KnownSender { sender: u64::from(pid), pid, sequence: 1 }];
        let returning = Some(Returning { senders, sender_seen: true, seated: true, lanes: false });
        let (channel, declares) = (name(channel), None);
        let hello = ReceiverHello {
            channel,
            declares,
            standby: false,
            until_disconnected: true,
            returning,
            reads_lanes: false,
        };
        peer.greet(Role::Receiver(hello));
        peer
    }

    /// One that asks for a lane at once.
    pub(crate) fn lane_sender(socket: &Path, channel: &str) -> Self {
        let mut peer = Self::connect(socket);
        peer.greet(Role::Sender(SenderHello {
            channel: name(channel),
            declares: None,
            require_receiver: false,
            resume: None,
            lane: LaneWish::AtOnce,
        }));
        peer
    }

    /// One that reads lanes.
    pub(crate) fn lane_receiver(socket: &Path, channel: &str) -> Self {
        let mut peer = Self::connect(socket);
        peer.greet(Role::Receiver(ReceiverHello {
            channel: name(channel),
            declares: None,
            standby: false,
            until_disconnected: false,
            returning: None,
            reads_lanes: true,
        }));
        peer
    }

    /// One that fetches the descriptors of a lane.
    pub(crate) fn fetching(socket: &Path, lane: LaneId, ticket: [u8; 16]) -> Self {
        let mut peer = Self::connect(socket);
        peer.greet(Role::Lane(LaneHello { lane, ticket }));
        peer
    }

    /// Reads until a frame of this kind comes.
    pub(crate) fn hear_of<T: serde::de::DeserializeOwned>(&mut self, wanted: Kind) -> T {
        loop {
            let (kind, body) = self.hear();
            if kind == wanted {
                return read_control(kind, &body).unwrap();
            }
        }
    }

    pub(crate) fn control(socket: &Path) -> Self {
        let mut peer = Self::connect(socket);
        peer.greet(Role::Control);
        peer
    }

    fn greet(&mut self, role: Role) {
        self.say(Kind::Hello, &Hello { name: "tester".to_owned(), pid: std::process::id(), role, clock: clock() });
    }

    pub(crate) fn say<T: serde::Serialize>(&mut self, kind: Kind, body: &T) {
        let mut frame = Vec::new();
        put_control(kind, body, &mut frame);
        self.say_bytes(&frame);
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Says that, and passes a descriptor with it.
    pub(crate) fn pass(&self, bytes: &[u8]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let own = [self.stream.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&own)));
        sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).map(|_| ())
    }

    /// Whether something has come that was not read yet.
    pub(crate) fn has_news(&self) -> bool {
        let mut waiting = [PollFd::new(&self.stream, PollFlags::IN)];
        rustix::event::poll(&mut waiting, Some(&Timespec::default())).unwrap() > 0
    }

    /// Sends messages of `bytes` bytes that tell their sequence.
    pub(crate) fn send_all(&mut self, sequences: std::ops::RangeInclusive<u64>, bytes: usize) {
        sequences.for_each(|sequence| self.say_bytes(&data(sequence, bytes)));
    }

    /// Sends as much of a message as the daemon takes within a moment.
    pub(crate) fn begin_to_send(&mut self, sequence: u64, bytes: usize) {
        self.stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let sent = self.stream.write_all(&data(sequence, bytes));
        assert!(sent.is_ok() || sent.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }

    pub(crate) fn hear(&mut self) -> (Kind, Vec<u8>) {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head).unwrap();
        let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: u32::MAX };
        let header = FrameHeader::decode(&head, limits).unwrap().unwrap();
        let mut body = vec![0; header.frame_bytes() - HEADER_BYTES];
        self.stream.read_exact(&mut body).unwrap();
        (header.kind, body)
    }

    pub(crate) fn hear_welcome(&mut self) -> Welcome {
        let (kind, body) = self.hear();
        assert_eq!(kind, Kind::Welcome);
        read_control(kind, &body).unwrap()
    }

    pub(crate) fn hear_reply(&mut self) -> Reply {
        loop {
            match self.hear() {
                (Kind::Reply, body) => return read_control(Kind::Reply, &body).unwrap(),
                (Kind::Deliver | Kind::Welcome, _) => {}
                (kind, _) => panic!("no reply, but a {kind:?} frame"),
            }
        }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        self.say(Kind::Request, request);
        self.hear_reply()
    }

    pub(crate) fn connections(&mut self) -> u32 {
        match self.ask(&Request::About) {
            Reply::About { connections, .. } => connections,
            other => panic!("asked about itself, the daemon replies {other:?}"),
        }
    }

    /// Asks until so many connections are left: each question is a turn of the daemon.
    pub(crate) fn ask_until_connections_are(&mut self, expected: u32) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.connections() != expected {
            assert!(Instant::now() < until, "{} connections are left, not {expected}", self.connections());
        }
    }

    /// Nothing follows from this side; the other may go on.
    pub(crate) fn is_closed_by_daemon(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_ok()
    }
}

pub(crate) fn name(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn data(sequence: u64, bytes: usize) -> Vec<u8> {
    let header = FrameHeader {
        kind: Kind::Data,
        flags: Flags(0),
        codec: Codec::Raw,
        sequence,
        sent_at_ns: 0,
        body_bytes: bytes as u32,
        header_block_bytes: 0,
    };
    let mut frame = header.encode().to_vec();
    frame.extend_from_slice(&sequence.to_le_bytes());
    frame.resize(HEADER_BYTES + bytes, 0);
    frame
}
