//! Descriptors of lanes, handed over by connections of their own: fetched from the daemon that made the lane,
//! and brought to the next one.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::inbox::CONTROL_READ_BYTES;
use super::session::{DialError, Dialer};
use crate::lane::stamp::clock;
use crate::transport::{Connection, Interest};
use crate::wire::{
    FrameHeader, FrameLimits, HEADER_BYTES, Hello, Kind, LaneBrought, LaneHello, Refused, Role, put_control,
    read_control,
};

/// How long handing over one lane may take: a daemon that serves answers at once.
const PATIENCE: Duration = Duration::from_secs(1);

impl Dialer {
    /// Fetches descriptors of a lane.
    ///
    /// # Errors
    /// Above all that there are none any more: whoever they were for is late.
    pub(crate) fn fetch(&self, hello: LaneHello) -> io::Result<Vec<OwnedFd>> {
        let mut desk = Desk::open(self, Role::Lane(hello))?;
        match desk.next_frame()? {
            (Kind::Welcome, _) => Ok(desk.descriptors),
            (Kind::Refused, body) => match read_control::<Refused>(Kind::Refused, &body) {
                Ok(refused) => Err(io::Error::other(NoneWait(refused.text))),
                Err(error) => Err(io::Error::other(error)),
            },
            _ => Err(io::Error::other("the daemon hands the lane to nobody")),
        }
    }

    /// Brings a lane of an earlier daemon. Once this is said to be done the daemon has it, and gives it to whoever
    /// is to read it; perhaps again.
    pub(crate) fn bring(&self, lane: LaneBrought, descriptors: &[BorrowedFd<'_>]) -> Result<(), DialError> {
        let mut desk = Desk::open(self, Role::LaneBrought(Box::new(lane))).map_err(DialError::Unreachable)?;
        let (mut kind, mut body) = desk.next_frame().map_err(DialError::Unreachable)?;
        if kind == Kind::Welcome {
            let mut frame = Vec::new();
            put_control(Kind::Brought, &(), &mut frame);
            desk.connection.send_descriptors(&[IoSlice::new(&frame)], descriptors).map_err(DialError::Unreachable)?;
            (kind, body) = desk.next_frame().map_err(DialError::Unreachable)?;
        }
        match kind {
            Kind::LaneKept => Ok(()),
            Kind::Refused => match read_control(kind, &body) {
                Ok(refused) => Err(DialError::Refused(refused)),
                Err(error) => Err(DialError::Protocol(error.to_string())),
            },
            // It ends, or has had enough of this one.
            _ => Err(DialError::Unreachable(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

/// The daemon has nothing that waits for this ticket, and will not have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoneWait(String);

/// Whether asking again is of no use: what the ticket stood for is gone.
pub(super) fn is_gone_for_good(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NoneWait>())
}

/// Whether nothing but time is wrong: the daemon has not answered yet, or is not there at the moment.
pub(super) fn may_yet_answer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | ConnectionRefused | NotFound)
}

/// Where one lane is handed over.
struct Desk {
    connection: Connection,
    deadline: Instant,
    answer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Desk {
    fn open(dialer: &Dialer, role: Role) -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let connection = Connection::open(dialer.address.path(), PATIENCE)?;
        let hello = Hello { name: dialer.name.clone(), pid: std::process::id(), role, clock: clock() };
        let mut bytes = Vec::new();
        put_control(Kind::Hello, &hello, &mut bytes);
        connection.send_all(&bytes, deadline)?;
        Ok(Self { connection, deadline, answer: Vec::new(), descriptors: Vec::new() })
    }

    /// The next frame of the daemon, with its body.
    fn next_frame(&mut self) -> io::Result<(Kind, Vec<u8>)> {
        loop {
            let limits = FrameLimits { message_max_bytes: 0, control_max_bytes: CONTROL_READ_BYTES as u32 };
            if let Some(header) = FrameHeader::decode(&self.answer, limits).map_err(io::Error::other)?
                && self.answer.len() >= header.frame_bytes()
            {
                let frame: Vec<u8> = self.answer.drain(..header.frame_bytes()).collect();
                return Ok((header.kind, frame[HEADER_BYTES..].to_vec()));
            }
            if self.connection.wait(Interest::Readable, Some(self.deadline))?.is_none() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut part = [0; 256];
            let (bytes, passed) = self.connection.receive_descriptors(&mut part)?;
            self.descriptors.extend(passed);
            self.answer.extend_from_slice(&part[..bytes]);
            if bytes == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
    }
}

/// As many descriptors as are needed.
pub(super) fn exactly<const N: usize>(descriptors: Vec<OwnedFd>) -> io::Result<[OwnedFd; N]> {
    let came = descriptors.len();
    let wrong = |_| io::Error::other(format!("{came} descriptors came, and {N} were announced"));
    descriptors.try_into().map_err(wrong)
}
