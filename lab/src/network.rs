//! Pods on one bridge, as on one Kubernetes node: each pod a namespace with one interface and a default route.
//!
//! The bridge lives in a namespace of its own, the switch, where the capture listens. Every network may use the same
//! addresses, because no two of them meet.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::netns::{Namespace, sweep_leftovers};
use crate::process::{Child, Launch};

/// The pods' range; the last address of it is the gateway's.
pub const IPV4_RANGE: &str = "10.77.0.0/24";

/// The pods' IPv6 range; `::fe` is the gateway's.
pub const IPV6_RANGE: &str = "fd77::/64";

/// More pods than this would meet the gateway's address.
const MAX_PODS: usize = 200;

/// One pod: a name, a namespace, an address.
#[derive(Debug)]
pub struct Pod {
    name: String,
    namespace: Namespace,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl Pod {
    /// The name it was asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace it lives in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its IPv4 address, in [`IPV4_RANGE`].
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.ipv4)
    }

    /// Its IPv6 address, in [`IPV6_RANGE`].
    pub fn ipv6(&self) -> Ipv6Addr {
        self.ipv6
    }

    /// Starts a process inside.
    pub fn spawn(&self, command: &mut Command, launch: &Launch) -> Result<Child> {
        Child::spawn(&self.namespace, command, launch)
    }
}

/// A bridge with its pods.
#[derive(Debug)]
pub struct Network {
    pods: Vec<Pod>,
    switch: Namespace,
}

impl Network {
    /// Makes a pod for each name, with the addresses `10.77.0.1`, `10.77.0.2`, ... in that order, and sweeps away what a killed
    /// run left behind. Needs root.
    pub fn create(names: &[&str]) -> Result<Self> {
        if names.len() > MAX_PODS {
            bail!("{} pods asked for, a network holds {MAX_PODS}", names.len());
        }
        sweep_leftovers()?;
        let switch = Namespace::create("switch")?;
        switch.ip_batch(
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             addr add 10.77.0.254/24 dev br0\n\
             addr add fd77::fe/64 dev br0 nodad\n\
             link set br0 up\n\
             route add local 0.0.0.0/0 dev lo\n\
             route add local ::/0 dev lo\n",
        )?;
        switch.enter(refuse_without_ration)??;
        let congestion = congestion_control()?;
        let mut pods = Vec::with_capacity(names.len());
        for (number, name) in (1u8..).zip(names) {
            pods.push(attach(&switch, number, name, congestion).with_context(|| format!("make pod {name}"))?);
        }
        Ok(Self { pods, switch })
    }

    /// The namespace of the bridge: what passes between pods passes here.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// All pods, in the order they were asked for.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The pod of this name; an error names those that are there.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.name == name).with_context(|| {
            let known: Vec<_> = self.pods.iter().map(Pod::name).collect();
            format!("no pod {name}, there are {}", known.join(", "))
        })
    }
}

/// Lets the gateway, which takes every address outside for its own and serves nothing there, refuse each packet that asks.
/// Were it silent, or its refusals rationed, each look-up of a name would wait for its timeout, and a ring a minute to form.
pub(crate) fn refuse_without_ration() -> Result<()> {
    for path in ["/proc/sys/net/ipv4/icmp_ratelimit", "/proc/sys/net/ipv6/icmp/ratelimit"] {
        std::fs::write(path, "0").with_context(|| format!("write 0 to {path}"))?;
    }
    Ok(())
}

fn attach(switch: &Namespace, number: u8, name: &str, congestion: &str) -> Result<Pod> {
    let namespace = Namespace::create(name)?;
    let ipv4 = Ipv4Addr::new(10, 77, 0, number);
    let ipv6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number));
    switch.ip_batch(&format!(
        "link add port{number} type veth peer name eth0 netns {pod}\n\
         link set port{number} master br0\n\
         link set port{number} up\n",
        pod = namespace.name()
    ))?;
    let mut lines = format!(
        "addr add {ipv4}/24 dev eth0\n\
         addr add {ipv6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via 10.77.0.254 {congestion}\n\
         route add default via fd77::fe {congestion}\n"
    );
    if !congestion.is_empty() {
        // What the kernel made by itself with the addresses carries no congestion control: it is replaced by the same with one.
        writeln!(
            lines,
            "route replace 10.77.0.0/24 dev eth0 proto kernel scope link src {ipv4} {congestion}"
        )?;
        for (local, device) in [("127.0.0.1", "lo"), ("127.0.0.0/8", "lo"), (&*ipv4.to_string(), "eth0")] {
            let source = if device == "lo" { "127.0.0.1" } else { local };
            writeln!(
                lines,
                "route replace table local local {local} dev {device} proto kernel scope host src {source} {congestion}"
            )?;
        }
    }
    namespace.ip_batch(&lines)?;
    Ok(Pod { name: name.to_owned(), namespace, ipv4, ipv6 })
}

/// The words that give a route the usual congestion control where the machine's default may pace: a pacing one caps a veth far
/// below what it carries. It is set on the routes, since a namespace may not choose its default and the machine's is left alone.
fn congestion_control() -> Result<&'static str> {
    let available = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")
        .context("read the congestion controls of the kernel")?;
    Ok(if available.split_whitespace().any(|name| name == "cubic") { "congctl cubic" } else { "" })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use nix::sys::socket::{getsockopt, sockopt::TcpCongestion};

    use super::*;

    #[test]
    fn pods_reach_each_other_over_both_families_with_cubic_and_the_outside_refuses() {
        let network = Network::create(&["a", "b"]).unwrap();
        let (a, b) = (network.pod("a").unwrap(), network.pod("b").unwrap());
        for address in [b.ip(), IpAddr::V6(b.ipv6())] {
            let listener = b.namespace().enter(|| TcpListener::bind((address, 7000)).unwrap()).unwrap();
            let mut client = a.namespace().enter(|| TcpStream::connect((address, 7000)).unwrap()).unwrap();
            let (mut server, from) = listener.accept().unwrap();
            client.write_all(b"hello").unwrap();
            let mut read = [0; 5];
            server.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"hello");
            if address.is_ipv4() {
                assert_eq!(from.ip(), a.ip());
                assert_eq!(getsockopt(&client, TcpCongestion).unwrap(), "cubic");
            }
        }
        let outside = ([192, 0, 2, 1], 80).into();
        let refused = a
            .namespace()
            .enter(|| TcpStream::connect_timeout(&outside, Duration::from_secs(5)).unwrap_err())
            .unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(network.pod("c").unwrap_err().to_string().contains("a, b"));
    }
}
