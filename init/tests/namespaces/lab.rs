//! A pod and a peer, each a network namespace, joined by a veth pair; removed when the test ends, however it does.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, geteuid, setfsgid, setfsuid};
use ringmail_init::backend::Backend;
use ringmail_init::rules::Family;

/// Long enough for an answer between two namespaces on a busy machine, short enough to wait for silence.
pub(crate) const SOON: Duration = Duration::from_millis(700);
/// The user and group of the proxy.
pub(crate) const PROXY: u32 = 1337;
/// A user that is captured.
pub(crate) const APPLICATION: u32 = 1000;

pub(crate) const BACKENDS: [Backend; 2] = [Backend::Nft, Backend::Legacy];
pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The two namespaces.
pub(crate) struct Lab {
    pub(crate) pod: String,
    pub(crate) peer: String,
}

/// A stand-in for the proxy, killed when it goes out of scope.
pub(crate) struct StandIn(Child);

/// What a run of a program left: its exit code, and its output with errors after it.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Lab {
    /// A pod with an address of each family.
    pub(crate) fn new() -> Self {
        let lab = Self::with_ipv4_only();
        for (name, address) in [(&lab.pod, "fd77::2/64"), (&lab.peer, "fd77::1/64")] {
            ip(&["-n", name, "-6", "addr", "add", address, "dev", "eth0", "nodad"]);
        }
        lab
    }

    /// A pod that has a link-local IPv6 address only.
    pub(crate) fn with_ipv4_only() -> Self {
        assert!(geteuid().is_root(), "the namespace tests need root");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("ini-{}-{number}-{end}", std::process::id());
        let lab = Self { pod: name("pod"), peer: name("peer") };
        for name in [&lab.pod, &lab.peer] {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        ip(&[
            "-n", &lab.pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &lab.peer,
        ]);
        for (name, address) in [(&lab.pod, "10.77.0.2/24"), (&lab.peer, "10.77.0.1/24")] {
            ip(&["-n", name, "addr", "add", address, "dev", "eth0"]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
        }
        lab
    }

    /// Runs `ringmail-init` in the pod.
    pub(crate) fn init(&self, flags: &[&str]) -> Run {
        self.init_with_path(flags, None)
    }

    /// Runs `ringmail-init` in the pod, with this `PATH` if given.
    pub(crate) fn init_with_path(&self, flags: &[&str], path: Option<&str>) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail-init"));
        command.args(flags);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        inside(&self.pod, || Run::of(&mut command))
    }

    /// Runs `ringmail-init` in the pod with this backend, which must succeed.
    pub(crate) fn capture(&self, backend: Backend, flags: &[&str]) -> String {
        let backend = format!("--backend={backend}");
        let flags: Vec<&str> = [backend.as_str()].into_iter().chain(flags.iter().copied()).collect();
        let run = self.init(&flags);
        assert_eq!(run.code, Some(0), "{flags:?}: {}", run.text);
        run.text
    }

    /// Everything that a backend holds in the pod, without counters and comments.
    pub(crate) fn saved(&self, backend: Backend, family: Family) -> String {
        let run =
            inside(&self.pod, || Run::of(&mut Command::new(format!("{}-save", program(backend, family)))));
        assert_eq!(run.code, Some(0), "{}", run.text);
        let lines = run.text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" [").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    /// Runs iptables in the pod, which must succeed.
    pub(crate) fn iptables(&self, backend: Backend, family: Family, arguments: &str) {
        let mut command = Command::new(program(backend, family));
        command.args(arguments.split(' '));
        let run = inside(&self.pod, || Run::of(&mut command));
        assert_eq!(run.code, Some(0), "{arguments}: {}", run.text);
    }

    /// Starts a stand-in for the proxy in the pod.
    pub(crate) fn stand_in(&self, port: u16) -> StandIn {
        let bin = std::path::Path::new(env!("CARGO_BIN_EXE_ringmail-init"));
        let program = bin.with_file_name("examples").join("stand_in_proxy");
        assert!(program.exists(), "{} is built by `cargo test -p ringmail-init`", program.display());
        let mut command = Command::new(program);
        command.args([PROXY.to_string(), port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = inside(&self.pod, || command.spawn()).unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let stand_in = StandIn(child);
        assert_eq!(line, "ready\n");
        stand_in
    }

    /// Connects from the peer to the pod.
    pub(crate) fn connect_in(&self, family: Family, port: u16) -> io::Result<TcpStream> {
        inside(&self.peer, || TcpStream::connect_timeout(&SocketAddr::new(pod_address(family), port), SOON))
    }

    /// Connects from the pod, as this user and group, to the peer.
    pub(crate) fn connect_out(
        &self,
        (uid, gid): (u32, u32),
        family: Family,
        port: u16,
    ) -> io::Result<TcpStream> {
        let destination = SocketAddr::new(peer_address(family), port);
        inside(&self.pod, || as_user(uid, gid, || TcpStream::connect_timeout(&destination, SOON)))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.pod, &self.peer] {
            // Nothing to do about a failure here, and a panic would hide the test's own.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

impl StandIn {
    /// Stops it with SIGSTOP: the kernel goes on to take connections for it.
    pub(crate) fn stop(&self) {
        let process = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(process, Signal::SIGSTOP).unwrap();
    }

    /// Kills it with SIGKILL and waits until its sockets are closed.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
        let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        Self { code: status.code(), text }
    }
}

/// Does this in a namespace: on a thread of its own, because that is what a namespace holds for.
pub(crate) fn inside<T: Send>(namespace: &str, what: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::scope(|scope| {
        let inner = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            what()
        });
        inner.join().unwrap()
    })
}

/// Does this with sockets that belong to a user: the owner match looks at the file-system user, which is the
/// thread's own.
pub(crate) fn as_user<T>(uid: u32, gid: u32, what: impl FnOnce() -> T) -> T {
    let before = (setfsuid(Uid::from_raw(uid)), setfsgid(Gid::from_raw(gid)));
    let result = what();
    setfsuid(before.0);
    setfsgid(before.1);
    result
}

/// The next connection of a listener and where it came from; none arriving is a failed test, not a long one.
pub(crate) fn accepted(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        match listener.accept() {
            Ok((stream, source)) => {
                stream.set_nonblocking(false).unwrap();
                return (stream, source);
            }
            Err(error) => assert!(Instant::now() < deadline, "nothing arrived at the listener: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A listener in a namespace, on all its addresses.
pub(crate) fn listen(namespace: &str, port: u16) -> TcpListener {
    inside(namespace, || TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).unwrap())
}

pub(crate) fn pod_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 77, 0, 2].into(),
        Family::V6 => [0xfd77, 0, 0, 0, 0, 0, 0, 2].into(),
    }
}

pub(crate) fn peer_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 77, 0, 1].into(),
        Family::V6 => [0xfd77, 0, 0, 0, 0, 0, 0, 1].into(),
    }
}

pub(crate) fn program(backend: Backend, family: Family) -> String {
    match family {
        Family::V4 => format!("iptables-{backend}"),
        Family::V6 => format!("ip6tables-{backend}"),
    }
}

/// Every pair of backend and family.
pub(crate) fn each_case() -> impl Iterator<Item = (Backend, Family)> {
    BACKENDS.into_iter().flat_map(|backend| FAMILIES.map(|family| (backend, family)))
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {}", arguments.join(" "));
}
