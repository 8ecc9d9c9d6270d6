//! Whether descriptors may be passed to us: over a connection that waits for some, and no other.
//!
//! A descriptor in flight is a file that stays open, of whatever kind, for as long as its message lies in a socket;
//! dropping it can take long, and it counts for nobody. Kernels from 6.16 on refuse to pass descriptors to a socket that
//! does not want any: whoever tries is told so. Before that they are dropped when what they came with is read.

use std::io;
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::socket::SetSockOpt as _;

/// `SO_PASSRIGHTS` of Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

#[derive(Clone, Copy, Debug)]
struct PassRights;

nix::setsockopt_impl!(PassRights, libc::SOL_SOCKET, SO_PASSRIGHTS, bool, nix::sys::socket::sockopt::SetBool);

/// Lets descriptors be passed to a socket, or not. Connections begin as the socket that listens for them.
///
/// # Errors
/// What the system says, but not that it does not know of this.
pub(crate) fn let_descriptors_pass(socket: &impl AsFd, pass: bool) -> io::Result<()> {
    match PassRights.set(socket, &pass) {
        Ok(()) | Err(nix::errno::Errno::ENOPROTOOPT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
