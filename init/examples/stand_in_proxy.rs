//! A stand-in for the sidecar in the namespace tests: listens as the proxy's user and does as it is told.
//!
//! Usage: `stand_in_proxy <uid> <port>`. Prints `ready` once it listens on every address of both families. Each
//! connection is echoed, except for three bytes: `r` makes the stand-in reset the connection, `h` makes it stop
//! reading (so that a kill finds unread data), `d` is answered with the original destination and a line end.
//! It serves until it is killed or its standard input ends, as it does when the test is killed.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::process;
use std::thread;
use std::time::Duration;

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use socket2::SockRef;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let (Some(Ok(user)), Some(Ok(port))) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: stand_in_proxy <uid> <port>"));
    };
    let port = u16::try_from(port).map_err(io::Error::other)?;
    setgroups(&[])?;
    setgid(Gid::from_raw(user))?;
    setuid(Uid::from_raw(user))?;
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    println!("ready");
    thread::spawn(|| {
        // However it ends, the test is gone.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let count = stream.read(&mut bytes)?;
        match bytes[..count] {
            [] => return Ok(()),
            [b'd', ..] => writeln!(stream, "{}", original_destination(&stream)?)?,
            [b'h', ..] => thread::sleep(Duration::from_secs(60)),
            [b'r', ..] => {
                // Until the kernel has acknowledged the order: a peer that repeats it would be reset for that.
                thread::sleep(Duration::from_millis(100));
                return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            [..] => stream.write_all(&bytes[..count])?,
        }
    }
}

/// A v4 connection on a v6 listener keeps its destination with the v4 call.
fn original_destination(stream: &TcpStream) -> io::Result<String> {
    let socket = SockRef::from(stream);
    let address = socket.original_dst_v4().or_else(|_| socket.original_dst_v6())?;
    Ok(address.as_socket().map_or_else(|| "none".to_owned(), |address| address.to_string()))
}
