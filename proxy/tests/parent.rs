//! The two processes of the real binary: what a crash of the data plane costs, and how both end.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

mod kit;

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ID: &str = "spiffe://cluster.local/ns/ignite/sa/node";
const PATIENCE: Duration = Duration::from_secs(10);

/// A running proxy; its processes are killed when it is dropped.
struct Proxy {
    process: Child,
    ports: [u16; 6],
    dir: tempfile::TempDir,
    started: Instant,
}

impl Proxy {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, None)
    }

    /// Its log goes to a file, or to `stderr`.
    fn start_with(arguments: &[&str], stderr: Option<Stdio>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ca, path) = (kit::Ca::new("root"), |name: &str| dir.path().join(name));
        let svid = ca.svid(ID);
        fs::write(path("tls.crt"), svid.chain_pem()).unwrap();
        fs::write(path("tls.key"), svid.key().to_pem().as_bytes()).unwrap();
        fs::write(path("ca.crt"), ca.bundle().to_pem()).unwrap();
        fs::create_dir(path("policy")).unwrap();
        let ports = free_ports();
        fs::write(path("proxy.yaml"), settings(dir.path(), ports)).unwrap();
        let started = Instant::now();
        let log = fs::File::create(path("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_ringmail-proxy"))
            .arg("--config")
            .arg(path("proxy.yaml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.unwrap_or_else(|| log.into()))
            .spawn()
            .unwrap();
        Self { process, ports, dir, started }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap())
    }

    /// The data plane is the parent's one child.
    fn data_plane(&self) -> Option<Pid> {
        let pid = self.process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next().map(|child| Pid::from_raw(child.parse().unwrap()))
    }

    fn another_data_plane(&self, than: Pid) -> Pid {
        wait_for("another data plane", || self.data_plane().filter(|child| *child != than))
    }

    fn address(&self, port: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[port]).into()
    }

    fn outbound(&self) -> SocketAddr {
        self.address(0)
    }

    fn inbound(&self) -> SocketAddr {
        self.address(1)
    }

    fn admin(&self, path: &str) -> io::Result<String> {
        get(self.address(2), path)
    }

    fn is_ready(&self) -> bool {
        get(self.address(4), "/healthz/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn becomes_ready(&self) {
        wait_for("readiness", || self.is_ready().then_some(()));
    }

    fn serial(&self) -> String {
        let certs = self.admin("/certs").unwrap();
        let (_, rest) = certs.split_once("\"cert_chain\"").unwrap();
        let (_, rest) = rest.split_once("\"serial_number\": \"").unwrap_or_else(|| panic!("{certs}"));
        rest.split('"').next().unwrap().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn ends(&mut self) -> ExitStatus {
        let process = &mut self.process;
        wait_for("the end of the proxy", || process.try_wait().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn settings(dir: &Path, [outbound, inbound, admin, stats, health, linkerd]: [u16; 6]) -> String {
    let dir = dir.display();
    format!(
        "namespace: ignite\nservice_account: node\nidentity_source: files\nworkers: 1\n\
         cert_file: {dir}/tls.crt\nkey_file: {dir}/tls.key\nbundle_file: {dir}/ca.crt\n\
         policy_dir: {dir}/policy\nstate_dir: {dir}/state\noutbound_port: {outbound}\ninbound_port: {inbound}\nadmin_port: {admin}\n\
         stats_port: {stats}\nhealth_port: {health}\nlinkerd_admin_port: {linkerd}\n"
    )
}

/// Ports that nobody has at this moment, below those that the kernel gives to outgoing connections.
fn free_ports() -> [u16; 6] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 10;
    [(); 6].map(|()| {
        wait_for("a free port", || {
            let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
            TcpListener::bind(("0.0.0.0", port)).ok().map(|_| port)
        })
    })
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

#[test]
fn the_ports_listen_well_within_a_second_of_the_start() {
    let proxy = Proxy::start(&[]);
    wait_for("the inbound listener", || TcpStream::connect(proxy.inbound()).ok());
    let took = proxy.started.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    proxy.becomes_ready();
}

#[test]
fn twenty_deaths_in_a_row_refuse_no_dial_and_need_no_source_of_credentials() {
    let proxy = Proxy::start(&[]);
    proxy.becomes_ready();
    let serial = proxy.serial();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        fs::remove_file(proxy.dir.path().join(name)).unwrap();
    }
    let (refused, dialled, stop) =
        (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let dialling = {
        let (refused, dialled, stop) = (Arc::clone(&refused), Arc::clone(&dialled), Arc::clone(&stop));
        let ports = [proxy.inbound(), proxy.outbound()];
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for port in ports {
                    // A dial that was taken and reset at once was not refused: the kernel had answered.
                    let taken = match TcpStream::connect_timeout(&port, PATIENCE) {
                        Ok(_) => true,
                        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
                    };
                    refused.fetch_add(usize::from(!taken), Ordering::Relaxed);
                    dialled.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let mut slowest = Duration::ZERO;
    for death in 0..20 {
        let child = proxy.data_plane().unwrap();
        let signal = if death % 2 == 0 { Signal::SIGABRT } else { Signal::SIGKILL };
        let start = Instant::now();
        kill(child, signal).unwrap();
        proxy.another_data_plane(child);
        proxy.becomes_ready();
        slowest = slowest.max(start.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    dialling.join().unwrap();
    assert!(dialled.load(Ordering::Relaxed) > 100);
    assert_eq!(refused.load(Ordering::Relaxed), 0);
    assert_eq!(proxy.serial(), serial);
    let metrics = get(proxy.address(3), "/stats/prometheus").unwrap();
    assert!(metrics.contains("ringmail_data_plane_restarts_total 20"), "{metrics}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(!proxy.log().contains("PRIVATE KEY"));
}

#[test]
fn a_connection_that_waits_in_the_backlog_is_served_by_the_next_data_plane() {
    let proxy = Proxy::start(&[]);
    proxy.becomes_ready();
    let child = proxy.data_plane().unwrap();
    // Stopped, it cannot accept: what is dialled now waits, and outlives it.
    kill(child, Signal::SIGSTOP).unwrap();
    let health = proxy.address(4);
    let waiting = thread::spawn(move || get(health, "/healthz/ready"));
    thread::sleep(Duration::from_millis(200));
    assert!(!waiting.is_finished());
    kill(child, Signal::SIGKILL).unwrap();
    let answer = waiting.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
}

#[test]
fn the_data_plane_dies_with_its_parent() {
    let mut proxy = Proxy::start(&[]);
    proxy.becomes_ready();
    let child = proxy.data_plane().unwrap();
    kill(proxy.pid(), Signal::SIGKILL).unwrap();
    proxy.ends();
    let start = Instant::now();
    wait_for("the end of the data plane", || (!is_alive(child)).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(1));
    wait_for("closed ports", || TcpStream::connect(proxy.inbound()).err());
}

#[test]
fn a_signal_drains_and_the_parent_ends_with_the_data_plane() {
    for (arguments, signal) in
        [(&[][..], Signal::SIGTERM), (&[], Signal::SIGINT), (&["--no-parent"], Signal::SIGTERM)]
    {
        let mut proxy = Proxy::start(arguments);
        proxy.becomes_ready();
        kill(proxy.pid(), signal).unwrap();
        assert_eq!(proxy.ends().code(), Some(0), "{arguments:?} {signal}");
        let log = proxy.log();
        assert!(log.contains("drained: no connection is left"), "{log}");
    }
}

#[test]
fn a_second_signal_ends_at_once_what_the_first_one_drains() {
    let mut proxy = Proxy::start(&[]);
    proxy.becomes_ready();
    // A silent client in its handshake keeps the drain waiting.
    let _silent = TcpStream::connect(proxy.inbound()).unwrap();
    thread::sleep(Duration::from_millis(100));
    kill(proxy.pid(), Signal::SIGTERM).unwrap();
    wait_for("the drain", || proxy.log().contains("draining").then_some(()));
    let start = Instant::now();
    kill(proxy.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(proxy.ends().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3));
}

/// A pipe that is full, with the end that nobody reads.
fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    let set = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
    set(OFlag::O_NONBLOCK);
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    set(OFlag::empty());
    writer.flush().unwrap();
    (reader, writer)
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_process() {
    let (reader, writer) = full_pipe();
    let mut proxy = Proxy::start_with(&[], Some(writer.into()));
    proxy.becomes_ready();
    let child = proxy.data_plane().unwrap();
    kill(child, Signal::SIGKILL).unwrap();
    proxy.another_data_plane(child);
    proxy.becomes_ready();
    kill(proxy.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(proxy.ends().code(), Some(0));
    drop(reader);
}

#[test]
fn faults_of_the_settings_end_the_parent_with_the_code_of_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    for text in [Some("log_levle: info\n"), None] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        let output =
            Command::new(env!("CARGO_BIN_EXE_ringmail-proxy")).arg("--config").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("proxy.yaml") && !told.contains("panicked"), "{told}");
    }
}

#[test]
fn a_data_plane_without_a_parent_to_speak_to_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    fs::write(&file, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringmail-proxy"))
        .arg("--config")
        .arg(&file)
        .arg("--data-plane")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("socket pair with the parent"), "{told}");
}
