//! `ListenAddress`: where the API is served. On the loopback of a pod, only the API server's port-forward gets to it,
//! and what runs in that pod. A Unix socket is root's: its mode says so, and each peer is asked for its user.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, TcpListener as StdTcpListener},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener as StdUnixListener,
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// The address at which the API is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// On 127.0.0.1, at this port.
    Loopback(u16),
    /// On a Unix socket at this path.
    Socket(PathBuf),
}

/// An opened address.
pub(super) enum Listener {
    Loopback(StdTcpListener),
    Socket(StdUnixListener, SocketFile),
}

/// An opened address at which a tokio runtime accepts connections.
pub(super) enum TokioListener {
    Loopback(TcpListener),
    Socket(UnixListener, #[expect(dead_code, reason = "removes the socket when it is dropped")] SocketFile),
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    pub(super) fn open(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Loopback(port) => {
                let listener = StdTcpListener::bind((Ipv4Addr::LOCALHOST, *port))?;
                tracing::info!(address = %listener.local_addr()?, "serving the read API");
                Ok(Self::Loopback(listener))
            }
            ListenAddress::Socket(path) => {
                let (listener, file) = open_socket(path)?;
                tracing::info!(path = %path.display(), "serving the read API");
                Ok(Self::Socket(listener, file))
            }
        }
    }

    /// Accepts connections from now on. Needs a tokio runtime.
    pub(super) fn listen(self) -> io::Result<TokioListener> {
        match self {
            Self::Loopback(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(TokioListener::Loopback)
            }
            Self::Socket(listener, file) => {
                listener.set_nonblocking(true)?;
                Ok(TokioListener::Socket(UnixListener::from_std(listener)?, file))
            }
        }
    }
}

impl TokioListener {
    /// Accepts the next connection. `None` means that it was none of root's, and was closed.
    pub(super) async fn accept(&self) -> io::Result<Option<Stream>> {
        match self {
            Self::Loopback(listener) => Ok(Some(Stream::Tcp(listener.accept().await?.0))),
            Self::Socket(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred()?;
                if peer.uid() == 0 {
                    return Ok(Some(Stream::Unix(stream)));
                }
                tracing::warn!(uid = peer.uid(), pid = peer.pid(), "the read API was asked by a user that is not root");
                Ok(None)
            }
        }
    }
}

/// The file of a socket, which is removed in the end unless somebody else's is there by then.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| inode(&file) == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn inode(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Opens a socket, in the place of one that an earlier agent left. It is made beside its path and renamed, so that it
/// is never there with another mode.
fn open_socket(path: &Path) -> io::Result<(StdUnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is something else than a socket"));
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}", std::process::id()));
    let staged = PathBuf::from(staged);
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdUnixListener::bind(&staged)?;
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o600))?;
    let inode = inode(&fs::symlink_metadata(&staged)?);
    fs::rename(&staged, path)?;
    Ok((listener, SocketFile { path: path.to_owned(), inode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_roots_alone_replaces_an_older_one_and_goes_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read.sock");
        let (_first, first) = open_socket(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_second, second) = open_socket(&path).unwrap();
        drop(first);
        assert!(path.exists(), "the newer one is somebody else's");
        drop(second);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(&path, "text").unwrap();
        assert!(open_socket(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
