//! [`Claim`]: everything that makes this process *the* daemon of an address, taken in the order
//! folder, lock, socket, key, and given up in the reverse.

use std::ffi::OsString;

use bus_core::{Address, AddressError};
use interprocess::local_socket::Listener;

use crate::config::{Config, InvalidConfig};
use crate::key::{KeyError, TokenKey};
use crate::lock::{Lock, LockError};
use crate::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::socket_file::{Access, SocketError, SocketFile};

/// Held as long as the daemon serves. Dropping it removes the socket, then lets the lock go.
#[derive(Debug)]
pub(crate) struct Claim {
    address: Address,
    key: TokenKey,
    socket: SocketFile,
    folder: RuntimeDir,
    lock: Lock,
}

impl Claim {
    /// Becomes the daemon of the configured address, and listens there. Nothing of another daemon is
    /// touched when this fails.
    ///
    /// # Errors
    /// [`ClaimError`] names what is in the way, and what to do.
    pub(crate) fn take(config: &Config) -> Result<(Self, Listener), ClaimError> {
        config.check()?;
        let address = config.address()?;
        let name = match address.path().file_name() {
            Some(name) => name.to_owned(),
            None => return Err(ClaimError::NoFile { address }),
        };
        let folder = RuntimeDir::of_socket(address.path())?;
        let lock = Lock::take(&folder, &name)?;
        let (key, socket, listener) = Self::settle(config, &folder, name, &lock)?;
        Ok((Self { address, key, socket, folder, lock }, listener))
    }

    /// The key comes before the socket: once that is there, senders come and want tokens.
    fn settle(
        config: &Config,
        folder: &RuntimeDir,
        name: OsString,
        lock: &Lock,
    ) -> Result<(TokenKey, SocketFile, Listener), ClaimError> {
        let key = TokenKey::open(folder, &name, lock)?;
        let access = Access { mode: config.socket_mode, group: config.socket_group };
        let (socket, listener) = SocketFile::bind(folder, &name, access, lock)?;
        Ok((key, socket, listener))
    }

    /// Where the bus is served.
    #[must_use]
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether an earlier daemon at this address has left ends behind, which may come back: it died, or was told to end
    /// while they were there.
    #[must_use]
    pub(crate) fn follows_ends(&self) -> bool {
        self.socket.follows_death() || self.lock.follows_ends()
    }

    /// This daemon ends, and has left none.
    pub(crate) fn leave_nobody(&self) {
        self.lock.leave_nobody();
    }

    /// What the tokens of senders are signed with.
    #[must_use]
    pub(crate) fn key(&self) -> &TokenKey {
        &self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.socket.remove(&self.folder, &self.lock);
    }
}

/// Why this process is not the daemon.
///
/// ```
/// use bus_core::Address;
/// use bus_daemon::{ClaimError, Config, Daemon, StartError};
///
/// let folder = tempfile::tempdir()?;
/// let socket = Some(Address::new(folder.path().join("bus.sock"))?);
/// let daemon = Daemon::start(Config { socket: socket.clone(), ..Config::default() })?;
/// let second = Daemon::start(Config { socket, ..Config::default() });
/// assert!(matches!(second, Err(StartError::Claim(ClaimError::Lock(_)))));
/// # drop(daemon);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A setting is out of its limits.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// There is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The address has no last part that a socket could have.
    #[error("socket path {address} names no file: add one, such as bus.sock")]
    NoFile {
        /// The address.
        address: Address,
    },
    /// The folder is not safe.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// Another daemon serves there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_dir::private_folder;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_second_daemon_is_refused_and_harms_nothing() {
        let place = private_folder();
        let path = place.path().join("bus.sock");
        let config = Config { socket: Some(Address::new(&path).unwrap()), ..Config::default() };

        let (claim, listener) = Claim::take(&config).unwrap();
        assert!(matches!(Claim::take(&config), Err(ClaimError::Lock(LockError::Held { .. }))));
        UnixStream::connect(&path).unwrap();

        drop(claim);
        assert!(!path.exists());
        drop(listener);
        let (next, _listener) = Claim::take(&config).unwrap();
        assert_eq!(next.address().path(), path);
    }

    #[test]
    fn the_key_survives_the_daemon() {
        let place = private_folder();
        let config = Config { socket: Some(Address::new(place.path().join("bus.sock")).unwrap()), ..Config::default() };
        let first = Claim::take(&config).unwrap().0.key().clone();
        assert_eq!(*Claim::take(&config).unwrap().0.key(), first);
    }

    #[test]
    fn a_bad_setting_is_refused_before_anything_is_touched() {
        let place = private_folder();
        let socket = Some(Address::new(place.path().join("bus/bus.sock")).unwrap());
        let config = Config { socket, window_bytes: 0, ..Config::default() };
        assert!(matches!(Claim::take(&config), Err(ClaimError::Config(_))));
        assert!(!place.path().join("bus").exists());
    }
}
