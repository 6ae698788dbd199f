//! The one place where `unsafe` is allowed: five calls that no kept crate wraps.

#![expect(unsafe_code, reason = "this module exists to hold the data plane's unsafe blocks")]

use std::{
    fs, io,
    net::TcpListener,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr::{self, NonNull},
};

use nix::{
    libc,
    sys::mman::{MmapAdvise, madvise},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes of `struct tcp_info` that are read: up to and including `tcpi_snd_wnd` (Linux 5.4).
const TCP_INFO_LEN: usize = 232;

/// What the kernel knows of the sending side of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// Segments sent and not yet acknowledged.
    pub unacked: u32,
    /// Bytes written and not yet sent.
    pub unsent_bytes: u32,
    /// Milliseconds since the last acknowledgement arrived.
    pub last_ack_ms: u32,
    /// Bytes acknowledged since the connection began.
    pub bytes_acked: u64,
    /// The window the peer announced, in bytes; `None` where the kernel does not say.
    pub send_window: Option<u32>,
}

/// Reads `TCP_INFO` of an open socket.
///
/// # Errors
/// What `getsockopt` reports, and `InvalidData` where the kernel gave less than any supported one does.
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    use std::os::fd::AsRawFd;
    let mut raw = [0u8; TCP_INFO_LEN];
    let mut len = TCP_INFO_LEN as libc::socklen_t;
    // SAFETY: `raw` is writable for `len` bytes and `len` for a socklen_t; the kernel writes at most
    // `len` bytes and stores how many; the descriptor is open because it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            raw.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    parse_tcp_info(&raw[..(len as usize).min(TCP_INFO_LEN)])
}

fn parse_tcp_info(raw: &[u8]) -> io::Result<TcpInfo> {
    let field =
        |at: usize| raw.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    let wide =
        |at: usize| raw.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    // Offsets of `struct tcp_info` in linux/tcp.h, which only ever grows at its end.
    match (field(24), field(56), wide(120), field(144)) {
        (Some(unacked), Some(last_ack_ms), Some(bytes_acked), Some(unsent_bytes)) => {
            Ok(TcpInfo { unacked, unsent_bytes, last_ack_ms, bytes_acked, send_window: field(228) })
        }
        (_, _, _, _) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("tcp_info: expected at least 148 bytes, got {}", raw.len()),
        )),
    }
}

/// Takes ownership of a descriptor that another process sent and the kernel has just installed here.
///
/// The caller must be its only owner: a descriptor received by `SCM_RIGHTS`, taken over exactly once.
#[must_use]
pub fn adopt_fd(received: RawFd) -> OwnedFd {
    // SAFETY: the callers pass descriptors that `recvmsg` has just installed for them alone, each once.
    unsafe { OwnedFd::from_raw_fd(received) }
}

/// Watches a listener with the current runtime.
///
/// # Errors
/// What the runtime reports when it cannot watch the descriptor.
pub fn watch(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // SAFETY: a standard listener owns its descriptor, keeps it open until dropped and always gives
    // the same one.
    unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }.map_err(io::Error::from)
}

/// Gives back the resident pages of this program's file and its libraries'. What is used again is mapped again, from
/// the page cache.
///
/// # Errors
/// What reading `/proc/self/smaps` or the kernel reports.
pub fn forget_program_pages() -> io::Result<()> {
    for (start, len) in untouched_mappings(&fs::read_to_string("/proc/self/smaps")?) {
        let Some(start) = NonNull::new(ptr::with_exposed_provenance_mut(start)) else { continue };
        // SAFETY: the range is one whole mapping of a file, as the kernel just listed it, readable and not writable,
        // and no page of it differs from the file: what is mapped again is the same, and nothing that any thread can
        // observe changes.
        unsafe { madvise(start, len, MmapAdvise::MADV_DONTNEED) }?;
    }
    Ok(())
}

/// Start and length of the mappings of files that cannot be written and never were: what the loader has relocated
/// is read-only too, and is this process's own.
fn untouched_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        if let Some(own) = line.strip_prefix("Anonymous:") {
            found.extend(mapping.take().filter(|_| own.trim() == "0 kB"));
        } else if !line.split_whitespace().next().is_some_and(|first| first.ends_with(':')) {
            mapping = read_only_file(line);
        }
    }
    found
}

/// Start and length, where this first line of a mapping is of a file's that is not writable.
fn read_only_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, rights, path) = (fields.next()?, fields.next()?, fields.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let is_one = matches!(rights, "r-xp" | "r--p") && path.starts_with('/');
    is_one.then_some((start, end.checked_sub(start)?))
}

/// Gives the heap's free pages back to the system, where the C library can.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn tcp_info_tells_acknowledged_bytes_and_the_announced_window() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 100]).unwrap();
        server.read_exact(&mut [0; 100]).unwrap();
        let info = tcp_info(client.as_fd()).unwrap();
        assert_eq!(info.unacked, 0);
        // The SYN counts as one.
        assert_eq!(info.bytes_acked, 101);
        assert!(info.send_window.is_some_and(|window| window > 0), "{info:?}");
    }

    #[test]
    fn only_files_that_are_as_they_were_are_forgotten() {
        let smaps = "55c0-55d0 r--p 00000000 fe:00 1 /usr/bin/proxy\nRss: 64 kB\nAnonymous:             0 kB\n\
                     VmFlags: rd mr mw me\n\
                     55e0-5600 r-xp 00010000 fe:00 1 /usr/bin/proxy\nAnonymous:             0 kB\n\
                     5600-5608 r--p 00030000 fe:00 1 /usr/bin/proxy\nAnonymous:           200 kB\n\
                     5608-5610 rw-p 00038000 fe:00 1 /usr/bin/proxy\nAnonymous:             0 kB\n\
                     7f10-7f18 rwxp 00000000 fe:00 2 /usr/lib/odd.so\nAnonymous:             0 kB\n\
                     7ff0-7ff2 r-xp 00000000 00:00 0 [vdso]\nAnonymous:             0 kB\n\
                     8000-8010 r-xp 00000000 00:00 0\nAnonymous:             0 kB\n";
        assert_eq!(untouched_mappings(smaps), [(0x55c0, 0x10), (0x55e0, 0x20)]);
    }

    #[test]
    fn a_program_that_forgot_its_pages_goes_on_with_fewer() {
        let resident = || {
            let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
            let field = |name: &str| -> u64 {
                let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim_end_matches("kB").trim().parse().unwrap()
            };
            field("Rss:") - field("Anonymous:")
        };
        let before = resident();
        forget_program_pages().unwrap();
        trim_heap();
        let after = resident();
        assert!(after < before, "{after} of {before} kB of files");
    }

    #[test]
    fn a_short_tcp_info_is_refused() {
        let error = parse_tcp_info(&[0; 100]).unwrap_err();
        assert_eq!(error.to_string(), "tcp_info: expected at least 148 bytes, got 100");
    }
}
