//! The nodes' network: a namespace per node on one bridge, and a link by which the machine itself reaches them.
//!
//! The bridge lives in a namespace of its own. The machine's namespace gets one link with one address and nothing else: no
//! rule, no forwarding. What the nodes send elsewhere is refused at once, so nothing waits for an answer from the Internet.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::plan::Plan;
use crate::netns::{Namespace, ip_batch};
use crate::network::refuse_without_ration;

/// The last byte of the machine's own address on the nodes' network, and of the bridge's.
const MACHINE: u8 = 254;
const GATEWAY: u8 = 253;

/// Makes namespaces, links and routes.
pub(super) fn create(plan: &Plan) -> Result<()> {
    let number = plan.slot.number();
    let (switch_name, uplink) = (plan.slot.switch(), plan.slot.uplink());
    let switch = Namespace::create_named(&switch_name).context("make the nodes' switch")?;
    switch.ip_batch(&format!(
        "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         addr add 10.200.{number}.{GATEWAY}/24 dev br0\n\
         addr add fd00:10:200:{number:x}::{GATEWAY:x}/64 dev br0 nodad\n\
         link set br0 up\n\
         route add local 0.0.0.0/0 dev lo\n\
         route add local ::/0 dev lo\n"
    ))?;
    switch.enter(refuse_without_ration)??;
    ip_batch(
        None,
        &format!(
            "link add {uplink} type veth peer name uplink netns {switch_name}\n\
             addr add 10.200.{number}.{MACHINE}/24 dev {uplink}\n\
             link set {uplink} up\n"
        ),
    )
    .context("link the machine to the nodes' network")?;
    switch.ip_batch("link set uplink master br0\nlink set uplink up\n")?;
    for node in plan.nodes() {
        attach(plan, &switch, node).with_context(|| format!("make the network of node {node}"))?;
    }
    Ok(())
}

fn attach(plan: &Plan, switch: &Namespace, node: usize) -> Result<()> {
    let number = plan.slot.number();
    let name = plan.slot.namespace(node);
    let namespace = Namespace::create_named(&name)?;
    switch.ip_batch(&format!(
        "link add port{node} type veth peer name eth0 netns {name}\n\
         link set port{node} master br0\n\
         link set port{node} up\n"
    ))?;
    let mut lines = format!(
        "addr add {}/24 dev eth0\n\
         addr add {}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via 10.200.{number}.{GATEWAY}\n\
         route add default via fd00:10:200:{number:x}::{GATEWAY:x}\n",
        plan.node_v4(node),
        plan.node_v6(node),
    );
    for other in plan.nodes().filter(|other| *other != node) {
        writeln!(lines, "route add {} via {}", plan.pods_v4(other), plan.node_v4(other))?;
        writeln!(lines, "route add {} via {}", plan.pods_v6(other), plan.node_v6(other))?;
    }
    namespace.enter(forward)??;
    namespace.ip_batch(&lines)
}

/// A node is its pods' router.
fn forward() -> Result<()> {
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        std::fs::write(path, "1").with_context(|| format!("write 1 to {path}"))?;
    }
    Ok(())
}
