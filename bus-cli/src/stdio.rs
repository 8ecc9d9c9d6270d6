//! The process's own input and output, without the buffers of the standard library: this program
//! has better ones, and must know what was really read and written.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fstat, makedev};

/// A file that may have been made non-blocking by another program that shares it; reading and
/// writing wait all the same.
#[derive(Debug)]
pub(crate) struct Patient(File);

/// The standard input.
pub(crate) fn input() -> io::Result<Patient> {
    Ok(Patient(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
}

/// The standard output.
pub(crate) fn output() -> io::Result<Patient> {
    Ok(Patient(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
}

/// Whether what is written may go nowhere though nobody has asked for that.
///
/// A descriptor that the parent closed (`>&-`) the standard library opens anew, as /dev/null for reading and
/// writing, before `main`. A shell opens it for writing alone; other programs open it in both ways for a child that
/// is to say nothing, and that cannot be told apart.
pub(crate) fn output_goes_nowhere() -> bool {
    is_stand_in(io::stdout().as_fd())
}

/// Whether a descriptor is what the standard library puts in the place of one that is closed.
fn is_stand_in(descriptor: BorrowedFd<'_>) -> bool {
    let is_null = fstat(descriptor).is_ok_and(|stat| stat.st_rdev == makedev(1, 3));
    is_null && fcntl_getfl(descriptor).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

/// Tells the user something. Where nobody can be told, that is no reason to stop.
pub(crate) fn tell(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "bus: {text}");
}

impl From<File> for Patient {
    fn from(file: File) -> Self {
        Self(file)
    }
}

impl Patient {
    /// Whether a read would return at once: with bytes, with the end, or with an error.
    pub(crate) fn is_ready(&self) -> bool {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
    }

    fn wait_for(&self, what: PollFlags) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.0, what)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Patient {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for(PollFlags::IN)?,
                outcome => return outcome,
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for(PollFlags::OUT)?,
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
