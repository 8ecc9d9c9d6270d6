//! [`Script`]: a daemon that does just what a test says, and nothing else: the other end of a socket,
//! held by the test.

use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bus_core::wire::{
    Flags, FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, Origin, ReceiverWelcome, Role, SenderWelcome, Settled,
    Welcome, WelcomeRole, put_control, read_control,
};
use bus_core::{Address, Bus, Codec, WhenFull};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// How long a test waits for what has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Script {
    listener: UnixListener,
    address: Address,
    _folder: TempDir,
}

impl Script {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = Address::new(folder.path().join("bus.sock")).expect("a short path");
        let listener = UnixListener::bind(address.path()).expect("a socket");
        Self { listener, address, _folder: folder }
    }

    /// A bus at this daemon.
    pub(crate) fn bus(&self) -> Bus {
        let address = self.address.clone();
        self.meet(move || Bus::connect_to(&address).expect("the script welcomes"), WelcomeRole::Control).0
    }

    /// Runs `open`, which connects one end, and welcomes that.
    pub(crate) fn meet<T>(&self, open: impl FnOnce() -> T + Send, welcome: WelcomeRole) -> (T, Peer)
    where
        T: Send,
    {
        thread::scope(|scope| {
            let opening = scope.spawn(open);
            let mut peer = self.accept();
            peer.welcome(welcome);
            (opening.join().expect("no panic"), peer)
        })
    }

    /// The next connection, with its hello.
    pub(crate) fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
        let mut peer = Peer { stream, role: Role::Control };
        let hello: Hello = peer.hear(Kind::Hello);
        peer.role = hello.role;
        peer
    }
}

pub(crate) fn sender_welcome() -> WelcomeRole {
    WelcomeRole::Sender(SenderWelcome {
        sender: 7,
        token: [0; 16],
        window_messages: 65_536,
        window_bytes: 16 << 20,
        message_max_bytes: 16 << 20,
        exact: false,
        when_full: WhenFull::Block,
        settled: Settled::default(),
        receivers: 0,
    })
}

pub(crate) fn receiver_welcome() -> WelcomeRole {
    WelcomeRole::Receiver(ReceiverWelcome {
        message_max_bytes: 16 << 20,
        place_in_line: 0,
        lag_messages: 512,
        lag_bytes: 128 * 1024,
    })
}

/// One connected end, as the daemon sees it.
pub(crate) struct Peer {
    stream: UnixStream,
    pub(crate) role: Role,
}

impl Peer {
    pub(crate) fn welcome(&mut self, role: WelcomeRole) {
        self.say(Kind::Welcome, &Welcome { daemon: 1, role });
    }

    pub(crate) fn say<T: Serialize>(&mut self, kind: Kind, body: &T) {
        let mut frame = Vec::new();
        put_control(kind, body, &mut frame);
        self.stream.write_all(&frame).expect("the end reads");
    }

    /// Delivers a message of sender 7, encoded by bincode.
    pub(crate) fn deliver(&mut self, sequence: u64, payload: &[u8]) {
        self.deliver_all(sequence..=sequence, payload);
    }

    /// Delivers messages of sender 7 by one write: each write takes more of the socket than its bytes.
    pub(crate) fn deliver_all(&mut self, sequences: RangeInclusive<u64>, payload: &[u8]) {
        let origin = Origin { sender: 7, accepted_at_ns: 0, pid: 1, attempt: 1 }.encode();
        let frame = |sequence| {
            let header = FrameHeader {
                kind: Kind::Deliver,
                flags: Flags::default(),
                codec: Codec::Bincode,
                sequence,
                sent_at_ns: 1,
                body_bytes: payload.len() as u32,
                header_block_bytes: 0,
            };
            [&header.encode()[..], &origin, payload].concat()
        };
        let frames: Vec<u8> = sequences.flat_map(frame).collect();
        self.stream.write_all(&frames).expect("the end reads");
    }

    /// The next frame: what it is, and its body.
    pub(crate) fn next(&mut self) -> (FrameHeader, Vec<u8>) {
        let mut bytes = [0; HEADER_BYTES];
        self.stream.read_exact(&mut bytes).expect("a frame comes");
        let limits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: u32::MAX };
        let header = FrameHeader::decode(&bytes, limits).expect("a frame").expect("a whole header");
        let mut body = vec![0; header.frame_bytes() - HEADER_BYTES];
        self.stream.read_exact(&mut body).expect("a whole frame comes");
        (header, body)
    }

    /// Reads on until a control frame of `kind` comes.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self, kind: Kind) -> T {
        loop {
            let (header, body) = self.next();
            if header.kind == kind {
                return read_control(kind, &body).expect("a body");
            }
        }
    }

    /// The sequences of the messages that come before a control frame of `kind`.
    pub(crate) fn messages_until(&mut self, kind: Kind) -> Vec<u64> {
        let mut sequences = Vec::new();
        loop {
            match self.next().0 {
                header if header.kind == kind => return sequences,
                header if header.kind == Kind::Data => sequences.push(header.sequence),
                _ => {}
            }
        }
    }
}

/// Runs `body`, which must come to its end in time.
pub(crate) fn in_time<T: Send + 'static>(what: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(body()));
    is_done.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: still waiting, or it panicked"))
}
