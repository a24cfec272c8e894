//! Sockets of the data path, HTTP or not, and memory for what they bring.
//!
//! | module | what it is |
//! |---|---|
//! | [`stream`] | TCP connections and listeners, driven by system calls of our own |
//! | [`buffers`] | memory that is lent to connections which have something to read |
//! | [`pipe`] | bytes from connection to connection without a copy |
//! | [`copy`] | bytes both ways between two connections |
//! | [`bind`] | listening sockets, one for each worker |
//! | [`datagrams`] | datagrams, many with one system call |
//!
//! Besides, what a failed connection says about whom.

pub mod bind;
pub mod buffers;
pub mod copy;
pub mod datagrams;
pub mod pipe;
pub mod stream;

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime watch a descriptor for something to read.
#[allow(unsafe_code)]
pub fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has one descriptor for life, and closes it when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? })
}

/// Was a connection not made for want of something on this side: descriptors, ports, memory? Says nothing about the peer.
pub fn is_own_trouble(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    let own = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL];
    errno.is_some_and(|errno| own.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_is_this_sides_trouble() {
        assert!(is_own_trouble(&io::Error::from_raw_os_error(Errno::EMFILE as i32)));
        assert!(!is_own_trouble(&io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32)));
        assert!(!is_own_trouble(&io::Error::other("x")));
    }
}
