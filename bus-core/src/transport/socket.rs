//! [`Socket`]: one connected local socket. The only file that names interprocess.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Interest, Ready};
use interprocess::ConnectWaitMode;
use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{ConnectOptions, GenericFilePath, Stream, ToFsName};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recv, recvmsg, send, sendmsg,
};

/// How many descriptors come at once, at most.
const DESCRIPTORS_MAX: usize = 8;

/// A connected socket. Reading and writing take `&self`: the kernel orders them.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(super) socket: OwnedFd,
}

impl Socket {
    /// Connects to a listening socket.
    ///
    /// A listener with a full backlog can look like success here: the connection counts only after
    /// the daemon's `Welcome`.
    pub(super) fn open(path: &Path, patience: Duration) -> io::Result<Self> {
        let name = path.to_fs_name::<GenericFilePath>()?;
        let options = ConnectOptions::new().name(name).wait_mode(ConnectWaitMode::Timeout(patience));
        let Stream::UdSocket(stream) = options.connect_sync()?;
        stream.set_nonblocking(false)?;
        Ok(Self { socket: OwnedFd::from(stream) })
    }

    /// Writes what fits now.
    pub(super) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let sent = match slices {
                // Most writes; without the header of a vectored one.
                [slice] => send(&self.socket, slice, flags),
                slices => sendmsg(&self.socket, slices, &mut SendAncillaryBuffer::default(), flags),
            };
            match sent {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Reads what is there; 0 means that the other side has closed.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive_with(buffer, RecvFlags::DONTWAIT)
    }

    /// Writes all of it, and passes descriptors with the first byte.
    pub(super) fn send_descriptors(&self, slices: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = rustix::io::retry_on_intr(|| sendmsg(&self.socket, slices, &mut ancillary, flags))?;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if sent == all { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Reads, and takes the descriptors that come with it. Those that are too many the kernel closes, and the
    /// reading fails.
    pub(super) fn receive_descriptors(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result?,
            }
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("more descriptors came than were announced"));
        }
        Ok((received.bytes, descriptors))
    }

    /// Reads, and waits for the first byte.
    pub(super) fn receive_blocking(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive_with(buffer, RecvFlags::empty())
    }

    fn receive_with(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let mut slice = IoSliceMut::new(buffer);
        loop {
            match recv(&self.socket, &mut *slice, flags) {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result?.1),
            }
        }
    }

    /// Hangs up, whoever else still holds the connection. What was sent stays readable.
    pub(super) fn hang_up(&self) {
        // Already hung up by the other side: just as well.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Waits until the socket is ready or closed; `false` when `deadline` passed first.
    pub(super) fn wait(
        &self,
        interest: Interest,
        bell: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<Option<Ready>> {
        let flags = match interest {
            Interest::Readable => PollFlags::IN,
            Interest::Writable => PollFlags::OUT,
            Interest::Either => PollFlags::IN | PollFlags::OUT,
        };
        let (rings, fd) = (bell.is_some(), self.socket.as_fd());
        loop {
            let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
            let bell = bell.as_ref().unwrap_or(&fd);
            let mut both = [PollFd::new(&self.socket, flags), PollFd::new(bell, PollFlags::IN)];
            let polled = if rings { &mut both[..] } else { &mut both[..1] };
            match poll(polled, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            let events = polled[0].revents();
            if rings && !polled[1].revents().is_empty() && events.is_empty() {
                return Ok(Some(Ready { readable: false, writable: false }));
            }
            let closed = events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
            let ready = |flag| closed || events.contains(flag);
            let ready = Ready { readable: ready(PollFlags::IN), writable: ready(PollFlags::OUT) };
            return Ok(Some(ready).filter(|_| !events.is_empty()));
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}
