//! [`Address`]: where a bus is served, and the rules that find it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Environment variable that names the socket of the bus.
///
/// ```
/// assert_eq!(bus_core::SOCKET_VARIABLE, "BUS_SOCKET");
/// ```
pub const SOCKET_VARIABLE: &str = "BUS_SOCKET";

/// Longest path of a local socket on Linux, in bytes (`sun_path` less its closing zero).
///
/// ```
/// use bus_core::{Address, SOCKET_PATH_MAX_BYTES};
///
/// let longest = "/".to_owned() + &"x".repeat(SOCKET_PATH_MAX_BYTES - 1);
/// assert!(Address::new(longest).is_ok());
/// ```
pub const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The path of the socket at which a daemon serves a bus.
///
/// ```
/// use bus_core::Address;
///
/// let address = Address::new("/run/user/1000/bus/bus.sock")?;
/// assert_eq!(address.path().file_name().unwrap(), "bus.sock");
/// # Ok::<(), bus_core::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(PathBuf);

impl Address {
    /// A bus at `path`. A relative path is taken from the working folder.
    ///
    /// ```
    /// assert!(bus_core::Address::new("/tmp/".to_owned() + &"x".repeat(200)).is_err());
    /// ```
    ///
    /// # Errors
    /// [`AddressError::TooLong`] when the path does not fit into a local socket's address.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, AddressError> {
        let path = path.into();
        if path.as_os_str().is_empty() {
            return Err(AddressError::Empty);
        }
        let path = std::path::absolute(&path).unwrap_or(path);
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_MAX_BYTES {
            return Err(AddressError::TooLong { path, bytes });
        }
        Ok(Self(path))
    }

    /// The bus of this user: `BUS_SOCKET`, else `bus/bus.sock` in `$XDG_RUNTIME_DIR` (an absolute
    /// path), else in `/run/user/UID`, else in `$HOME/.local/state`.
    ///
    /// ```no_run
    /// println!("{}", bus_core::Address::of_user()?);
    /// # Ok::<(), bus_core::AddressError>(())
    /// ```
    ///
    /// # Errors
    /// [`AddressError::Nowhere`] when none of these folders is known, and
    /// [`AddressError::TooLong`].
    pub fn of_user() -> Result<Self, AddressError> {
        let uid = rustix::process::geteuid().as_raw();
        Self::find(|name| std::env::var_os(name).filter(|value| !value.is_empty()), uid, Path::is_dir)
    }

    fn find(
        variable: impl Fn(&str) -> Option<OsString>,
        uid: u32,
        is_folder: impl Fn(&Path) -> bool,
    ) -> Result<Self, AddressError> {
        if let Some(path) = variable(SOCKET_VARIABLE) {
            return Self::new(path);
        }
        // A relative one is invalid, says its specification, and would be another folder for each who asks.
        if let Some(folder) = variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute()) {
            return Self::new(folder.join("bus/bus.sock"));
        }
        let folder = PathBuf::from(format!("/run/user/{uid}"));
        if is_folder(&folder) {
            return Self::new(folder.join("bus/bus.sock"));
        }
        match variable("HOME") {
            Some(home) => Self::new(PathBuf::from(home).join(".local/state/bus/bus.sock")),
            None => Err(AddressError::Nowhere),
        }
    }

    /// The path of the socket.
    ///
    /// ```
    /// # let address = bus_core::Address::new("/run/bus/bus.sock")?;
    /// assert!(address.path().is_absolute());
    /// # Ok::<(), bus_core::AddressError>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Why there is no address.
///
/// ```
/// use bus_core::{Address, AddressError};
///
/// assert_eq!(Address::new(""), Err(AddressError::Empty));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// An empty path.
    #[error("the path of the bus socket is empty: give --socket PATH or set {SOCKET_VARIABLE}")]
    Empty,
    /// Longer than a local socket's address can hold.
    #[error(
        "socket path {} has {bytes} bytes, and a local socket holds {SOCKET_PATH_MAX_BYTES}: choose a shorter folder with --socket or {SOCKET_VARIABLE}",
        path.display()
    )]
    TooLong {
        /// The absolute path.
        path: PathBuf,
        /// Its length in bytes.
        bytes: usize,
    },
    /// No variable that names a folder is set.
    #[error("no runtime folder: set {SOCKET_VARIABLE}, XDG_RUNTIME_DIR or HOME")]
    Nowhere,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], run_user: bool) -> Result<String, AddressError> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        Address::find(variable, 7, |_| run_user).map(|address| address.to_string())
    }

    #[test]
    fn the_first_known_place_wins() {
        let all = [("BUS_SOCKET", "/a/s"), ("XDG_RUNTIME_DIR", "/x"), ("HOME", "/h")];
        assert_eq!(found(&all, true).unwrap(), "/a/s");
        assert_eq!(found(&all[1..], true).unwrap(), "/x/bus/bus.sock");
        assert_eq!(found(&all[2..], true).unwrap(), "/run/user/7/bus/bus.sock");
        assert_eq!(found(&all[2..], false).unwrap(), "/h/.local/state/bus/bus.sock");
        assert_eq!(found(&[], false), Err(AddressError::Nowhere));
        assert_eq!(
            found(&[("XDG_RUNTIME_DIR", "here"), ("HOME", "/h")], false).unwrap(),
            "/h/.local/state/bus/bus.sock"
        );
    }

    #[test]
    fn a_path_over_the_limit_is_refused_with_the_figure() {
        let error = Address::new(format!("/{}", "x".repeat(107))).unwrap_err();
        assert!(error.to_string().contains("108 bytes"), "{error}");
    }
}
